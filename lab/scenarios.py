"""Sets the stories of the lab up: hosts, servers, surroundings, throttle and workload.

`prepare` sets a story up and yields the command line that a tracer traces:
`porttrace -- ARGV ...`. The command enters the client host, puts the throttle around the workload,
and runs it; it is bounded by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from porttrace.lab.errors import WrongUsageError
from porttrace.lab.failures import FAILURES
from porttrace.lab.site import open_site
from porttrace.lab.stories import STORIES
from porttrace.lab.story import Scenario, Settings
from porttrace.lab.throttle import ROUTED_KINDS


@dataclass(frozen=True)
class Prepared:
    """A story ready to be traced: run `argv` with `env`, and find the truth in `truth_path`."""

    argv: list[str]
    env: dict[str, str]
    description: str
    truth_path: str | None


SCENARIOS = {scenario.name: scenario for scenario in (*STORIES, *FAILURES)}


def find(name: str) -> Scenario:
    """Return the scenario of that name."""
    if name not in SCENARIOS:
        raise WrongUsageError(
            f"there is no scenario {name!r}", f"the lab has: {', '.join(SCENARIOS)}"
        )
    return SCENARIOS[name]


def command_of(
    scenario: Scenario, settings: Settings, truth_path: str | os.PathLike[str] | None = None
) -> list[str]:
    """Return the story's command line, as it is run inside the client host."""
    truth = ["--truth", os.fspath(truth_path)] if truth_path else []
    command = [sys.executable, "-m", *scenario.workload(settings), *truth]
    throttle = scenario.throttle_with(settings)
    return throttle.argv(command) if throttle else command


@contextmanager
def prepare(
    name: str,
    settings: Settings | None = None,
    truth_path: str | os.PathLike[str] | None = None,
) -> Iterator[Prepared]:
    """Set up the story `name`: inside, its hosts and servers exist and its argv can be run."""
    with prepare_story(find(name), settings or Settings(), truth_path) as prepared:
        yield prepared


@contextmanager
def prepare_story(
    scenario: Scenario, settings: Settings, truth_path: str | os.PathLike[str] | None = None
) -> Iterator[Prepared]:
    """Set up a story that need not be one of the lab's own."""
    command = command_of(scenario, settings, truth_path)
    routed = scenario.throttle in ROUTED_KINDS
    with open_site(scenario.server_delay_s, routed) as site, scenario.surroundings(site) as front:
        yield Prepared(
            site.hosts.in_client([*front, *command]),
            dict(os.environ),
            scenario.description,
            os.fspath(truth_path) if truth_path else None,
        )
