"""Sets of instants on one time line: unions of intervals, their measure, and what holds where.

All times are integer ns; a set is a flat, sorted array of knots a0, b0, a1, b1, ... of its
disjoint intervals [a, b).
"""

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints


def depth(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return the times at which the number of open intervals changes, and the number from there.

    As `concurrency.steps` for one scope, where two sorted runs need merging only.
    """
    keep = ends > starts
    opened, closed = np.sort(starts[keep], kind="stable"), np.sort(ends[keep], kind="stable")
    times = np.concatenate([opened, closed])
    order = np.argsort(times, kind="stable")
    times, level = times[order], np.cumsum(np.where(order < len(opened), 1, -1))
    last = np.ones(len(times), np.bool_)
    last[:-1] = times[1:] != times[:-1]
    times, level = times[last], level[last]
    changes = np.ones(len(times), np.bool_)
    changes[1:] = level[1:] != level[:-1]
    return times[changes], level[changes].astype(np.int64)


def union(starts: Ints, ends: Ints) -> Ints:
    """Return the knots of the union of intervals [start, end)."""
    times, counts = depth(starts, ends)
    inside = counts > 0
    changes = np.ones(len(inside), np.bool_)
    changes[1:] = inside[1:] != inside[:-1]
    return times[changes]


def lasting(starts: Ints, length: int) -> Ints:
    """Return the knots of the union of intervals [start, start + length); `starts` are sorted."""
    if not len(starts):
        return starts
    gaps = np.flatnonzero(starts[1:] - starts[:-1] > length)
    knots = np.empty(2 * len(gaps) + 2, np.int64)
    knots[0], knots[2::2] = starts[0], starts[gaps + 1]
    knots[1:-1:2], knots[-1] = starts[gaps] + length, starts[-1] + length
    return knots


def within(times: Ints, knots: Ints) -> Ints:
    """Return those of the sorted `times` that lie in the set."""
    first = np.searchsorted(times, knots[0::2], "left")
    number = np.searchsorted(times, knots[1::2], "left") - first
    before = np.cumsum(number) - number
    inside: Ints = times[np.repeat(first - before, number) + np.arange(number.sum())]
    return inside


def contains(knots: Ints, times: Ints) -> Bools:
    """Tell for each time whether it lies in the set."""
    return np.asarray(np.searchsorted(knots, times, "right") % 2 == 1)


def measure(knots: Ints, start: Ints, stop: Ints) -> Ints:
    """Return how much of each [start, stop) lies in the set, ns."""
    return _measure_until(knots, stop) - _measure_until(knots, start)


def _measure_until(knots: Ints, times: Ints) -> Ints:
    lengths = np.diff(knots)
    lengths[1::2] = 0
    covered = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    # Index i: i knots lie at or before the time; an odd i means inside interval i // 2.
    at = np.searchsorted(knots, times, "right")
    if not len(knots):
        return np.zeros(len(times), np.int64)
    before = np.maximum(at - 1, 0)
    return covered[before] + np.where(at % 2 == 1, times - knots[before], 0)
