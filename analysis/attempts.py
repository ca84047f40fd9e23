"""Events to attempts: the one implementation, for live rounds and whole files alike.

`step` takes a batch of events and what was still open, and gives the rows that
are finished and what is open now. Open attempts are carried as their raw events,
so cutting a trace anywhere changes nothing: a row depends on its own events and
on the watermark only, never on the cut.
"""

import errno
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from porttrace.analysis.model import ATTEMPT, Attempts, Loss, Origin, Outcome, start_ns
from porttrace.tracer.event import Events, EventType, Flag, no_events

# Events of one attempt lie this close to its END, or are not looked at.
GRACE_NS = 20_000_000
# A call that ended and has not returned for so long: its RETURN was lost.
RETURN_NS = 60_000_000_000
# Where the scheduler was not watched, a call that took this long was blocking.
_BLOCKED_NS = 100_000_000
_NEVER = np.iinfo(np.int64).max
_TCP_CLOSE = 7
_MAPPED = bytes(10) + b"\xff\xff"
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
_WAYS = np.array(
    [Origin.other, Origin.connect, Origin.io_uring, Origin.fastopen, Origin.kernel], np.uint8
)
# Results of calls that are mistakes of the program, not attempts to reach anybody.
_NOT_ATTEMPTS = (errno.EISCONN, errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EINVAL)
_KINDS = (
    EventType.START,
    EventType.END,
    EventType.RETURN,
    EventType.RETRANSMIT,
    EventType.ERROR,
    EventType.SEED,
)

_Index = npt.NDArray[np.intp]
_Times = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


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
    everything = _with(carried, events)
    rows, done_ns, group, real = _rows(everything)
    finished = done_ns < watermark_ns
    keep = everything[~finished[group]] if len(everything) else everything
    out = finished & real
    return _numbered(rows[out], done_ns[out], carried.next_id, keep)


def flush(carried: Open, losses: tuple[Loss, ...] = ()) -> Attempts:
    """Return the rows that the end of the trace leaves open.

    An attempt without an end is `pending`, or `unknown` when events were lost after
    it began: its end may have been among them.
    """
    rows, done_ns, _, real = _rows(carried.events)
    rows, done_ns = rows[real], done_ns[real]
    if losses and len(rows):
        last_loss = max(loss.last_ns for loss in losses)
        touched = (rows["outcome"] == Outcome.pending) & (start_ns(rows) <= last_loss)
        rows["outcome"][touched] = Outcome.unknown
    return _numbered(rows, done_ns, carried.next_id, no_events())[0]


def pending(carried: Open) -> Attempts:
    """Return the open attempts as they stand, without an id of their own (0)."""
    rows, _, _, real = _rows(carried.events)
    return rows[real]


def mark_losses(attempts: Attempts, losses: tuple[Loss, ...]) -> Attempts:
    """Return the rows with `complete` cleared where a loss overlaps their life."""
    if not losses:
        return attempts
    marked = attempts.copy()
    begin = start_ns(marked)
    end = np.maximum(marked["end_ns"], marked["return_ns"])
    end = np.where(end == 0, _NEVER, end)
    for loss in losses:
        marked["complete"] &= ~((begin <= loss.last_ns) & (end >= loss.first_ns))
    return marked


def _with(carried: Open, events: Events) -> Events:
    calls = (events["type"] == EventType.RETURN) & (events["start_ns"] == 0)
    unwanted = ~np.isin(events["type"], _KINDS)
    unwanted |= calls & np.isin(-events["error"], _NOT_ATTEMPTS)
    # Nearly always all are wanted: a copy of a large batch costs more than the look.
    wanted = events[~unwanted] if unwanted.any() else events
    together = np.concatenate([carried.events, wanted]) if len(carried.events) else wanted
    return _without_orphans(together)


def _without_orphans(events: Events) -> Events:
    # A later call or question of an attempt whose row is finished, or whose beginning was
    # lost: alone it would be taken for an attempt of its own.
    sequel = _is_sequel(events)
    if not sequel.any():
        return events
    groups, group_of = _grouped(events)
    own = groups.first(~_is_sequel(groups.events))
    begun_ns = np.where(own >= 0, groups.value("time_ns", own), _NEVER)
    early = events["time_ns"].astype(np.int64) < begun_ns[group_of]
    kept: Events = events[~(sequel & early)]
    return kept


def _is_sequel(events: Events) -> _Mask:
    sequel: _Mask = _is_again(events) | (events["type"] == EventType.ERROR)
    return sequel


def _is_again(events: Events) -> _Mask:
    again: _Mask = (events["type"] == EventType.RETURN) & ((events["flags"] & Flag.AGAIN) != 0)
    return again


def _numbered(rows: Attempts, done_ns: _Times, next_id: int, keep: Events) -> tuple[Attempts, Open]:
    # Completion times do not depend on the cut, so neither do the numbers.
    rows = rows[np.lexsort((rows["tid"], rows["syn_ns"], done_ns))]
    rows["attempt_id"] = np.arange(next_id, next_id + len(rows))
    return rows, Open(keep, next_id + len(rows))


@dataclass(frozen=True)
class _Groups:
    # Events sorted by attempt; for each attempt the positions of what it has, -1 none.
    events: Events
    group: _Index  # of each event
    count: int

    def last(self, mask: _Mask) -> _Index:
        found = np.full(self.count, -1, np.intp)
        where = np.flatnonzero(mask)
        found[self.group[where]] = where  # the last of equals wins
        return found

    def first(self, mask: _Mask) -> _Index:
        found = np.full(self.count, -1, np.intp)
        where = np.flatnonzero(mask)[::-1]
        found[self.group[where]] = where
        return found

    def value(self, name: str, at: _Index) -> npt.NDArray[np.int64]:
        # The field as int64; 0 where the attempt has no such event.
        if not len(self.events):
            return np.zeros(self.count, np.int64)
        return np.where(at >= 0, self.events[name][at].astype(np.int64), 0)


def _grouped(events: Events) -> tuple[_Groups, _Index]:
    # A failed call without a socket is an attempt of its own: its call is its start.
    start = np.where(events["start_ns"] == 0, events["time_ns"], events["start_ns"])
    sock = np.where(events["start_ns"] == 0, events["tid"].astype(np.uint64), events["sock"])
    # Type and error only settle ties: what came at one instant has no order of its own.
    order = np.lexsort((events["error"], events["type"], events["time_ns"], start, sock))
    start, sock = start[order], sock[order]
    new = np.ones(len(events), bool)
    new[1:] = (start[1:] != start[:-1]) | (sock[1:] != sock[:-1])
    group = np.cumsum(new) - 1
    back = np.empty(len(events), np.intp)
    back[order] = group
    return _Groups(events[order], group, int(group[-1]) + 1 if len(events) else 0), back


def _rows(events: Events) -> tuple[Attempts, _Times, _Index, _Mask]:
    # All attempts of the events; when each is done (or _NEVER); the group of each event;
    # and which are real: a lone RETURN may belong to a row that was finished without it.
    groups, group_of = _grouped(events)
    ev = groups.events
    kind = ev["type"]
    end = groups.last(kind == EventType.END)
    end_ns = groups.value("time_ns", end)
    again = _is_again(ev)
    returns_by = np.where(end_ns > 0, end_ns + RETURN_NS, _NEVER)[groups.group]
    first_return = groups.first(
        (kind == EventType.RETURN) & ~again & (ev["time_ns"].astype(np.int64) <= returns_by)
    )
    closes_ns = _closes_ns(groups, end_ns, first_return)
    in_time = ev["time_ns"].astype(np.int64) <= closes_ns[groups.group]
    last_return = np.maximum(groups.last(again & in_time), first_return)
    # The number may come from the program's own question instead: the largest counts.
    errors = (kind == EventType.ERROR) & in_time
    error = np.where(
        (named := groups.last(errors & (ev["error"] > 0))) >= 0, named, groups.last(errors)
    )

    rows = _identities(groups, end)
    _set_marks(rows, groups, end_ns, last_return)
    rows["retransmits"] = np.bincount(
        groups.group[kind == EventType.RETRANSMIT], minlength=groups.count
    )[: groups.count]
    result = groups.value("error", last_return)
    _set_origin(rows, groups, first_return)
    _set_blocking(rows, groups, first_return)
    _set_outcome(rows, groups, end, error, last_return, result)
    return rows, _done_ns(rows, groups, end, first_return), group_of, ~_lone(groups)


def _closes_ns(groups: _Groups, end_ns: _Times, first_return: _Index) -> _Times:
    # Later calls and errors count until then: a live trace has let the attempt go by that time.
    closes = np.where(end_ns > 0, end_ns + GRACE_NS, _NEVER)
    untracked = _untracked(groups) & (end_ns == 0) & (first_return >= 0)
    closes = np.where(untracked, groups.value("time_ns", first_return), closes)
    return np.where(_replaced(groups), np.minimum(closes, _following_ns(groups)), closes)


def _identities(groups: _Groups, end: _Index) -> Attempts:
    # END tells most (ports included), then START; a RETURN has no local address.
    ev = groups.events
    rows = np.zeros(groups.count, ATTEMPT)
    if not groups.count:
        return rows
    begun = groups.first(np.isin(ev["type"], (EventType.START, EventType.SEED)))
    any_event = groups.last(np.ones(len(ev), bool))
    best = np.where(end >= 0, end, np.where(begun >= 0, begun, any_event))
    for name in ("pid", "tid", "uid", "cgroup", "fd", "comm", "saddr", "daddr", "dport"):
        rows[name] = ev[name][best]
    for name in ("gate_stack", "connect_stack"):
        rows[name] = ev[name][best]
    rows["sport"] = groups.value("sport", groups.last(ev["sport"] != 0))
    rows["kernel_in_flight"] = groups.value(
        "in_flight", groups.first(ev["type"] == EventType.START)
    )
    rows["family"] = ev["family"][best]
    mapped = np.ascontiguousarray(rows["daddr"]).view("V4").reshape(-1, 4)
    prefix = np.frombuffer(_MAPPED, "V4")
    is_v4 = np.all(mapped[:, :3] == prefix, axis=1)
    rows["family"][is_v4] = _AF_INET
    rows["complete"] = True
    return rows


def _set_marks(rows: Attempts, groups: _Groups, end_ns: _Times, last_return: _Index) -> None:
    ev = groups.events
    # Those of the first call: a later one found the socket connecting already.
    own = ~_is_again(ev)
    for name in ("gate_ns", "call_ns", "sleep_ns", "kernel_ns", "kernel_return_ns"):
        rows[name] = groups.value(name, groups.first((ev[name] != 0) & own))
    rows["syn_ns"] = groups.value("start_ns", groups.first(ev["start_ns"] != 0))
    rows["return_ns"] = groups.value("time_ns", last_return)
    failed_early = (rows["syn_ns"] == 0) & (last_return >= 0)
    rows["end_ns"] = np.where(failed_early, rows["return_ns"], end_ns)


def _set_origin(rows: Attempts, groups: _Groups, first_return: _Index) -> None:
    seeded = groups.first(groups.events["type"] == EventType.SEED) >= 0
    told = groups.value("origin", groups.first(groups.events["origin"] != 0))
    # Returned 0 before the socket left SYN_SENT: TCP_FASTOPEN_CONNECT defers the SYN.
    returned_ns = groups.value("time_ns", first_return)
    deferred = (first_return >= 0) & (groups.value("error", first_return) == 0)
    deferred &= (rows["end_ns"] == 0) | (rows["end_ns"] > returned_ns)
    rows["origin"] = np.select(
        [seeded, deferred, told > 0, rows["call_ns"] > 0, rows["gate_ns"] > 0],
        [Origin.seeded, Origin.fastopen, _WAYS[told], Origin.connect, Origin.connect],
        Origin.other,
    )


def _set_blocking(rows: Attempts, groups: _Groups, first_return: _Index) -> None:
    result = groups.value("error", first_return)
    slept = (groups.value("flags", first_return) & Flag.SLEPT) != 0
    took_ns = groups.value("time_ns", first_return) - rows["syn_ns"]
    watched = (groups.value("flags", first_return) & Flag.WATCHED) != 0
    waited = slept | (~watched & (took_ns >= _BLOCKED_NS))
    in_progress = (-result == errno.EINPROGRESS) & ~waited
    known = (first_return >= 0) & (rows["syn_ns"] > 0) & _by_call(rows)
    rows["blocking"] = np.where(known, np.where(in_progress, 0, 1), -1)
    # Still inside the call after a while: nothing returned at once.
    deferred = (rows["origin"] == Origin.fastopen) & (rows["fd"] >= 0)  # by TCP_FASTOPEN_CONNECT
    rows["blocking"][deferred] = 0


def _set_outcome(
    rows: Attempts,
    groups: _Groups,
    end: _Index,
    error: _Index,
    last_return: _Index,
    result: npt.NDArray[np.int64],
) -> None:
    closed = (end >= 0) & (groups.value("newstate", end) == _TCP_CLOSE)
    early = (rows["syn_ns"] == 0) & (last_return >= 0)
    final = (last_return >= 0) & (result < 0) & ~np.isin(-result, _STILL_CONNECTING)
    told = np.maximum(groups.value("error", error), groups.value("error", end))
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
    around = ~np.isin(rows["origin"], (Origin.connect, Origin.seeded))
    outcome[closed & (number == 0) & around & (rows["sport"] == 0)] = Outcome.failed
    outcome[number > 0] = Outcome.failed
    for code, name in _OUTCOME_OF.items():
        outcome[number == code] = name
    # Untracked, or answered at the gate by somebody else: the answer is all that is known.
    answered = (_untracked(groups) | early) & (end < 0) & (last_return >= 0)
    outcome[answered & (result == 0)] = Outcome.established
    outcome[answered & ~final & (result != 0)] = Outcome.unknown
    outcome[_replaced(groups) & (end < 0) & ~answered] = Outcome.unknown
    rows["outcome"], rows["errno"] = outcome, number
    rows["complete"] = ~np.isin(outcome, (Outcome.unknown,))


def _by_call(rows: Attempts) -> _Mask:
    # By a connect(2) whose return is awaited; what the kernel itself entered has no descriptor.
    by_call: _Mask = (rows["fd"] >= 0) | (rows["kernel_ns"] == 0)
    return by_call


def _untracked(groups: _Groups) -> _Mask:
    # The kernel had no room to follow this socket: only the call's result is known.
    flags = groups.events["flags"]
    return groups.first((flags & Flag.UNTRACKED) != 0) >= 0


def _lone(groups: _Groups) -> _Mask:
    # Nothing but what its call returned, though it had a socket.
    ev = groups.events
    others = groups.first((ev["type"] != EventType.RETURN) | (ev["start_ns"] == 0))
    return others < 0


def _replaced(groups: _Groups) -> _Mask:
    # A later attempt uses the same struct sock: this one's END was lost.
    found = np.zeros(groups.count, bool)
    if groups.count:
        heads = groups.first(np.ones(len(groups.events), bool))
        sock, start = groups.events["sock"][heads], groups.events["start_ns"][heads]
        found[:-1] = (sock[1:] == sock[:-1]) & (sock[1:] != 0) & (start[:-1] != 0)
    return found


def _done_ns(rows: Attempts, groups: _Groups, end: _Index, first_return: _Index) -> _Times:
    # When the row cannot change any more, from its own events alone.
    returned_ns = groups.value("time_ns", first_return)
    expects_return = (rows["call_ns"] > 0) & (rows["origin"] != Origin.seeded) & _by_call(rows)
    done = np.full(groups.count, _NEVER, np.int64)
    ended = (end >= 0) & ((first_return >= 0) | ~expects_return)
    done[ended] = np.maximum(rows["end_ns"] + GRACE_NS, returned_ns)[ended]
    waits = (end >= 0) & ~ended
    done[waits] = (rows["end_ns"] + RETURN_NS)[waits]
    lone = _lone(groups)
    done[lone] = (returned_ns + RETURN_NS)[lone]
    early = (rows["syn_ns"] == 0) & (first_return >= 0)
    done[early] = returned_ns[early]
    untracked = _untracked(groups) & (end < 0) & (first_return >= 0)
    done[untracked] = returned_ns[untracked]
    return np.where(_replaced(groups), np.minimum(done, _following_ns(groups)), done)


def _following_ns(groups: _Groups) -> _Times:
    # When the attempt that comes next in the order of groups was first heard of.
    heads = groups.first(np.ones(len(groups.events), bool))
    return np.roll(groups.value("time_ns", heads), -1)
