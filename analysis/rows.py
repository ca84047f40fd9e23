"""Whole rows of structured arrays, moved as what they are: so many bytes each.

numpy copies structured rows field by field, which takes four times as long.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from porttrace.analysis.model import Columns

Rows = npt.NDArray[np.void]
_Part = TypeVar("_Part")


def take(rows: Rows | Columns, index: npt.NDArray[np.integer[Any]]) -> Rows:
    """Return the rows at the positions `index`, as a copy."""
    if isinstance(rows, Columns):
        return rows[index]
    return _bytes(rows).take(index).view(rows.dtype)


def select(rows: Rows, mask: npt.NDArray[np.bool_]) -> Rows:
    """Return the rows for which `mask` is true, as a copy."""
    return take(rows, np.flatnonzero(mask))


def joined(parts: Iterable[Rows], dtype: np.dtype[np.void]) -> Rows:
    """Return all rows of the parts, each of this dtype, one after the other; a copy."""
    empty = np.empty(0, dtype)
    return np.concatenate([_bytes(part) for part in (empty, *parts)]).view(dtype)


def in_order(parts: list[Rows], order: npt.NDArray[np.intp], dtype: np.dtype[np.void]) -> Rows:
    """Return the rows of all parts, first the one at `order[0]` of all of them, and so on.

    Takes the parts out of the list: what they were is not needed while the result grows.
    """
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    rows, at = np.empty(len(order), dtype), 0
    for part in taken(parts):
        _bytes(rows)[place[at : at + len(part)]] = _bytes(part)
        at += len(part)
    return rows


def taken(parts: list[_Part]) -> Iterator[_Part]:
    """Yield the parts and take each out of the list, so that nobody else keeps it."""
    parts.reverse()
    while parts:
        yield parts.pop()


def copied(rows: Rows) -> Rows:
    """Return a copy."""
    return _bytes(rows).copy().view(rows.dtype)


def _bytes(rows: Rows) -> Rows:
    return rows.view(np.dtype((np.void, rows.dtype.itemsize)))
