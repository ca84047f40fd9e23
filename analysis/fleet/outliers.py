"""Hosts that are unlike the rest, by one number at a time.

The modified z-score of Iglewicz and Hoaglin (1993): 0.6745 (x - median) / MAD, here of logarithms,
since times and rates spread by factors; where most hosts are alike, the mean deviation stands in
for the MAD, as they advise. Hosts beyond 3.5 are outliers when they are also twice the median or
more. Only what is too high is told. Fewer than eight hosts have none: a median of few says little.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from porttrace.analysis.fleet.merge import Fleet, Member

FEWEST = 8
"""So many hosts are needed before one can be unlike them."""
MOST = 20
"""So many outliers of one number are told."""

_BEYOND = 3.5
_TIMES = 2.0


@dataclass(frozen=True)
class Outlier:
    """One host's number beside the fleet's median."""

    host: str
    number: str  # which, a key of `NUMBERS`
    value: float
    median: float
    score: float  # modified z-score of the logarithm

    @property
    def times(self) -> float:
        """How many times the median it is; inf where that is 0."""
        return self.value / self.median if self.median else math.inf


def _held_each_s(member: Member) -> float:
    return member.held_ns / member.attempts / 1e9 if member.attempts else math.nan


def _failed_share(member: Member) -> float:
    return member.failed / member.attempts if member.attempts else math.nan


def _per_second(member: Member) -> float:
    return member.attempts / member.duration_s if member.duration_s > 0 else math.nan


NUMBERS: Mapping[str, tuple[Callable[[Member], float], float]] = {
    "held_p99_s": (lambda member: member.held.percentile(0.99) / 1e9, 0.001),
    "held_mean_s": (_held_each_s, 0.001),
    "answer_p50_s": (lambda member: member.answer.percentile(0.5) / 1e9, 1e-6),
    "answer_p99_s": (lambda member: member.answer.percentile(0.99) / 1e9, 1e-6),
    "failed_share": (_failed_share, 0.001),
    "attempts_per_s": (_per_second, 0.01),
}
"""What hosts are compared by, and the resolution below which two values are the same."""


def outliers(fleet: Fleet) -> list[Outlier]:
    """Return the hosts that are far above the fleet's median, the farthest of each number first."""
    found: list[Outlier] = []
    for number, (value_of, resolution) in NUMBERS.items():
        values = [(member.name, value_of(member)) for member in fleet.hosts]
        known = [(name, value) for name, value in values if not math.isnan(value)]
        found += _beyond(number, known, resolution)[:MOST]
    return found


def _beyond(number: str, values: Sequence[tuple[str, float]], resolution: float) -> list[Outlier]:
    if len(values) < FEWEST:
        return []
    logs = [math.log(max(value, resolution)) for _, value in values]
    middle, spread = statistics.median(logs), _spread(logs)
    median = statistics.median(value for _, value in values)
    found = [
        Outlier(name, number, value, median, (each - middle) / spread)
        for (name, value), each in zip(values, logs, strict=True)
        if spread and each - middle > _BEYOND * spread and each - middle >= math.log(_TIMES)
    ]
    return sorted(found, key=lambda each: (-each.value, each.host))


# What a deviation is divided by: 0 where all values are the same.
def _spread(logs: Sequence[float]) -> float:
    middle = statistics.median(logs)
    away = [abs(each - middle) for each in logs]
    return statistics.median(away) / 0.6745 or statistics.fmean(away) * 1.253314
