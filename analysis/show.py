"""Tables for the eye or for a program: rows chosen, sorted, cut, and written a line each.

Lines for people fit 80 columns where names and addresses let them, and 105 always; what a process
chose is escaped in them. JSON lines have every column and lose nothing.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from porttrace.analysis import names
from porttrace.analysis.model import Process
from porttrace.analysis.render import who
from porttrace.analysis.render.escape import columns, padded, printable
from porttrace.analysis.render.text import short
from porttrace.analysis.render.wrap import wrapped
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.words import endpoint

_CHUNK = 4096  # rows that are turned into lines at once
_WIDTH, _MOST = 80, 100
_SHORTEST_NAME = 6


class UnknownColumnError(PorttraceError):
    """The table has no column of that name; the hint names those that it has."""


@dataclass(frozen=True)
class Filter:
    """Which rows are wanted: those that match every field that is not empty.

    `destinations` are addresses, or addresses with a port as a table shows them; `containers` are
    ids or names; `held_ns` is the least time held on this host (`held_ns` of `tables.attempts`).
    """

    pids: Collection[int] = ()
    containers: Collection[str] = ()
    comms: Collection[str] = ()
    ports: Collection[int] = ()
    destinations: Collection[str] = ()
    outcomes: Collection[str] = ()
    held_ns: int = 0

    def set_fields(self) -> set[str]:
        """Return the names of the fields that are not empty."""
        return {field.name for field in fields(self) if getattr(self, field.name)}


def chosen(frame: pd.DataFrame, wanted: Filter) -> pd.DataFrame:
    """Return the rows of `frame` (attempts, events or binds) that `wanted` matches.

    Of binds `ports` are local ones, asked for or got, and `outcomes` names of errors, or `ok`.
    """
    keep = _of_binds(frame, wanted) if "port_asked" in frame else _of_attempts(frame, wanted)
    for column, values in (("pid", wanted.pids), ("comm", wanted.comms)):
        if values:
            keep &= frame[column].isin(list(values)).to_numpy()
    if wanted.containers:
        called = [*wanted.containers, *(each[:12] for each in wanted.containers)]
        keep &= (frame["container"].isin(called) | frame["container_name"].isin(called)).to_numpy()
    return frame if keep.all() else frame[keep]


def _of_attempts(frame: pd.DataFrame, wanted: Filter) -> npt.NDArray[np.bool_]:
    keep = np.ones(len(frame), np.bool_)
    for column, values in (("dport", wanted.ports), ("outcome", wanted.outcomes)):
        if values:
            keep &= frame[column].isin(list(values)).to_numpy()
    if wanted.destinations:
        named = list(wanted.destinations)
        keep &= (frame["daddr"].isin(named) | frame["destination"].isin(named)).to_numpy()
    if wanted.held_ns:
        keep &= (frame["held_ns"] >= wanted.held_ns).to_numpy()
    return keep


def _of_binds(frame: pd.DataFrame, wanted: Filter) -> npt.NDArray[np.bool_]:
    keep = np.ones(len(frame), np.bool_)
    if wanted.ports:
        either = [frame[name].isin(list(wanted.ports)) for name in ("port_asked", "port_got")]
        keep &= (either[0] | either[1]).to_numpy()
    if wanted.outcomes:
        keep &= frame["error"].replace("", "ok").isin(list(wanted.outcomes)).to_numpy()
    return keep


def ordered(
    frame: pd.DataFrame, column: str = "", reverse: bool = False, limit: int | None = None
) -> pd.DataFrame:
    """Return `frame` sorted by `column`, cut to `limit` rows.

    Its `_ns` may be left out, and the headings of the lines for people are understood.

    Rows without a value come last either way; without `column` the order stays.
    Raises UnknownColumnError when there is no such column.
    """
    if column:
        key = frame[_column(frame, column)]
        if isinstance(key.dtype, pd.CategoricalDtype):
            key = key.astype(str)  # by the alphabet, not by first use
        order = key.reset_index(drop=True).sort_values(ascending=not reverse, kind="stable").index
        frame = frame.iloc[order.to_numpy()]
    elif reverse:
        frame = frame.iloc[::-1]
    return frame if limit is None else frame.head(limit)


# What the lines for people call otherwise than the columns.
_HEADINGS = {
    "start": "first_ns", "took": "wait_beyond_ns", "where": "held_place", "thread": "comm",
    "time": "time_ns", "result": "error", "flight": "in_flight",
}  # fmt: skip


def _column(frame: pd.DataFrame, name: str) -> str:
    name = name if name in frame else name.lower()
    for known in (name, f"{name}_ns", _HEADINGS.get(name, "")):
        if known in frame:
            return known
    raise UnknownColumnError(
        f"there is no column {name!r}", f"there are {', '.join(frame.columns)}"
    )


def json_lines(kind: str, frame: pd.DataFrame) -> Iterator[str]:
    """Yield an object a row, with `kind` as its type; what is not there is null."""
    names = ["type", *frame.columns]
    for part in _parts(frame):
        for cells in zip(*(_plain(part[name]) for name in part), strict=True):
            yield json.dumps(dict(zip(names, (kind, *cells), strict=True)))


def _plain(column: "pd.Series[Any]") -> list[Any]:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return [time.isoformat() for time in column.tolist()]
    return column.astype(object).where(column.notna(), None).tolist()


def _parts(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for at in range(0, len(frame), _CHUNK):
        yield frame.iloc[at : at + _CHUNK]


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    # Any: a tuple with the columns as fields, which a type checker cannot know.
    for part in _parts(frame):
        yield from part.itertuples(index=False)


def attempt_lines(frame: pd.DataFrame, start_ns: int) -> Iterator[str]:
    """Yield a heading and a line for each row of `tables.attempts`; times since `start_ns`."""
    distinct = list(_distinct(frame))
    inside = {row.pid: _inside(row) for row in distinct}
    in_containers = [row for row in distinct if inside[row.pid]]
    name, where = _widths(frame, 52, [who.width(inside[r.pid], r.comm) for r in in_containers])
    yield (
        f"{'START':>8} {'PID':>7} {'THREAD':<{name}} {'DESTINATION':<{where}} {'OUTCOME':<11} "
        f"{'HELD':>6} {'WHERE':<7} {'TOOK':>6}"
    )
    for row in _rows(frame):
        more = "+" if row.outcome == "pending" else ""
        held, took = short(row.held_ns), short(row.wait_beyond_ns)
        held, took = (held, took + more) if took else (held + more, took)
        yield (
            f"{_seconds(row.first_ns - start_ns)} {row.pid:>7} "
            f"{who.called(inside[row.pid], row.comm, name)} "
            f"{row.destination:<{where}} {row.outcome:<11} {held:>6} {row.held_place:<7} {took:>6}"
        ).rstrip()


def event_lines(frame: pd.DataFrame, start_ns: int) -> Iterator[str]:
    """Yield a heading and a line for each row of `tables.events`; times since `start_ns`.

    Of bind(2) and listen(2) the address is their own.
    """
    there = frame["destination"].astype(object)
    frame = frame.assign(destination=there.where(there != "", frame["local"].astype(object)))
    name, where = _widths(frame, 43)
    yield (
        f"{'TIME':>8} {'EVENT':<10} {'PID':>7} {'THREAD':<{name}} {'ADDRESS':<{where}} "
        f"{'RESULT':>6} {'FLIGHT':>6}"
    )
    for row in _rows(frame):
        yield (
            f"{_seconds(row.time_ns - start_ns)} {row.event.lower():<10} {row.pid:>7} "
            f"{padded(row.comm, name)} {row.destination:<{where}} {row.error:>6} {row.in_flight:>6}"
        )


def accept_lines(frame: pd.DataFrame, start_ns: int) -> Iterator[str]:
    """Yield a heading and a line for each row of `tables.accepts`; times since `start_ns`."""
    peer = max([11, *(len(word) for word in _words(frame["peer"]))])
    where = max([11, *(len(word) for word in _words(frame["listener"]))])
    name = max([_SHORTEST_NAME, *(columns(printable(word)) for word in _words(frame["comm"]))])
    name = max(_SHORTEST_NAME, min(name, 15, _MOST - 34 - peer - where))
    yield (
        f"{'TIME':>8} {'PID':>7} {'THREAD':<{name}} {'LISTENER':<{where}} {'PEER':<{peer}} "
        f"{'QUEUED':>6} {'WAITED':>6}"
    )
    for row in _rows(frame):
        queued = "" if pd.isna(row.queued_ns) else short(int(row.queued_ns))
        yield (
            f"{_seconds(row.time_ns - start_ns)} {row.pid:>7} {padded(row.comm, name)} "
            f"{row.listener:<{where}} {row.peer:<{peer}} {queued:>6} {short(row.waited_ns):>6}"
        )


def bind_lines(frame: pd.DataFrame, start_ns: int) -> Iterator[str]:
    """Yield a heading and a line for each row of `tables.binds`; times since `start_ns`.

    Of a call that failed a second line says who held the port. A port that the kernel chose stands
    behind an arrow.
    """
    where = max([7, *(len(_place(row)) for row in _rows(frame))])
    name = max([_SHORTEST_NAME, *(columns(printable(word)) for word in _words(frame["comm"]))])
    name = max(_SHORTEST_NAME, min(name, 15, _MOST - 53 - where))
    heading = (
        f"{'TIME':>8} {'PID':>7} {'THREAD':<{name}} {'CALL':<12} {'ADDRESS':<{where}} "
        f"{'RESULT':<13} OPTIONS"
    )
    yield heading if len(heading) <= _MOST else heading.removesuffix(" OPTIONS")
    for row in _rows(frame):
        line = (
            f"{_seconds(row.time_ns - start_ns)} {row.pid:>7} {padded(row.comm, name)} "
            f"{f'{row.call} {row.protocol}':<12} {_place(row):<{where}} {row.error or 'ok':<13}"
        )
        options = "?" if pd.isna(row.options) else row.options
        fits = len(line) + len(options) < _MOST
        yield f"{line} {options}".rstrip() if fits else line.rstrip()
        if not fits:
            yield f"{'':17}{options}"
        if row.holders:
            yield from wrapped(printable(row.holders), " " * 17)


def _place(row: Any) -> str:
    got = "" if pd.isna(row.port_got) or row.port_got == row.port_asked else f"->{row.port_got}"
    return f"{row.local}{got}" if pd.isna(row.dport) else f"to {endpoint(row.daddr, row.dport)}"


def concurrency_lines(frame: pd.DataFrame, start_ns: int) -> Iterator[str]:
    """Yield a heading and a line for each row of a concurrency table, times since `start_ns`."""
    width = max([columns(printable(word)) for word in frame["name"].unique()], default=0)
    width = max(20, min(width, _WIDTH - 24))
    yield f"{'TIME':>8} {'SCOPE':<{width}} {'FLIGHT':>6} {'DEMAND':>6}"
    for row in _rows(frame):
        yield (
            f"{_seconds(row.time_ns - start_ns)} {padded(row.name, width)} "
            f"{row.in_flight:>6} {row.demand:>6}"
        )


def _seconds(ns: int) -> str:
    # Eight columns: of long traces the milliseconds go first.
    return f"{ns / 1e9:.3f}"[:8].rstrip(".").rjust(8)


def _distinct(frame: pd.DataFrame) -> Iterator[Any]:
    identity = ["pid", "container", "container_name", "ns_pid", "comm"]
    yield from frame[identity].drop_duplicates().itertuples(index=False)


def _inside(row: Any) -> str:
    number = 0 if pd.isna(row.ns_pid) else int(row.ns_pid)
    known = Process(row.pid, container=row.container, container_name=row.container_name)
    return names.inside(replace(known, ns_pid=number))


def _widths(frame: pd.DataFrame, others: int, inside: Sequence[int] = ()) -> tuple[int, int]:
    # Of the thread's name and the destination, beside `others` columns: as wide as the rows need,
    # and when that is too much the name gives way, which the destination cannot. `inside` are
    # the columns that threads need with their containers.
    where = max([11, *(len(word) for word in _words(frame["destination"]))])
    name = max([_SHORTEST_NAME, *(columns(printable(word)) for word in _words(frame["comm"]))])
    wanted = max([min(name, 15), *inside])
    return max(_SHORTEST_NAME, min(wanted, _MOST - others - where)), where


def _words(column: "pd.Series[Any]") -> Sequence[str]:
    return [str(word) for word in column.unique()]
