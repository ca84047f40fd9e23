"""A trace of the whole collision matrix: every bind and listen in it, each with its own errno."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from porttrace.lab.binds import Ask, Tried, cells
from tracing import read, run

pytestmark = pytest.mark.kernel
TRIALS = [sys.executable, "-m", "porttrace.lab.bind_trials"]
SERVERS = 1999  # the port of the servers that the trials connect to

# call, address, errno, SO_REUSEADDR, SO_REUSEPORT
Call = tuple[str, str, int, bool, bool]


def calls_of(tried: Tried) -> Iterator[Call]:
    """Yield the calls of bind and listen that a cell is made of, in their order."""
    cell = tried.cell
    if cell.state != "client":
        yield call("bind", cell.first, 0)
    kept_out = tried.errno is None and not tried.first_errno
    if cell.call == "listen":
        yield call("bind", cell.second, 98 if kept_out else 0)
    if kept_out:
        return
    if tried.errno is None:
        yield call("listen", cell.first, tried.first_errno)
        return
    if cell.state in ("listening", "accepted"):
        yield call("listen", cell.first, 0)
    yield call(cell.call, cell.second, tried.errno)


def call(name: str, ask: Ask, errno: int) -> Call:
    address = ask.place.address.removeprefix("::ffff:")  # traces show mapped addresses as IPv4
    return name, address, errno, ask.reuseaddr, ask.reuseport


def traced_calls(rows: list[dict[str, Any]]) -> dict[int, list[Call]]:
    """Return the calls on each port, in order of time."""
    seen: dict[int, list[Call]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row["time_ns"])):
        options = row["options"]["reuseaddr"], row["options"]["reuseport"]
        port = row["port_asked"] or row["port_got"]
        seen[port].append((row["call"], row["addr"], row["errno"], *options))
    return seen


def test_every_cell_shows_in_the_trace_as_it_came_out() -> None:
    done = run("--json", "--", *TRIALS, timeout_s=100)
    traced = read(done)
    (said,) = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[[")]
    made: dict[int, list[Call]] = defaultdict(list)
    for cell, found in zip(cells(), said, strict=True):
        tried = Tried(cell, *found)
        made[tried.port] += calls_of(tried)
    seen = traced_calls([row for row in traced.of("bind") if row["call"] != "autobind"])
    assert len(seen.pop(SERVERS)) == 4
    assert traced.is_trusted()
    wrong = {port: (seen[port], made[port]) for port in {*made, *seen} if seen[port] != made[port]}
    assert len(wrong) <= traced.report["trust"]["lost_events"], dict([*wrong.items()][:5])
    assert sum(map(len, made.values())) > 50_000
