"""Counts by name, for the names that count most: bounded, and never going down.

A process may call itself anything, as often as it likes. So many names have a series of their own,
all others are one. Who has one keeps it until another name is clearly busier; then its series
stands still for a while, so that whoever scrapes sees its last value, and ends. A name that comes
back in that time goes on from there; later it begins at 0, as after a restart.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

OTHER = "other"
"""What all names without a series are counted under; so is a process that calls itself so."""

LINGERS = 10
"""So many turns a series stands still before it ends."""

_CLEARLY = 2.0  # times busier than the least busy one that has a series
_CANDIDATES = 4  # times as many names are watched for becoming busy


class TopNames:
    """Counts of a fixed `width` for at most `most` names, and for all others together."""

    def __init__(self, most: int, width: int) -> None:
        self._most, self._width = most, width
        self._named: dict[str, Counts] = {}
        self._left: dict[str, tuple[Counts, int]] = {}  # with its turn; the oldest first
        self._other = np.zeros(width, np.int64)
        self._busy: dict[str, float] = {}  # of those named: counts, each turn half as much worth
        self._candidates: dict[str, float] = {}
        self._turns = 0

    def add(self, name: str, counts: Counts, weight: float = 0.0) -> None:
        """Add counts (shape (width,), never negative) to a name.

        `weight` is how busy that makes it.
        """
        if name == OTHER:
            self._other += counts
        elif name in self._named or len(self._named) < self._most:
            self._name(name)
            self._named[name] += counts
            self._busy[name] += weight
        else:
            self._other += counts
            self._watch(name, weight)

    def _name(self, name: str) -> None:
        if name not in self._named:
            zero = np.zeros(self._width, np.int64)
            self._named[name] = self._left.pop(name, (zero, 0))[0]
            self._busy[name] = self._candidates.pop(name, 0.0)

    # Space saving: a new name takes the place, and the worth, of the least busy one.
    def _watch(self, name: str, weight: float) -> None:
        if weight <= 0:
            return
        worth = self._candidates.get(name, 0.0)
        if name not in self._candidates and len(self._candidates) >= self._most * _CANDIDATES:
            least = min(self._candidates, key=self._candidates.__getitem__)
            worth = self._candidates.pop(least)
        self._candidates[name] = worth + weight

    def turn(self) -> None:
        """Let busier names have a series; call it now and then, such as once a minute."""
        self._turns += 1
        for _ in range(self._most):
            if not self._swap():
                break
        for known in (self._busy, self._candidates):
            for name in known:
                known[name] /= 2
        self._candidates = {n: worth for n, worth in self._candidates.items() if worth >= 0.5}
        ended = [n for n, (_, turn) in self._left.items() if self._turns - turn >= LINGERS]
        for name in ended:
            del self._left[name]

    def _swap(self) -> bool:
        if not self._candidates or not self._busy:
            return False
        best = max(self._candidates, key=self._candidates.__getitem__)
        least = min(self._busy, key=self._busy.__getitem__)
        if self._candidates[best] <= _CLEARLY * self._busy[least]:
            return False
        del self._busy[least]
        self._left[least] = (self._named.pop(least), self._turns)
        self._name(best)
        while len(self._left) > self._most:
            del self._left[next(iter(self._left))]
        return True

    def series(self) -> Iterator[tuple[str, Counts]]:
        """Yield each name with its counts, `OTHER` last: at most 2 * `most` + 1."""
        yield from self._named.items()
        yield from ((name, counts) for name, (counts, _) in self._left.items())
        yield OTHER, self._other
