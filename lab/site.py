"""A place to run workloads at: both hosts and the servers, as one context manager.

Scenarios, tests and benchmarks stand on it. `truth` runs a workload to its end and returns what the
workload itself knows about its connects.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from porttrace.lab.errors import LabError
from porttrace.lab.hosts import BLACKHOLE_V4, SERVER_V4, Hosts
from porttrace.lab.servers import HTTP_PORT, Servers
from porttrace.lab.throttle import Throttle

DEAD = f"{BLACKHOLE_V4}:9100"
LIVE = f"{SERVER_V4}:{HTTP_PORT}"

Record = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """The hosts of an open site; workloads run on the client."""

    hosts: Hosts

    def argv(self, workload: str, *options: str, throttle: Throttle | None = None) -> list[str]:
        """Return the command line that runs a workload, by name, on the client host."""
        command = [sys.executable, "-m", f"porttrace.lab.workloads.{workload}", *options]
        return self.hosts.in_client(throttle.argv(command) if throttle else command)

    def truth(self, workload: str, *options: str, throttle: Throttle | None = None) -> list[Record]:
        """Run a workload to its end and return its records."""
        return read_records(run(self.argv(workload, *options, throttle=throttle)))


@contextmanager
def open_site(server_delay_s: float = 0.0, router: bool = False) -> Iterator[Site]:
    """Make hosts and servers, with a `router` in between or without; remove all at the end."""
    with Hosts(router) as hosts, Servers(hosts, server_delay_s):
        yield Site(hosts)


def run(argv: list[str], timeout_s: float = 60.0) -> str:
    """Run a command that must succeed, and return its output."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise LabError(
            f"{' '.join(argv)} ended with status {done.returncode}: {done.stderr.strip()[-400:]}",
            "run the same command by hand to see all of its output",
        )
    return done.stdout


def read_records(text: str) -> list[Record]:
    """Read the JSON lines of a workload."""
    return [json.loads(line) for line in text.splitlines()]
