"""Events by column, of several arrays as if they were one: rows are made of a few only.

A batch of a file brings its columns with it; of rows a column is copied when it is first asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from porttrace.analysis.rows import joined, take
from porttrace.tracer.event import EVENT, Events, no_events

Index = npt.NDArray[np.intp]

Part = tuple[Events, Mapping[str, npt.NDArray[Any]]]
"""Some events, and those of their fields that are at hand in one piece."""


class EventColumns:
    """The events of all parts, one after the other; with `which`, those at these positions."""

    def __init__(self, parts: Sequence[Part], which: Index | None = None) -> None:
        self._parts = [part for part in parts if len(part[0])]
        self._which = which
        self._known: dict[str, npt.NDArray[Any]] = {}
        self._some: dict[str, bool] = {}

    def __len__(self) -> int:
        return (
            sum(len(rows) for rows, _ in self._parts) if self._which is None else len(self._which)
        )

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._known:
            found = [columns.get(name, rows[name]) for rows, columns in self._parts]
            whole = found[0] if len(found) == 1 else np.concatenate([no_events()[name], *found])
            chosen = whole if self._which is None else whole[self._which]
            self._known[name] = np.ascontiguousarray(chosen)
        return self._known[name]

    def some(self, name: str) -> bool:
        """Tell whether a field (of numbers) is not zero in any of the events."""
        if name not in self._some:
            self._some[name] = bool(self[name].any())
        return self._some[name]

    def rows(self, which: Index) -> Events:
        """Return the events at these positions (ascending) as rows; a copy."""
        if self._which is not None:
            which = self._which[which]
        found, first = [], 0
        for rows, _ in self._parts:
            last = first + len(rows)
            low, high = np.searchsorted(which, [first, last])
            found.append(take(rows, which[low:high] - first))
            first = last
        return joined(found, EVENT)
