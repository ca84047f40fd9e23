"""The collision matrix in words: tables for the terminal and for the docs, and what differs."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase

from porttrace.analysis.sharing import Claim, why
from porttrace.analysis.sharing_matrix import (
    Grid,
    Trial,
    address_grids,
    disagreements,
    option_grids,
    options,
)

BEGIN, END = "<!-- begin: porttrace lab binds -->", "<!-- end: porttrace lab binds -->"

_OPTIONS_HEAD = "Which options let the second socket in, where the addresses collide"
_ADDRESSES_HEAD = "Which addresses stand side by side, with no option set"
_LEGEND = (
    "yes        it works",
    "one user   it works if one user made both sockets, and is EADDRINUSE otherwise",
    "no         EADDRINUSE",
    ".          the second could not even bind, so it never came to listen",
    "connected  bound, then connected; client: connected without bind",
    "accepted   a server's connection whose listening socket is closed",
)


def text(trials: Sequence[Trial]) -> str:
    """Return all tables for the terminal, in at most 80 columns."""
    parts = [_OPTIONS_HEAD, "\n".join(f"  {line}" for line in _LEGEND)]
    parts += [f"{grid.title}\n{_plain(grid)}" for grid in option_grids(trials)]
    parts += [_ADDRESSES_HEAD]
    parts += [f"{grid.title}\n{_plain(grid)}" for grid in _lettered(address_grids(trials))]
    return "\n\n".join(parts)


def markdown(trials: Sequence[Trial]) -> str:
    """Return all tables as Markdown, with the number of cells that they stand for."""
    legend = "\n".join(f"    {line}" for line in _LEGEND)
    parts = [_counted(trials), f"### {_OPTIONS_HEAD}", legend]
    parts += [f"{grid.title}:\n\n{_piped(grid)}" for grid in option_grids(trials)]
    parts += [f"### {_ADDRESSES_HEAD}"]
    parts += [f"{grid.title}:\n\n{_piped(grid)}" for grid in _lettered(address_grids(trials))]
    return "\n\n".join(parts)


def between_markers(page: str, tables: str) -> str:
    """Return `page` with what stands between the two marker lines replaced by `tables`.

    Raises ValueError when the page has not got each marker once, in this order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError(f"the lines {BEGIN} and {END} are needed, once each")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def verdict(trials: Sequence[Trial], most: int = 5) -> str:
    """Return how many cells agree with the rules, and where and how others do not.

    Of those that differ, `most` are told in full; all of them are counted by their addresses.
    """
    wrong = disagreements(trials)
    lines = [difference(trial) for trial in wrong[:most]]
    if len(wrong) > most:
        lines.append(f"... and {len(wrong) - most:,} more")
    places = Counter((t.first.protocol, t.first_place, t.second_place) for t in wrong)
    lines += [
        f"{count:,} differ: {protocol}, first {first}, second {second}"
        for (protocol, first, second), count in places.most_common()
    ]
    return "\n".join([*lines, f"{_counted(trials)} {len(wrong):,} differ from the rules."])


def difference(trial: Trial) -> str:
    """Name a trial, what came of it, and what should have by rule."""
    first, second = (_socket(claim) for claim in (trial.first, trial.second))
    return (
        f"{trial.first.protocol} {trial.call}: first {first}, {trial.state}; second {second}: "
        f"{_seen(trial)}, by rule {_outcome(trial.predicted)}: "
        f"{why(trial.first, trial.second, trial.call)}"
    )


def _counted(trials: Sequence[Trial]) -> str:
    ended = sum(trial.errno is None for trial in trials)
    return f"{len(trials):,} combinations were made, {ended:,} of them ended before listen."


def _socket(claim: Claim) -> str:
    only = " V6ONLY" if claim.v6only else ""
    return f"{claim.address}{only}, options {options(claim)}, user {claim.uid}"


def _seen(trial: Trial) -> str:
    if trial.first_errno:
        return f"the first cannot go on, {_outcome(trial.first_errno)}"
    return _outcome(trial.errno)


def _outcome(number: int | None) -> str:
    if number is None:
        return "the second cannot bind"
    return errno.errorcode.get(number, str(number)) if number else "works"


# Long addresses make long columns: each gets a letter, which stands before its row, too.
def _lettered(grids: Sequence[Grid]) -> list[Grid]:
    letters = dict(zip(grids[0].columns, ascii_uppercase, strict=False)) if grids else {}
    return [
        replace(
            grid,
            columns=tuple(letters[name] for name in grid.columns),
            rows=tuple((f"{letters.get(name, ' ')} {name}", cells) for name, cells in grid.rows),
        )
        for grid in grids
    ]


def _plain(grid: Grid) -> str:
    table = [("first \\ second", grid.columns), *grid.rows]
    widths = [max(len(name) for name, _ in table)]
    widths += [max(len(cells[n]) for _, cells in table) for n in range(len(grid.columns))]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip((name, *cells), widths, strict=True))
        for name, cells in table
    ]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _piped(grid: Grid) -> str:
    table = [("first \\ second", grid.columns), ("---", ("---",) * len(grid.columns)), *grid.rows]
    return "\n".join(f"| {' | '.join((name, *cells))} |" for name, cells in table)
