"""The collision matrix as it comes out where the kernel obeys the rules: no socket is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from porttrace.analysis.sharing_matrix import Trial
from porttrace.cli.lab_binds import trial_of
from porttrace.lab.binds import Cell, Tried, cells

PORT = 2000


@cache
def obedient(protocol: str) -> tuple[Trial, ...]:
    """Return the trials of one protocol, each with what the rules predict."""
    return tuple(trial_of(tried) for tried in tried_by_rule(protocol))


def tried_by_rule(protocol: str) -> Iterator[Tried]:
    """Yield what the lab would return, cell by cell."""
    for cell in cells():
        if cell.protocol == protocol:
            tried = Tried(cell, PORT, 0, address_of(cell))
            yield replace(tried, errno=trial_of(tried).predicted)


def address_of(cell: Cell) -> str:
    """Return the first socket's address at the call: a connection has only one of its own."""
    place = cell.first.place
    wildcard = place.address in ("0.0.0.0", "::", "::ffff:0.0.0.0")
    return place.peer if wildcard and cell.state not in ("bound", "listening") else place.address
