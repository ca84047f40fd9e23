"""Sets of instants on one time line: unions of intervals, their measure, and what holds where.

All times are integer ns; a set is a flat, sorted array of knots a0, b0, a1, b1, ... of its
disjoint intervals [a, b).
"""

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints, steps


def depth(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return the times at which the number of open intervals changes, and the number from there."""
    table = steps(np.zeros(len(starts), np.int64), starts, ends)
    return table["time_ns"].astype(np.int64), table["count"].astype(np.int64)


def union(starts: Ints, ends: Ints) -> Ints:
    """Return the knots of the union of intervals [start, end)."""
    times, counts = depth(starts, ends)
    inside = counts > 0
    changes = np.ones(len(inside), np.bool_)
    changes[1:] = inside[1:] != inside[:-1]
    return times[changes]


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
