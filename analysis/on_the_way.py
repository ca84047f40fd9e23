"""Queues behind SYN_SENT: who was held on the way out, in the network, or on the way in?

The wire tells when a SYN left and when its answer came. It does not tell when somebody in
between let the SYN go on: that is reckoned here. An attempt that was answered went on one
round trip before its answer. One that was never answered is counted as let through as soon as
a slot was free, which is what a throttle would have done: so the reckoning needs the number
of slots, and every number that can be is tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.holds import Queue, Spans, service, spans
from porttrace.analysis.model import Answer, Outcome, Table

MOST_SLOTS = 16
_MOST_UNANSWERED = 2000  # reckoning costs their number times all others
_PROMPT_NS = 5_000_000  # an answer so soon after the latest SYN is the answer to that one


@dataclass(frozen=True)
class Candidate:
    """One way in which the attempts may have been held; `queue` is what the test is given."""

    queue: Queue
    mechanism: str  # queue, or drop: SYNs without a slot are lost, and sent again


def held_at(attempts: Table, place: str, trace_end: int) -> Spans:
    """Return when each attempt was held at such a place: `holds.spans` without round trips."""
    hold = spans(attempts, place, trace_end)
    if place == "network":
        stop = np.maximum(hold.start, hold.stop - np.where(hold.closed, _round_trip(attempts), 0))
        answered = hold.closed
        return Spans(hold.start, np.where(answered, stop, hold.start), answered)
    if place == "egress":
        return hold
    return Spans(hold.start, np.where(hold.closed, hold.stop, hold.start), hold.closed)


# The shortest time that any SYN to the same address took to be answered.
def _round_trip(attempts: Table) -> Ints:
    wire, answer = _ns(attempts, "wire_ns"), _ns(attempts, "answer_ns")
    answered = (wire > 0) & (answer > 0)
    where = np.unique(_addresses(attempts), return_inverse=True)[1]
    best = np.full(int(where.max(initial=-1)) + 1, np.iinfo(np.int64).max, np.int64)
    np.minimum.at(best, where[answered], (answer - wire)[answered])
    return np.where(answered, best[where], 0)


# A number that nearly always differs where the address does; where not, a trip seems shorter.
def _addresses(attempts: Table) -> Ints:
    halves = np.ascontiguousarray(attempts["daddr"]).view("<i8").reshape(-1, 2)
    return np.asarray(halves[:, 0] * 31 + halves[:, 1], np.int64)


def candidates(attempts: Table, place: str, trace_end: int, hold: Spans) -> Iterator[Candidate]:
    """Yield what may have happened at `place` to these attempts, the simplest first.

    `hold` is what `held_at` says of them.
    """
    past = _past(attempts, place, trace_end, hold)
    if place == "egress":
        yield Candidate(Queue(hold, past), "queue")
        yield Candidate(Queue(hold, past), "drop")
        return
    unknown = _unanswered(attempts) & (past.lengths() > 0)
    if unknown.sum() > _MOST_UNANSWERED:
        return
    for slots in range(1, min(MOST_SLOTS, int(unknown.sum()) + 1) + 1):
        yield Candidate(_assumed(hold, past, unknown, slots), "queue")
    if place == "network":
        again = _sent_again(attempts, hold)
        past = _past(attempts, place, trace_end, again)
        for slots in range(1, min(MOST_SLOTS, int(unknown.sum()) + 1) + 1):
            yield Candidate(_assumed(again, past, unknown, slots), "drop")


# From where a slot is taken: for who was answered, from the end of the hold.
def _past(attempts: Table, place: str, trace_end: int, hold: Spans) -> Spans:
    whole = service(attempts, place, trace_end)
    if place == "egress":
        return whole
    start = np.where(hold.closed, np.maximum(hold.stop, whole.start), whole.start)
    return Spans(np.minimum(start, whole.stop), whole.stop, whole.closed)


def _unanswered(attempts: Table) -> Bools:
    silent = (attempts["answer"] == Answer.none) | (attempts["answer"] == Answer.icmp)
    unanswered: Bools = silent & (attempts["outcome"] != Outcome.established)
    return unanswered


# Lost SYNs: held until the one was sent that was answered.
def _sent_again(attempts: Table, hold: Spans) -> Spans:
    first, last = _ns(attempts, "wire_ns"), _ns(attempts, "wire_last_ns")
    lost = hold.closed & (attempts["wire_count"] > 1)
    lost &= _ns(attempts, "answer_ns") - last <= _round_trip(attempts) + _PROMPT_NS
    return Spans(first, np.where(lost, last, first), hold.closed)


# Who was never answered gets a slot as soon as one is free of those that are known to be taken.
def _assumed(hold: Spans, past: Spans, unknown: Bools, slots: int) -> Queue:
    start, held_until = past.start.copy(), hold.stop.copy()
    taken_from = np.where(unknown, past.stop, past.start)
    for row in np.flatnonzero(unknown)[np.argsort(past.start[unknown], kind="stable")].tolist():
        asked, given_up = int(past.start[row]), int(past.stop[row])
        near = np.flatnonzero((taken_from < given_up) & (past.stop > asked))
        start[row] = _free_from(taken_from[near], past.stop[near], (asked, given_up), slots)
        held_until[row] = taken_from[row] = start[row]
    closed = hold.closed | (unknown & (start < past.stop))
    began = np.where(unknown, past.start, hold.start)
    return Queue(
        Spans(began, np.maximum(held_until, began), closed), Spans(start, past.stop, past.closed)
    )


# The first time, within a life, at which less than all slots are taken.
def _free_from(start: Ints, stop: Ints, life: tuple[int, int], slots: int) -> int:
    now, given_up = life
    while now < given_up:
        ends = np.sort(stop[(start <= now) & (now < stop)])
        if len(ends) < slots:
            return now
        now = int(ends[len(ends) - slots])
    return given_up


def _ns(attempts: Table, mark: str) -> Ints:
    return np.asarray(attempts[mark], np.int64)
