"""Durations in buckets that tell how often a SYN was sent again."""

from typing import Any

import numpy as np
import numpy.typing as npt

LADDER_S = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 127.0),
)
"""Upper ends of the buckets, seconds; from 1 s on the times at which Linux sends a SYN again."""

_LADDER_NS = np.array([round(end * 1e9) for end in LADDER_S], np.int64)


class Histogram:
    """Counts of durations: each bucket has those up to its end, and longer than the one before."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(LADDER_S) + 1, np.int64)
        self._sum_ns = 0

    def add(self, lengths_ns: npt.NDArray[np.integer[Any]]) -> None:
        """Count durations, ns."""
        which = np.searchsorted(_LADDER_NS, lengths_ns, "left")
        self._counts += np.bincount(which, minlength=len(self._counts))
        self._sum_ns += int(lengths_ns.sum(dtype=np.int64))

    @property
    def count(self) -> int:
        """How many durations."""
        return int(self._counts.sum())

    @property
    def sum_s(self) -> float:
        """All of them together, seconds."""
        return self._sum_ns / 1e9

    def cumulative(self) -> list[tuple[str, int]]:
        """Return for each end (seconds as text, the last is +Inf) how many are not longer."""
        ends = [*(f"{end:g}" for end in LADDER_S), "+Inf"]
        return list(zip(ends, np.cumsum(self._counts).tolist(), strict=True))
