"""The stories of the lab: hosts, servers, a throttle or none, a workload, and what must be found.

`prepare` sets a story up and yields the command line that a tracer traces:
`porttrace -- ARGV ...`. The command enters the client host, puts the throttle around the workload,
and runs it; it is bounded by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from porttrace.lab.errors import LabError
from porttrace.lab.hosts import SERVER_V4
from porttrace.lab.servers import DATABASE_PORT, DIRECTORY_PORT
from porttrace.lab.site import DEAD, LIVE, open_site
from porttrace.lab.throttle import Throttle


@dataclass(frozen=True)
class Settings:
    """What a caller may change about a story; zero means the story's own number."""

    dead_time_s: float = 0.0
    pages: int = 10
    page_interval_s: float = 1.0
    pause_s: float = 1.0
    threads: int = 0
    connects: int = 0
    slots: int = 1
    scope: str = "process"
    dead_share: float = 0.3
    seed: int = 1


@dataclass(frozen=True)
class Scenario:
    """One story. `finding` is the rule that a trace of it must yield; None: no throttle at all."""

    name: str
    description: str
    throttle: str | None
    workload: Callable[[Settings], list[str]]
    finding: str | None
    server_delay_s: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """A story ready to be traced: run `argv` with `env`, and find the truth in `truth_path`."""

    argv: list[str]
    env: dict[str, str]
    description: str
    truth_path: str | None


def _website(settings: Settings, *extra: str) -> list[str]:
    return [
        "porttrace.lab.workloads.website",
        *("--monitor", DEAD, "--directory", f"{SERVER_V4}:{DIRECTORY_PORT}"),
        *("--database", f"{SERVER_V4}:{DATABASE_PORT}", "--http", LIVE),
        *("--dead-time", str(settings.dead_time_s or 6.0), "--pause", str(settings.pause_s)),
        *("--pages", str(settings.pages), "--page-interval", str(settings.page_interval_s)),
        *extra,
    ]


def _two_threads(settings: Settings) -> list[str]:
    return ["porttrace.lab.workloads.two_threads", *_ends(settings, 6.0)]


def _storm(settings: Settings) -> list[str]:
    return [
        *("porttrace.lab.workloads.storm", *_ends(settings, 0.3), *_amount(settings, 8, 10)),
        *("--dead-share", str(settings.dead_share), "--seed", str(settings.seed)),
    ]


def _control(mode: str, threads: int, connects: int) -> Callable[[Settings], list[str]]:
    def workload(settings: Settings) -> list[str]:
        amount = _amount(settings, threads, connects)
        return ["porttrace.lab.workloads.controls", mode, *_ends(settings, 2.0), *amount]

    return workload


def _ends(settings: Settings, dead_time_s: float) -> list[str]:
    dead_time_s = settings.dead_time_s or dead_time_s
    return ["--dead", DEAD, "--live", LIVE, "--dead-time", str(dead_time_s)]


def _amount(settings: Settings, threads: int, connects: int) -> list[str]:
    return [
        *("--threads", str(settings.threads or threads)),
        *("--connects", str(settings.connects or connects)),
    ]


_ALL = (
    Scenario(
        "serialized-logins",
        "a web site whose logins hang while its agent tries a dead monitor: one slot per process",
        "gate",
        _website,
        "serialized-connects",
    ),
    Scenario(
        "two-threads",
        "the smallest case: one dead attempt, and a healthy one that waits for it",
        "gate",
        _two_threads,
        "serialized-connects",
    ),
    Scenario(
        "preloaded-logins",
        "the same web site, held in user space by a preloaded library",
        "preload",
        lambda settings: _website(settings, "--blocking"),
        "serialized-connects",
    ),
    Scenario(
        "storm",
        "many threads under a throttle of any number of slots, to infer slots and scope",
        "gate",
        _storm,
        "serialized-connects",
    ),
    Scenario(
        "free-logins",
        "control: the same web site without any throttle",
        None,
        _website,
        "dead-destination",
    ),
    Scenario(
        "sequential",
        "control: one thread connects to several destinations in turn, one of them dead",
        None,
        _control("sequential", 1, 3),
        "sequential-connects",
    ),
    Scenario(
        "lock",
        "control: several threads, and the program's own lock around connect",
        None,
        _control("lock", 4, 3),
        None,
    ),
    Scenario(
        "burst",
        "control: many threads connect at once, and nothing holds them",
        None,
        _control("burst", 50, 10),
        None,
    ),
    Scenario(
        "slow-server",
        "control: many threads connect to a server that answers late",
        None,
        _control("slow-server", 8, 3),
        None,
        server_delay_s=0.5,
    ),
    Scenario(
        "dead-parallel",
        "control: dead destinations beside healthy ones, and nothing is held",
        None,
        _control("dead-parallel", 6, 3),
        "dead-destination",
    ),
    Scenario(
        "watched-burst",
        "control: a seccomp supervisor stands in the way of every connect and holds none",
        "gate",
        _control("burst", 50, 10),
        None,
    ),
)

SCENARIOS = {scenario.name: scenario for scenario in _ALL}
_UNLIMITED = {"watched-burst"}


def find(name: str) -> Scenario:
    """Return the scenario of that name."""
    if name not in SCENARIOS:
        raise LabError(f"there is no scenario {name!r}", f"the lab has: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def throttle_of(scenario: Scenario, settings: Settings) -> Throttle | None:
    """Return the throttle that a story runs under, or None."""
    if scenario.throttle is None:
        return None
    slots = 0 if scenario.name in _UNLIMITED else settings.slots
    return Throttle(scenario.throttle, slots, settings.scope)


def command_of(
    scenario: Scenario, settings: Settings, truth_path: str | os.PathLike[str] | None = None
) -> list[str]:
    """Return the story's command line, as it is run inside the client host."""
    truth = ["--truth", os.fspath(truth_path)] if truth_path else []
    command = [sys.executable, "-m", *scenario.workload(settings), *truth]
    throttle = throttle_of(scenario, settings)
    return throttle.argv(command) if throttle else command


@contextmanager
def prepare(
    name: str,
    settings: Settings | None = None,
    truth_path: str | os.PathLike[str] | None = None,
) -> Iterator[Prepared]:
    """Set up the story `name`: inside, its hosts and servers exist and its argv can be run."""
    scenario = find(name)
    command = command_of(scenario, settings or Settings(), truth_path)
    with open_site(scenario.server_delay_s) as site:
        yield Prepared(
            site.hosts.in_client(command),
            dict(os.environ),
            scenario.description,
            os.fspath(truth_path) if truth_path else None,
        )
