"""Several sockets on one port: what the rules for two of them say of many, against the kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from errno import EADDRINUSE
from pathlib import Path
from typing import Any

import pytest

from porttrace.analysis.sharing import Call, Claim, several

SOCKETS = Path(__file__).with_name("random_sockets.py")
PORTS = 10_000


@dataclass
class Port:
    """What stands on a port, and the users whose SO_REUSEPORT it may remember."""

    standing: dict[int, Claim] = field(default_factory=dict)
    remembered: set[int] = field(default_factory=set)

    def act(self, act: str, told: list[Any], errno: int) -> tuple[frozenset[int], bool]:
        """Return which errnos the rules allow, and whether the port's memory may let it in."""
        number, protocol, address, v6only, reuseaddr, reuseport, uid = told
        asked = Claim(protocol, address, 8080, v6only, reuseaddr, reuseport, uid)
        others = [claim for at, claim in self.standing.items() if at != number]
        call: Call = "listen" if act == "listen" else "bind"
        allowed = several(others, asked, call)
        remembered = reuseport and uid in self.remembered
        if errno == 0:
            state = "listening" if act == "listen" else "bound"
            self.standing[number] = replace(asked, state=state)
            self.remembered |= {uid} if reuseport else set()
        return allowed, remembered

    def close(self, number: int) -> None:
        """Forget a socket, and all of the port with the last one."""
        del self.standing[number]
        if not self.standing:
            self.remembered.clear()


def calls(seed: int) -> Iterator[tuple[frozenset[int], bool, int, list[Any]]]:
    """Yield what the rules allow, whether memory may let in, the errno, and the port's story."""
    argv = [sys.executable, str(SOCKETS), str(seed), str(PORTS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=500, check=True)
    for line in done.stdout.splitlines():
        port, story = Port(), json.loads(line)
        for act, told, errno in story:
            if act == "close":
                port.close(told[0])
            else:
                yield *port.act(act, told, errno), errno, story


@pytest.mark.kernel
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_several_sockets_are_as_the_rules_allow(seed: int) -> None:
    seen: Counter[str] = Counter()
    for allowed, remembered, errno, story in calls(seed):
        assert errno in allowed or (remembered and errno == 0), story
        kind = "open" if len(allowed) > 1 else "certain" if errno in allowed else "remembered"
        seen[kind] += 1
        seen["works" if errno == 0 else "fails"] += 1
        assert errno in (0, EADDRINUSE)
    assert seen["works"] > 10_000 and seen["fails"] > 5_000
    assert 0 < seen["open"] < seen["certain"] / 50 and seen["remembered"] < 20, seen
