"""The attempts that a finding names: victims by how long they were held, blockers by how long
they had a slot while others were held, and the suspects that fit the place."""

from collections.abc import Sequence

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Ints
from porttrace.analysis.groups import Group
from porttrace.analysis.model import Outcome, Party, Process, Suspect, Trace, start_ns
from porttrace.analysis.suspects import fit
from porttrace.analysis.timeline import measure, union

NAMED = 100
"""So many parties at most are named; the evidence counts all of them."""


def party(trace: Trace, row: int, wait_ns: int) -> Party:
    """Return attempt number `row` of the trace as a party that waited `wait_ns`."""
    attempt = trace.attempts[row]
    known = trace.processes.get(int(attempt["pid"]), Process(0))
    return Party(
        attempt_id=int(attempt["attempt_id"]),
        pid=int(attempt["pid"]),
        tid=int(attempt["tid"]),
        comm=names.comm(attempt),
        destination=names.destination(attempt),
        outcome=Outcome(int(attempt["outcome"])).name,
        wait_s=wait_ns / 1e9,
        start_ns=int(start_ns(trace.attempts[row : row + 1])[0]),
        container=known.container,
        container_name=known.container_name,
        ns_pid=known.ns_pid,
    )


def victims(trace: Trace, group: Group) -> tuple[Party, ...]:
    """Return the held attempts of `group`, the longest held first."""
    waits = np.where(group.queue.held(), group.queue.hold.lengths(), 0)
    return _parties(trace, group.rows, waits)


def blockers(trace: Trace, group: Group) -> tuple[Party, ...]:
    """Return the attempts of `group` that had a slot while others were held, the longest first."""
    return _parties(trace, group.rows, blocking_ns(group))


def blocking_ns(group: Group) -> Ints:
    """Return for each attempt of `group` the time (ns) it had a slot while others were held."""
    queue, held = group.queue, group.queue.held()
    in_hold = union(queue.hold.start[held], queue.hold.stop[held])
    return measure(in_hold, queue.service.start, queue.service.stop)


def _parties(trace: Trace, rows: Ints, waits: Ints) -> tuple[Party, ...]:
    order = np.lexsort((trace.attempts["attempt_id"][rows], -waits))[:NAMED]
    return tuple(party(trace, int(rows[i]), int(waits[i])) for i in order if waits[i] > 0)


def suspects(
    trace: Trace, pids: list[int], place: str, functions: Sequence[str] = ()
) -> tuple[Suspect, ...]:
    """Return what could interpose on these processes, what fits `place` first, each fact once.

    `functions` are those of the kernel stack of the hold, where there is one.
    """
    return fit([fact for pid in pids for fact in trace.suspects.get(pid, ())], place, functions)
