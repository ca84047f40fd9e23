"""Which waits one timer may have ended: equal lengths, told from lengths that chance brought near.

Waits are ns. A timer shows as waits of one length that come again, or as a round number of seconds.
"""

from dataclasses import dataclass

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints

WINDOWS_S = 21.0  # 3 + 6 + 12 s

_ROUND_S = (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 45, 60, 75, 90, 120)
_ALIKE_NS, _ALIKE = 100_000_000, 0.05
_TIGHT_NS, _TIGHT = 20_000_000, 0.01  # no farther apart than a timer and a scheduler make them
_SHARE = (
    0.2  # of all waits that are left, or equal ones are but neighbours among many of any length
)


@dataclass(frozen=True)
class Split:
    """Positions of waits: those that one timer each may have ended, and all others."""

    timers: tuple[Ints, ...]
    others: Ints


def round_s(seconds: float) -> float:
    """Return the round number of seconds that a timer of it would end after `seconds`, or 0."""
    fits = [r for r in _ROUND_S if r - 0.01 <= seconds <= 1.03 * r + 0.05]
    return float(fits[0]) if fits else 0.0


def middle(waits: Ints) -> float:
    """Return the median of some waits: np.median takes ten times as long for a few."""
    ordered = np.sort(waits)
    return (int(ordered[(len(ordered) - 1) // 2]) + int(ordered[len(ordered) // 2])) / 2


def is_windows(seconds: float) -> bool:
    """Tell whether a wait is as long as Windows takes to give up."""
    return abs(seconds - WINDOWS_S) <= 0.4


def alike(shortest: Ints, longest: Ints) -> Bools:
    """Tell which pairs of waits count as equal."""
    return np.asarray(longest - shortest <= np.maximum(_ALIKE_NS, shortest * _ALIKE))


def tight(waits: Ints) -> bool:
    """Tell whether waits are so equal that hardly anything but a timer makes them so."""
    shortest = int(waits.min())
    return int(waits.max()) - shortest <= max(_TIGHT_NS, shortest * _TIGHT)


def clusters(waits: Ints) -> list[Ints]:
    """Return the positions of `waits` in groups of equal ones, the shortest first."""
    order = np.argsort(waits, kind="stable")
    found, at = [], 0
    # Measured from the shortest of each group: from neighbour to neighbour all would be one.
    while at < len(order):
        shortest = waits[order[at]]
        size = int(np.count_nonzero(alike(shortest, waits[order[at:]])))
        found.append(order[at : at + size])
        at += size
    return found


def split(waits: Ints) -> Split:
    """Return which waits may each be one timer's.

    A wait that stands alone is a timer's only at a round number, and only where no other wait of
    the same kind ended at any odd time.
    """
    timers: list[Ints] = []
    rest = clusters(waits)
    # One timer's many waits are no reason to overlook the few of another.
    while frequent := [group for group in rest if _frequent(group, rest)]:
        timers += frequent
        rest = [group for group in rest if not _frequent(group, rest)]
    if all(len(group) == 1 and _known(waits[group]) for group in rest):
        timers, rest = timers + rest, []
    return Split(tuple(timers), np.concatenate([np.empty(0, np.int64), *rest]))


def _frequent(group: Ints, among: list[Ints]) -> bool:
    return len(group) >= 2 and len(group) >= _SHARE * sum(map(len, among))


def _known(waits: Ints) -> bool:
    seconds = middle(waits) / 1e9
    return round_s(seconds) > 0 or is_windows(seconds)
