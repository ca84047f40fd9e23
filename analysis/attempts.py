"""Events to attempts: the one implementation, for live rounds and whole files alike.

`step` takes a batch of events and what was still open, and gives the rows that
are finished and what is open now. Open attempts are carried as their raw events,
so cutting a trace anywhere changes nothing: a row depends on its own events and
on the watermark only, never on the cut.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from porttrace.analysis.eventcolumns import EventColumns, Part
from porttrace.analysis.grouped import (
    NEVER,
    Grouped,
    Index,
    Mask,
    Times,
    grouped,
    without_orphans,
)
from porttrace.analysis.model import (
    ATTEMPT,
    RESENT_KEPT,
    Attempts,
    Columns,
    Loss,
    Origin,
    Outcome,
    Table,
    no_attempts,
    start_ns,
)
from porttrace.analysis.rows import copied
from porttrace.tracer.event import Events, EventType, Flag, no_events

# Events of one attempt lie this close to its END, or are not looked at.
GRACE_NS = 20_000_000
# A call that ended and has not returned for so long: its RETURN was lost.
RETURN_NS = 60_000_000_000
# Where the scheduler was not watched, a call that took this long was blocking.
_BLOCKED_NS = 100_000_000
_TCP_CLOSE = 7
_AF_INET = 2

# -ERESTARTSYS .. -ERESTART_RESTARTBLOCK: a signal came; never seen by the program.
_RESTARTS = tuple(range(512, 517))
_STILL_CONNECTING = (errno.EINPROGRESS, errno.EALREADY, errno.EINTR, *_RESTARTS)
_OUTCOME_OF = {
    errno.ECONNREFUSED: Outcome.refused,
    errno.ETIMEDOUT: Outcome.timed_out,
    errno.EHOSTUNREACH: Outcome.unreachable,
    errno.ENETUNREACH: Outcome.unreachable,
    errno.EHOSTDOWN: Outcome.unreachable,
    errno.ENETDOWN: Outcome.unreachable,
    errno.ENONET: Outcome.unreachable,
    errno.EPERM: Outcome.denied,
    errno.EACCES: Outcome.denied,
    errno.EADDRNOTAVAIL: Outcome.no_port,
    errno.ECONNRESET: Outcome.reset,
}
# By enum event_origin of bpf/event.h.
_WAYS = np.full(256, Origin.other, np.uint8)
_WAYS[1:5] = [Origin.connect, Origin.io_uring, Origin.fastopen, Origin.kernel]
# Results of calls that are mistakes of the program, not attempts to reach anybody.
_NOT_ATTEMPTS = (errno.EISCONN, errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EINVAL)
KINDS = (
    EventType.START,
    EventType.END,
    EventType.RETURN,
    EventType.RETRANSMIT,
    EventType.ERROR,
    EventType.SEED,
    EventType.WIRE,
)
"""Types of the events that tell of attempts."""

_IS_WANTED = np.isin(np.arange(256), KINDS)  # by type
# What one event tells of an attempt, by the names of both.
_TOLD = (
    "pid", "tid", "uid", "cgroup", "comm", "saddr", "daddr", "dport", "family",
    "gate_stack", "connect_stack",
)  # fmt: skip

# ... and what the wire probe tells.
_BY_WIRE = (
    "wire_ns", "wire_last_ns", "answer_ns", "wire_count", "answer", "answers",
    "icmp_type", "icmp_code",
)  # fmt: skip

# What has been worked out of each attempt, by the name of its column in ATTEMPT.
_Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Open:
    """What `step` hands to the next `step`: events of open attempts, and the next id."""

    events: Events = field(default_factory=no_events)
    next_id: int = 1


def step(events: Events, carried: Open, watermark_ns: int) -> tuple[Attempts, Open]:
    """Join one batch of events to the attempts still open.

    `watermark_ns`: no event older than this will come any more. Returns finished rows
    (shape (n,), dtype ATTEMPT, in order of completion) and what is open.
    """
    if not len(events) and not len(carried.events):  # again and again on a quiet host
        return no_attempts(), carried
    columns, still = step_columns([(events, {})], carried, watermark_ns)
    return columns[:], still


def step_columns(parts: Sequence[Part], carried: Open, watermark_ns: int) -> tuple[Columns, Open]:
    """Do what `step` does with the events of several parts; the rows come by column."""
    groups = without_orphans(grouped(_with(carried, parts)))
    found = _found(groups)
    finished = found.done_ns < watermark_ns
    done = found.numbered(finished & ~groups.lone, carried.next_id)
    return done, Open(groups.of(~finished), carried.next_id + len(done))


def flush(carried: Open, losses: tuple[Loss, ...] = ()) -> Attempts:
    """Return the rows that the end of the trace leaves open.

    An attempt without an end is `pending`, or `unknown` when events were lost after
    it began: its end may have been among them.
    """
    groups = grouped(EventColumns([(carried.events, {})]))
    rows = _found(groups).numbered(~groups.lone, carried.next_id)[:]
    if losses and len(rows):
        last_loss = max(loss.last_ns for loss in losses)
        touched = (rows["outcome"] == Outcome.pending) & (start_ns(rows) <= last_loss)
        rows["outcome"][touched] = Outcome.unknown
    return rows


def pending(carried: Open) -> Attempts:
    """Return the open attempts as they stand, without an id of their own (0)."""
    if not len(carried.events):
        return no_attempts()
    groups = grouped(EventColumns([(carried.events, {})]))
    return _found(groups).rows(np.flatnonzero(~groups.lone))[:]


def mark_losses(attempts: Attempts, losses: tuple[Loss, ...]) -> Attempts:
    """Return the rows with `complete` cleared where a loss overlaps their life."""
    if not losses:
        return attempts
    marked = copied(attempts)
    marked["complete"] = complete(attempts, losses)
    return marked


def complete(attempts: Table, losses: tuple[Loss, ...]) -> Mask:
    """Tell which of the rows are complete, and no loss (at least one) overlaps their life."""
    begin = start_ns(attempts)
    end = np.maximum(attempts["end_ns"], attempts["return_ns"])
    end = np.where(end == 0, NEVER, end)
    # Of the losses that began before a row's end, some were not over before its beginning.
    first, last = (
        np.sort([min(time, NEVER) for time in times])
        for times in zip(*((loss.first_ns, loss.last_ns) for loss in losses), strict=True)
    )
    begun, over = np.searchsorted(first, end, "right"), np.searchsorted(last, begin, "left")
    untouched: Mask = attempts["complete"] & (begun <= over)
    return untouched


def _with(carried: Open, parts: Sequence[Part]) -> EventColumns:
    everything = EventColumns([(carried.events, {}), *parts])
    kind, error = everything["type"], everything["error"]
    wanted = _IS_WANTED[kind]
    # A later call may not be about the attempt at all: its descriptor is another file by now.
    later = ((everything["flags"] & Flag.AGAIN) != 0) & (error != -errno.EISCONN)
    later |= everything["start_ns"] == 0
    calls = np.flatnonzero((kind == EventType.RETURN) & later)
    wanted[calls] &= ~np.isin(-error[calls], _NOT_ATTEMPTS)
    if wanted.all():
        return everything
    return EventColumns([(carried.events, {}), *parts], np.flatnonzero(wanted))


@dataclass(frozen=True)
class _Found:
    groups: Grouped
    best: Index  # of each attempt: the event that tells most of who made it
    columns: _Columns
    done_ns: Times  # when it cannot change any more

    def rows(self, which: Index) -> Columns:
        """Return the attempts `which` (positions in `best`), all numbered 0."""
        told = self.groups.order[self.best[which]]
        columns = {name: self.groups.events[name][told] for name in _TOLD}
        columns["family"][_is_mapped(columns["daddr"])] = _AF_INET
        for name, values in self.columns.items():
            columns[name] = values[which].astype(ATTEMPT[name], copy=False)
        # Most marks are in no attempt of a batch, and what is not there takes no memory.
        there = {name: each for name, each in columns.items() if each.view(np.uint8).any()}
        return Columns.packed(len(which), there)

    def numbered(self, mask: Mask, next_id: int) -> Columns:
        """Return the attempts in `mask`, from `next_id` on in the order of their ends."""
        # Completion times do not depend on the cut, so neither do the numbers.
        which = np.flatnonzero(mask)
        tid = self.groups.column("tid")[self.best[which]]
        order = np.lexsort((tid, self.columns["syn_ns"][which], self.done_ns[which]))
        rows = self.rows(which[order])
        numbers = np.arange(next_id, next_id + len(rows), dtype=np.uint64)
        return Columns.packed(len(rows), {**rows.there(), "attempt_id": numbers})


def _is_mapped(addresses: npt.NDArray[np.void]) -> Mask:
    halves = np.ascontiguousarray(addresses).view("<u8").reshape(-1, 2)
    mapped: Mask = (halves[:, 0] == 0) & (halves[:, 1] & 0xFFFFFFFF == 0xFFFF0000)
    return mapped


def _found(groups: Grouped) -> _Found:
    end = groups.last(groups.of_kind(EventType.END))
    end_ns, best = groups.value("time_ns", end), _best(groups, end)
    first_return = _first_return(groups, end_ns)
    last_return, error = _sequels(groups, end_ns, first_return)
    columns = _marks(groups, end_ns, last_return) | _counts(groups) | _wire(groups)
    columns["fd"] = groups.column("fd")[best]
    columns["origin"] = _origin(groups, columns, first_return)
    columns["blocking"] = _blocking(groups, columns, first_return)
    columns |= _outcome(groups, columns, end, error, last_return)
    return _Found(groups, best, columns, _done_ns(groups, columns, end, first_return))


def _first_return(groups: Grouped, end_ns: Times) -> Index:
    returns = np.flatnonzero((groups.column("type") == EventType.RETURN) & ~groups.again)
    latest = np.where(end_ns > 0, end_ns + RETURN_NS, NEVER)
    in_time = groups.column("time_ns")[returns] <= latest[groups.group[returns]]
    return groups.first(returns[in_time])


def _sequels(groups: Grouped, end_ns: Times, first_return: Index) -> tuple[Index, Index]:
    # The last return, of whichever call, and the error that the socket was told.
    closes_ns = _closes_ns(groups, end_ns, first_return)

    def in_time(where: Index) -> Index:
        return where[groups.column("time_ns")[where] <= closes_ns[groups.group[where]]]

    again = groups.last(in_time(np.flatnonzero(groups.again)))
    errors = in_time(groups.of_kind(EventType.ERROR))
    # The number may come from the program's own question instead: the largest counts.
    named = groups.last(errors[groups.column("error")[errors] > 0])
    error = np.where(named >= 0, named, groups.last(errors))
    return np.maximum(again, first_return), error


def _closes_ns(groups: Grouped, end_ns: Times, first_return: Index) -> Times:
    # Later calls and errors count until then: a live trace has let the attempt go by that time.
    closes = np.where(end_ns > 0, end_ns + GRACE_NS, NEVER)
    untracked = groups.untracked & (end_ns == 0) & (first_return >= 0)
    closes = np.where(untracked, groups.value("time_ns", first_return), closes)
    return np.where(groups.replaced, np.minimum(closes, groups.following_ns), closes)


def _best(groups: Grouped, end: Index) -> Index:
    # END tells most (ports included), then START; a RETURN has no local address.
    begun = groups.first(groups.of_kind(EventType.START, EventType.SEED))
    any_event = np.append(groups.heads[1:], groups.size)[: groups.count] - 1
    return np.where(end >= 0, end, np.where(begun >= 0, begun, any_event))


def _counts(groups: Grouped) -> _Columns:
    resent = groups.group[groups.of_kind(EventType.RETRANSMIT)]
    own = groups.column("type") != EventType.WIRE
    with_port = groups.last(np.flatnonzero((groups.column("sport") != 0) & own))
    columns: _Columns = {"sport": groups.value("sport", with_port)}
    if groups.some("in_flight"):
        started = groups.first(groups.of_kind(EventType.START))
        columns["kernel_in_flight"] = groups.value("in_flight", started)
    if len(resent):
        columns["retransmits"] = np.bincount(resent, minlength=groups.count)
        columns["resent"] = _resent(groups)
    return columns


def _resent(groups: Grouped) -> npt.NDArray[np.void]:
    resent = groups.of_kind(EventType.RETRANSMIT)
    of = groups.group[resent]  # ascending, as the events of each group are in order
    turn = np.arange(len(of)) - np.searchsorted(of, of, "left")
    since_us = (groups.column("time_ns")[resent] - groups.column("start_ns")[resent]) // 1000
    times = np.zeros((groups.count, RESENT_KEPT), np.uint32)
    kept = turn < RESENT_KEPT
    times[of[kept], turn[kept]] = np.clip(since_us[kept], 1, 2**32 - 1)
    return times.view(ATTEMPT["resent"]).reshape(-1)


# What the wire probe saw is told, as far as it is known then, by each later event of the socket.
def _wire(groups: Grouped) -> _Columns:
    columns: _Columns = {}
    if groups.some("wire_ns"):
        told = groups.last(groups.having("wire_ns"))
        columns = {name: groups.value(name, told) for name in _BY_WIRE}
    if groups.some("drop_reason"):
        dropped = groups.last(groups.having("drop_reason"))
        columns["drop_reason"] = groups.value("drop_reason", dropped)
    translated = groups.of_kind(EventType.WIRE)
    return columns | _translated(groups, groups.last(translated)) if len(translated) else columns


def _translated(groups: Grouped, where: Index) -> _Columns:
    columns: _Columns = {f"wire_{name}": groups.value(name, where) for name in ("sport", "dport")}
    there = where >= 0
    for name in ("saddr", "daddr"):
        addresses = np.zeros(groups.count, "V16")
        addresses[there] = groups.events[name][groups.order[where[there]]]
        columns[f"wire_{name}"] = addresses
    return columns


def _marks(groups: Grouped, end_ns: Times, last_return: Index) -> _Columns:
    # Those of the first call: a later one found the socket connecting already.
    own = ~groups.again
    marks = {}
    for name in ("gate_ns", "call_ns", "sleep_ns", "kernel_ns", "kernel_return_ns"):
        having = groups.having(name)
        marks[name] = groups.value(name, groups.first(having[own[having]]))
    syn_ns = groups.value("start_ns", groups.first(groups.having("start_ns")))
    return_ns = groups.value("time_ns", last_return)
    failed_early = (syn_ns == 0) & (last_return >= 0)
    end_ns = np.where(failed_early, return_ns, end_ns)
    return {**marks, "syn_ns": syn_ns, "return_ns": return_ns, "end_ns": end_ns}


def _origin(groups: Grouped, marks: _Columns, first_return: Index) -> npt.NDArray[np.uint8]:
    seeded = groups.first(groups.of_kind(EventType.SEED)) >= 0
    told = groups.value("origin", groups.first(groups.having("origin")))
    # Returned 0 before the socket left SYN_SENT: TCP_FASTOPEN_CONNECT defers the SYN.
    returned_ns = groups.value("time_ns", first_return)
    deferred = (first_return >= 0) & (groups.value("error", first_return) == 0)
    deferred &= (marks["end_ns"] == 0) | (marks["end_ns"] > returned_ns)
    called = (marks["call_ns"] > 0) | (marks["gate_ns"] > 0)
    origin = np.where(called, Origin.connect, Origin.other).astype(np.uint8)
    origin = np.where(told > 0, _WAYS[told], origin)
    origin[deferred] = Origin.fastopen
    origin[seeded] = Origin.seeded
    return origin


def _blocking(groups: Grouped, columns: _Columns, first_return: Index) -> npt.NDArray[np.int8]:
    result, syn_ns = groups.value("error", first_return), columns["syn_ns"]
    flags = groups.value("flags", first_return)
    slept, watched = (flags & Flag.SLEPT) != 0, (flags & Flag.WATCHED) != 0
    took_ns = groups.value("time_ns", first_return) - syn_ns
    waited = slept | (~watched & (took_ns >= _BLOCKED_NS))
    in_progress = (-result == errno.EINPROGRESS) & ~waited
    known = (first_return >= 0) & (syn_ns > 0) & _by_call(columns)
    blocking = np.where(known, np.where(in_progress, 0, 1), -1).astype(np.int8)
    # Still inside the call after a while: nothing returned at once.
    deferred = columns["origin"] == Origin.fastopen  # by TCP_FASTOPEN_CONNECT, not by MSG_FASTOPEN
    blocking[deferred & (columns["fd"] >= 0)] = 0
    return blocking


def _outcome(
    groups: Grouped,
    columns: _Columns,
    end: Index,
    error: Index,
    last_return: Index,
) -> _Columns:
    result = groups.value("error", last_return)
    closed = (end >= 0) & (groups.value("newstate", end) == _TCP_CLOSE)
    early = (columns["syn_ns"] == 0) & (last_return >= 0)
    final = (last_return >= 0) & (result < 0) & ~np.isin(-result, _STILL_CONNECTING)
    told = np.maximum(groups.value("error", error), groups.value("error", end))
    # The program has taken the error already, and asks once more: it is told this one instead.
    final &= (result != -errno.ECONNABORTED) | (told == 0)
    number = np.where(final, -result, np.where(told > 0, told, 0))
    number = np.where(closed | early | (final & (end < 0)), number, 0)
    # In the middle of its own connect(2) nobody closes the socket: something failed.
    inside = (groups.value("flags", end) & Flag.IN_CONNECT) != 0
    outcome = np.full(groups.count, Outcome.pending, np.uint8)
    outcome[end >= 0] = Outcome.established
    outcome[closed & (number == 0)] = Outcome.cancelled
    outcome[closed & (number == 0) & inside & (result == 0)] = Outcome.failed
    outcome[closed & (number == 0) & (error >= 0)] = Outcome.failed  # told, but not which
    # Closed before it had a port: not by the program, which still waits for its result.
    around = (columns["origin"] != Origin.connect) & (columns["origin"] != Origin.seeded)
    outcome[closed & (number == 0) & around & (columns["sport"] == 0)] = Outcome.failed
    outcome[number > 0] = Outcome.failed
    if number.any():
        for code, name in _OUTCOME_OF.items():
            outcome[number == code] = name
    # Untracked, or answered at the gate by somebody else: the answer is all that is known.
    answered = (groups.untracked | early) & (end < 0) & (last_return >= 0)
    outcome[answered & (result == 0)] = Outcome.established
    outcome[answered & ~final & (result != 0)] = Outcome.unknown
    outcome[groups.replaced & (end < 0) & ~answered] = Outcome.unknown
    return {"outcome": outcome, "errno": number, "complete": outcome != Outcome.unknown}


def _by_call(columns: _Columns) -> Mask:
    # By a connect(2) whose return is awaited; what the kernel itself entered has no descriptor.
    by_call: Mask = (columns["fd"] >= 0) | (columns["kernel_ns"] == 0)
    return by_call


def _done_ns(groups: Grouped, columns: _Columns, end: Index, first_return: Index) -> Times:
    # When the row cannot change any more, from its own events alone.
    returned_ns, end_ns = groups.value("time_ns", first_return), columns["end_ns"]
    expects_return = (columns["call_ns"] > 0) & (columns["origin"] != Origin.seeded)
    expects_return &= _by_call(columns)
    done = np.full(groups.count, NEVER, np.int64)
    ended = (end >= 0) & ((first_return >= 0) | ~expects_return)
    done[ended] = np.maximum(end_ns + GRACE_NS, returned_ns)[ended]
    waits = (end >= 0) & ~ended
    done[waits] = (end_ns + RETURN_NS)[waits]
    done[groups.lone] = (returned_ns + RETURN_NS)[groups.lone]
    early = (columns["syn_ns"] == 0) & (first_return >= 0)
    done[early] = returned_ns[early]
    untracked = groups.untracked & (end < 0) & (first_return >= 0)
    done[untracked] = returned_ns[untracked]
    return np.where(groups.replaced, np.minimum(done, groups.following_ns), done)
