"""Queues behind SYN_SENT: who was held on the way out, in the network, or on the way in?

The wire tells when a SYN left and when its answer came. It does not tell when somebody in
between let the SYN go on: that is reckoned here. An attempt that was answered went on one
round trip before its answer. One that was never answered is counted as let through as soon as
a slot was free, which is what a throttle would have done: so the reckoning needs the number
of slots, and every number that can be is tried.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.dropped import LATE_NS, NEVER_SENT
from porttrace.analysis.holds import HELD_NS, Queue, Spans, service, spans
from porttrace.analysis.model import Answer, Outcome, Table, resent_us

MOST_SLOTS = 16
_MOST_UNANSWERED = 2000  # reckoning costs their number times all others
_TOLD_NS = 1_200_000_000  # the first SYN has been sent again by then
_LONGEST_TRIP_NS = 700_000_000
# So long after an end a throttle that drops may see that a slot is free; it sees a connection made
# a little before the socket here does.
_NOTICED_NS = (2_000_000, LATE_NS, -2_000_000)
_PROMPT_NS = 60_000_000  # an answer so soon after the latest SYN is the answer to that one


@dataclass(frozen=True)
class Candidate:
    """One way in which the attempts may have been held; `queue` is what the test is given."""

    queue: Queue
    mechanism: str  # queue, or drop: SYNs without a slot are lost, and sent again
    slots: int = 0  # that it assumes; 0: it needs no assumption
    sent: Ints | None = None  # when all SYNs left, where that is known: `sent_ns`
    passed_over: int = 0  # times that who was held went on before somebody who had come earlier


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
    best[best > _LONGEST_TRIP_NS] = 0  # no way is so long: everybody was held
    # The shortest is seldom the one that was at hand: a release must not seem to come too early,
    # and nobody held who was not (HELD_NS).
    sure = best[where] - np.minimum(1_000_000 + best[where] // 20, HELD_NS - 2_000_000)
    return np.where(answered, np.maximum(sure, 0), 0)


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
        yield Candidate(Queue(hold, past), "drop", 0, _sent_from(attempts, hold))
        return
    unknown = _unanswered(attempts) & (past.lengths() > 0)
    if unknown.sum() > _MOST_UNANSWERED:
        return
    possible = range(1, min(MOST_SLOTS, int(unknown.sum()) + 1) + 1)
    for slots in possible:
        queue = _assumed(hold, past, unknown, slots)
        over = _passed_over(queue, past, unknown)
        yield Candidate(queue, "queue", slots, None, over)
    if place == "network":
        again = _sent_again(attempts, hold)
        past = _past(attempts, place, trace_end, again)
        sent = sent_ns(attempts)
        tries = _syns(past, unknown & ~_refuted(attempts, past, unknown), sent)
        for late_ns in _NOTICED_NS:
            for slots in possible:
                queue = _assumed_dropped(again, past, unknown, slots, tries, late_ns)
                yield Candidate(queue, "drop", slots, sent)


# From where a slot is taken: for who was answered, from the end of the hold.
def _past(attempts: Table, place: str, trace_end: int, hold: Spans) -> Spans:
    whole = service(attempts, place, trace_end)
    if place == "egress":
        return whole
    later = hold.closed
    if place == "ingress":
        # Whose answer went straight through was past this place all the time: so many may be.
        later = later & (hold.lengths() >= HELD_NS)
    start = np.where(later, np.maximum(hold.stop, whole.start), whole.start)
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


# Who was never answered gets a slot in the order of asking, as soon as one is free of those that
# are known to be taken: in a line nobody passes those who came before.
def _assumed(hold: Spans, past: Spans, unknown: Bools, slots: int) -> Queue:
    start = past.start.copy()
    taken_from = np.where(unknown, past.stop, past.start)
    asked = np.where(unknown, past.start, hold.start)
    line_ns = 0
    for row in np.argsort(asked, kind="stable").tolist():
        if unknown[row]:
            life = int(asked[row]), int(past.stop[row])
            near = np.flatnonzero((taken_from < life[1]) & (past.stop > life[0]))
            taken = taken_from[near], past.stop[near]
            start[row] = _free_from(*taken, (max(life[0], line_ns), life[1]), slots)
            taken_from[row] = start[row]
        if past.stop[row] > start[row]:
            line_ns = max(line_ns, int(start[row]))
    return _reckoned(hold, past, unknown, start)


# In a line nobody goes on before those who came earlier. Where too few slots are assumed, those
# without an answer seem to be left standing.
def _passed_over(queue: Queue, past: Spans, unknown: Bools) -> int:
    asked = np.where(unknown, past.start, queue.hold.start)
    order = np.argsort(asked, kind="stable")
    served = queue.service.lengths() > 0
    went = np.where(unknown & served, queue.service.start, 0)[order]
    latest = np.maximum.accumulate(np.concatenate([np.zeros(1, np.int64), went]))[:-1]
    mine = (queue.held() & queue.hold.closed)[order]
    return int(np.count_nonzero(mine & (queue.hold.stop[order] + _NOTICED_NS[0] < latest)))


# What is assumed of those without an answer is no evidence: they count as taking slots, and never
# as held.
def _reckoned(hold: Spans, past: Spans, unknown: Bools, start: Ints) -> Queue:
    asked = np.where(unknown, past.start, hold.start)
    known = Spans(asked, np.where(unknown, asked, hold.stop), hold.closed & ~unknown)
    return Queue(known, Spans(start, past.stop, past.closed))


# Lost SYNs make no line: whoever sends one while a slot is free has it. Who was never answered, by
# a destination that answered others meanwhile, had none; of the rest each SYN is tried in its turn.
def _assumed_dropped(
    hold: Spans, past: Spans, unknown: Bools, slots: int, tries: "_Syns", late_ns: int
) -> Queue:
    start = np.where(unknown, past.stop, past.start)
    sure = ~unknown & (past.lengths() > 0)
    begun, over = np.sort(past.start[sure]), np.sort(past.stop[sure])
    freed = np.searchsorted(over + late_ns, tries.sent, "right")
    known = np.maximum(np.searchsorted(begun, tries.sent, "right") - freed, 0)
    inside: list[int] = []  # when those end that are assumed to have a slot
    for row, sent, taken in zip(
        *(each.tolist() for each in (tries.row, tries.sent, known)), strict=True
    ):
        while inside and inside[0] + late_ns <= sent:
            heapq.heappop(inside)
        if start[row] == past.stop[row] and taken + len(inside) < slots:
            start[row] = sent
            heapq.heappush(inside, int(past.stop[row]))
    return _reckoned(hold, past, unknown, start)


@dataclass(frozen=True)
class _Syns:
    # The SYNs of those that may have had a slot without an answer, in the order of time.
    row: Ints
    sent: Ints


def _syns(past: Spans, asking: Bools, sent: Ints) -> _Syns:
    rows = np.flatnonzero(asking)
    alive = sent[rows] < past.stop[rows][:, None]
    row = np.broadcast_to(rows[:, None], alive.shape)[alive]
    times = sent[rows][alive]
    order = np.argsort(times, kind="stable")
    return _Syns(row[order], times[order])


# When each SYN was handed to the packet filter. Not every kernel tells of those that it drops.
def _sent_from(attempts: Table, hold: Spans) -> Ints | None:
    silent = (hold.lengths() > _TOLD_NS) & (attempts["retransmits"] == 0)
    if silent.any():
        return None
    sent = sent_ns(attempts)
    sent[:, 0] = hold.start
    return sent


def sent_ns(attempts: Table) -> Ints:
    """Return when each SYN of each attempt left, ns; NEVER_SENT behind the last. Shape (n, k)."""
    first, resent = _ns(attempts, "wire_ns"), resent_us(attempts).astype(np.int64)
    again = np.where(resent > 0, _ns(attempts, "syn_ns")[:, None] + 1000 * resent, NEVER_SENT)
    return np.hstack([np.where(first > 0, first, NEVER_SENT)[:, None], again])


# Whose destination answered somebody else while they were waiting in vain.
def _refuted(attempts: Table, past: Spans, unknown: Bools) -> Bools:
    where = np.unique(_addresses(attempts) * 65_537 + attempts["dport"], return_inverse=True)[1]
    answer = _ns(attempts, "answer_ns")
    refuted = np.zeros(len(where), np.bool_)
    for there in np.unique(where[unknown]).tolist():
        answers = np.sort(answer[(where == there) & (answer > 0) & ~unknown])
        mine = np.flatnonzero(unknown & (where == there))
        seen = np.searchsorted(answers, past.stop[mine]) > np.searchsorted(
            answers, past.start[mine]
        )
        refuted[mine] = seen
    return refuted


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
