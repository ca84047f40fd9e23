"""What a story of the lab is, and what a caller may change about it: values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from porttrace.lab import surroundings
from porttrace.lab.expected import THROTTLE_RULES, Expected, expected_of
from porttrace.lab.surroundings import Surroundings
from porttrace.lab.throttle import Throttle, default_scope


@dataclass(frozen=True)
class Settings:
    """What a caller may change about a story; zero (or "") means the story's own.

    From `pause_between_s` on for the workload `storm` (the first also for the programs of habits):
    the mean pause between a thread's attempts, the time over which the threads start, the
    processes, users and cgroups over which they are spread, the dead attempts that a thread starts
    at once without waiting, and whether it waits inside connect(2).
    """

    dead_time_s: float = 0.0
    pages: int = 10
    page_interval_s: float = 1.0
    pause_s: float = 1.0
    threads: int = 0
    connects: int = 0
    slots: int = 1
    scope: str = ""
    dead_share: float = 0.3
    seed: int = 1
    pause_between_s: float = 0.0
    spread_s: float = 0.0
    processes: int = 1
    dead_processes: int = 0
    users: int = 0
    cgroups: int = 0
    rate_per_s: float = 0.0
    overlapping: int = 0
    blocking: bool = False


@dataclass(frozen=True)
class Scenario:
    """One story, and what a trace of it must yield.

    `finding` is the rule; None: no throttle must be found. `expected` tells the fields besides.
    """

    name: str
    description: str
    throttle: str | None
    workload: Callable[[Settings], list[str]]
    finding: str | None
    server_delay_s: float = 0.0
    surroundings: Surroundings = surroundings.nothing
    rate_per_s: float = 2.0
    watch_only: bool = False

    @property
    def throttled(self) -> bool:
        """Tell whether a trace of the story must find a throttle."""
        return self.finding in THROTTLE_RULES

    def throttle_with(self, settings: Settings) -> Throttle | None:
        """Return the throttle that the story runs under, or None."""
        if self.throttle is None:
            return None
        slots = 0 if self.watch_only else settings.slots
        scope = settings.scope or default_scope(self.throttle)
        return Throttle(self.throttle, slots, scope, settings.rate_per_s or self.rate_per_s)

    def expected(self, settings: Settings) -> Expected | None:
        """Return rule, place, mechanism, scope and slots to be found; None for a control."""
        throttle = self.throttle_with(settings)
        return expected_of(throttle) if throttle else None
