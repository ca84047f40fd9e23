"""Percentiles of more values than one machine wants to sort: counts in logarithmic buckets.

This is DDSketch (Masson, Rim and Lee, VLDB 2019) over a whole array at once: bucket i counts the
values in (g^(i-1), g^i], g = (1 + a) / (1 - a), and says 2 g^i / (g + 1) for each of them, which is
off by at most a share a of the value. The libraries there are take one value a call, or (t-digest)
bound no error. Two sketches are merged by adding counts: exactly, in any order. Every length of
time up to centuries has fewer than 2,200 buckets.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from porttrace.analysis.concurrency import Ints

ERROR = 0.01
"""A percentile is off by at most this share of the value that has the rank."""

_GROWTH = math.log((1 + ERROR) / (1 - ERROR))


def _no_counts() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Sketch:
    """Counts of lengths of time in ns; `counts[i]` is that of bucket `first + i`."""

    counts: Ints = field(default_factory=_no_counts)
    first: int = 0
    zeros: int = 0  # values of 0 and below
    smallest: int = 0  # of all values, exact; 0 where there is none
    largest: int = 0

    @property
    def count(self) -> int:
        """How many values there are."""
        return self.zeros + int(self.counts.sum())

    def percentile(self, share: float) -> float:
        """Return the value (ns) at rank floor(share * (count - 1)), within `ERROR` of it.

        `share` is from 0 to 1. NaN where there is no value.
        """
        if not self.count:
            return math.nan
        rank = math.floor(share * (self.count - 1))
        if rank < self.zeros:
            return float(min(0, self.largest))
        bucket = int(np.searchsorted(self.zeros + self.counts.cumsum(), rank, side="right"))
        middle = 2 * math.exp((self.first + bucket) * _GROWTH) / (math.exp(_GROWTH) + 1)
        return min(max(middle, float(self.smallest)), float(self.largest))


def sketch_of(values_ns: Ints) -> Sketch:
    """Return the sketch of an array of lengths of time, ns."""
    if not len(values_ns):
        return Sketch()
    above = values_ns[values_ns > 0]
    zeros, least, most = len(values_ns) - len(above), int(values_ns.min()), int(values_ns.max())
    if not len(above):
        return Sketch(zeros=zeros, smallest=least, largest=most)
    buckets = np.ceil(np.log(above) / _GROWTH).astype(np.int64)
    first = int(buckets.min())
    return Sketch(np.bincount(buckets - first).astype(np.int64), first, zeros, least, most)


def merged(one: Sketch, other: Sketch) -> Sketch:
    """Return the sketch of the values of both."""
    if not one.count or not other.count:
        return one if one.count else other
    counts, first = _added(one, other)
    return Sketch(
        counts,
        first,
        one.zeros + other.zeros,
        min(one.smallest, other.smallest),
        max(one.largest, other.largest),
    )


def _added(one: Sketch, other: Sketch) -> tuple[Ints, int]:
    parts = [each for each in (one, other) if len(each.counts)]
    if not parts:
        return _no_counts(), 0
    first = min(each.first for each in parts)
    counts = np.zeros(max(each.first + len(each.counts) for each in parts) - first, np.int64)
    for each in parts:
        counts[each.first - first :][: len(each.counts)] += each.counts
    return counts, first
