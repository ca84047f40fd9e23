"""From what `attempts.step` collected to a `Trace` that rules can read.

Live, at any moment, and at the end of a recording the same function is used; what
is not over yet stands in it as `pending`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from porttrace.analysis.attempts import Open, complete, flush, mark_losses
from porttrace.analysis.binds import with_ports
from porttrace.analysis.concurrency import open_at_start
from porttrace.analysis.model import (
    ATTEMPT,
    Attempts,
    Columns,
    Loss,
    Origin,
    Outcome,
    Process,
    Table,
    Trace,
    start_ns,
)
from porttrace.analysis.pairs import in_sequence
from porttrace.analysis.rows import in_order, taken
from porttrace.tracer.event import Events, EventType, Flag
from porttrace.tracer.facts import Held

_AF_INET, _AF_INET6 = 2, 10
_MAPPED = bytes(10) + b"\xff\xff"


def losses_of(events: Events) -> tuple[Loss, ...]:
    """Return the loss records among the events."""
    lost = events[np.flatnonzero(events["type"] == EventType.LOSS)]
    return tuple(
        Loss(int(e["start_ns"]), int(e["time_ns"]), int(e["cpu"]), int(e["in_flight"]))
        for e in lost
    )


def exits_of(events: Events) -> dict[int, int]:
    """Return when each process that ended did so: pid to the time (ns) of its last EXIT.

    Where the kernel does not mark the last thread (sched_process_exit before it had group_dead),
    the main thread's exit stands for that of the process.
    """
    exits = events[np.flatnonzero(events["type"] == EventType.EXIT)]
    last = (exits["flags"] & Flag.LAST_THREAD) != 0
    ended = exits[last | (exits["pid"] == exits["tid"])]
    ended = ended[np.argsort(ended["time_ns"], kind="stable")]
    return dict(zip(ended["pid"].tolist(), ended["time_ns"].tolist(), strict=True))


def watches_of(events: Events) -> dict[int, int]:
    """Return since when (ns) the wire of each network namespace (inode) is watched."""
    began = events[np.flatnonzero(events["type"] == EventType.WATCH)]
    return dict(zip(began["cgroup"].tolist(), began["time_ns"].tolist(), strict=True))


def held_rows(held: Iterable[Held]) -> Attempts:
    """Return one pending row for each thread that stands before SYN_SENT.

    They have no event yet: the kernel's own table of threads tells of them.
    """
    entries = list(held)
    rows = np.zeros(len(entries), ATTEMPT)
    for row, each in zip(rows, entries, strict=True):
        row["pid"], row["tid"] = each.pid, each.tid
        row["comm"] = each.comm.encode(errors="surrogateescape")
        row[f"{'gate' if each.place == 'gate' else 'call'}_ns"] = each.since_ns
        row["daddr"], row["dport"] = each.daddr, each.dport
        row["family"] = _AF_INET if each.daddr[:12] == _MAPPED else _AF_INET6
        row["fd"] = row["gate_stack"] = row["connect_stack"] = row["blocking"] = -1
        row[f"{each.place}_stack"] = each.stack
        row["outcome"], row["complete"] = Outcome.pending, True
    return rows


def assemble(
    about: Trace, finished: Iterable[Attempts], carried: Open, held: Iterable[Held] = ()
) -> Trace:
    """Return `about` with its attempts: finished, open at `about.end_ns`, and held ones.

    `about` carries everything but the attempts. Rows are sorted by first mark; their
    concurrency columns are filled and those that losses touch are marked.
    """
    rows = mark_losses(_sorted([*finished, flush(carried, about.losses)], held), about.losses)
    trace = dataclasses.replace(about, attempts=rows)
    rows["in_flight_at_start"], rows["demand_at_start"] = open_at_start(trace.columns)
    rows["watched"] = watched(trace.columns, about.processes, about.watches)
    return dataclasses.replace(trace, binds=with_ports(trace.binds, rows))


def assemble_columns(
    about: Trace, finished: list[Columns], carried: Open, held: Iterable[Held] = ()
) -> Trace:
    """Return what `assemble` does, by column: those of a file that are always zero take no memory.

    Takes the parts out of the list, so that none is there twice.
    """
    finished.append(Columns(flush(carried, about.losses)))
    columns = _in_order(_with_held(finished, held))
    flying, wanting = open_at_start(columns)
    found = {
        "in_flight_at_start": flying,
        "demand_at_start": wanting,
        "watched": watched(columns, about.processes, about.watches),
    }
    if about.losses:
        found["complete"] = complete(columns, about.losses)
    columns = Columns.packed(len(columns), columns.there() | _typed(found))
    return dataclasses.replace(about, attempts=columns, binds=with_ports(about.binds, columns))


def _typed(columns: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {name: each.astype(ATTEMPT[name], copy=False) for name, each in columns.items()}


def _with_held(parts: list[Columns], held: Iterable[Held]) -> list[Columns]:
    # Rows come in the order of their ids, and held ones get the next.
    waiting = held_rows(held)
    if len(waiting):
        last_id = max(int(part["attempt_id"].max(initial=0)) for part in parts)
        waiting["attempt_id"] = np.arange(len(waiting)) + 1 + last_id
        parts.append(Columns(waiting))
    return parts


def _in_order(parts: list[Columns]) -> Columns:
    # By first mark, then by id; one column after the other, each out of all parts.
    order = in_sequence(np.concatenate([start_ns(part) for part in parts]))
    there = [(len(part), part.there()) for part in taken(parts)]
    columns = {}
    for name in ATTEMPT.names or ():
        values = [(number, known.pop(name, None)) for number, known in there]
        if any(each is not None and each.view(np.uint8).any() for _, each in values):
            nothing = np.zeros((), ATTEMPT[name])
            whole = [np.broadcast_to(nothing, n) if each is None else each for n, each in values]
            columns[name] = np.concatenate(whole)[order]
    return Columns.packed(len(order), columns)


def watched(
    attempts: Table, processes: Mapping[int, Process], watches: Mapping[int, int]
) -> npt.NDArray[np.bool_]:
    """Tell of each attempt whether the wire of its network namespace was watched at its SYN.

    `watches`: network namespace (inode) to since when, ns. The SYN of an attempt that is older
    than the trace had left by then, whatever is seen of it later.
    """
    if not watches:
        return np.zeros(len(attempts), np.bool_)
    pids, which = np.unique(attempts["pid"], return_inverse=True)
    never = np.iinfo(np.int64).max
    known = [processes.get(pid) for pid in pids.tolist()]
    since = [watches.get(each.netns, never) if each else never for each in known]
    began = np.array(since, np.int64)[which] if len(since) else np.zeros(0, np.int64)
    syn_ns = attempts["syn_ns"]
    seen: npt.NDArray[np.bool_] = (syn_ns > 0) & (syn_ns >= began)
    seen &= attempts["origin"] != Origin.seeded
    return seen


def _sorted(parts: list[Attempts], held: Iterable[Held]) -> Attempts:
    # By first mark, then by id. Rows come in the order of their ids, and held ones get the next.
    # The parts are taken out of the list as they find their places, or all would be there twice.
    last_id = max(int(part["attempt_id"].max(initial=0)) for part in parts)
    waiting = held_rows(held)
    waiting["attempt_id"] = np.arange(len(waiting)) + 1 + last_id
    parts.append(waiting)
    first = np.concatenate([start_ns(part) for part in parts])
    return in_order(parts, np.argsort(first, kind="stable"), ATTEMPT)
