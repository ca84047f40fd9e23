"""Where in the way of a connect an attempt stood still, and for how long.

A hold lies between two neighbouring marks. A place is what lies between them: `user` code before
the call, the `gate` at the entry of the call, the kernel's `connect` before SYN_SENT, `egress`
until the SYN is on the wire, the `network` until an answer is, `ingress` until the socket has it,
and the `return` to the program. `beyond` is all from SYN_SENT to the outcome: where the wire was
not watched, its parts are not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.model import Answer, Origin, Outcome, Table

PLACES = ("user", "gate", "connect", "beyond", "egress", "network", "ingress", "return")
ON_THE_WAY = ("egress", "network", "ingress")
"""The places behind SYN_SENT that only the wire tells apart."""
HOLDS = ("gate", "connect", "egress", "ingress")
"""Places on this host at which the kernel, or what hooks into it, holds an attempt."""
HELD_NS = 10_000_000
"""A shorter wait is no hold: schedulers and tracers of system calls cost as much."""


_BY_THE_PEER = (Outcome.established, Outcome.refused, Outcome.reset)


@dataclass(frozen=True)
class Spans:
    """One interval an attempt, ns; `closed` is False where it never properly ended.

    Rows that have no such interval have start == stop.
    """

    start: Ints
    stop: Ints
    closed: Bools

    def lengths(self) -> Ints:
        """Return the length of each interval, ns."""
        return self.stop - self.start


@dataclass(frozen=True)
class Queue:
    """The attempts of one group at one place: when each was held there and when past it."""

    hold: Spans
    service: Spans

    def held(self) -> Bools:
        """Tell which attempts were held long enough to count."""
        return self.hold.lengths() >= HELD_NS


def spans(attempts: Table, place: str, trace_end: int) -> Spans:
    """Return when each attempt stood at `place`; `closed` where it went on from there."""
    before, after = {
        "user": ("sleep_ns", "call_ns"),
        "gate": ("gate_ns", "call_ns"),
        "connect": ("call_ns", "syn_ns"),
        "beyond": ("syn_ns", "end_ns"),
        "egress": ("syn_ns", "wire_ns"),
        "network": ("wire_ns", "answer_ns"),
        "ingress": ("answer_ns", "end_ns"),
        "return": ("end_ns", "return_ns"),
    }[place]
    start, stop = _times(attempts, before), _times(attempts, after)
    there, left = start > 0, stop > 0
    if place == "user":
        # Only a wait that ends with the call itself can be the wait for permission to call.
        there &= (attempts["gate_ns"] == 0) & left
    if place == "egress":
        # Answered, and not seen to leave: it went under addresses that could not be matched.
        told = np.isin(attempts["outcome"], _BY_THE_PEER)
        # What is under way tells of the wire only when its SYN is sent again, after a second.
        unknown = (attempts["outcome"] == Outcome.pending) & (attempts["retransmits"] == 0)
        there &= attempts["watched"] & (left | ~(told | unknown))
    if place == "network":
        # An ICMP error may be ignored: it is no answer unless it ended the attempt.
        left &= attempts["answer"] != Answer.icmp
    if place == "ingress":
        there &= attempts["answer"] != Answer.icmp
    if place == "return":
        there &= left & (attempts["blocking"] == 1)
    stop = np.where(left, stop, _given_up_ns(attempts, trace_end))
    stop = np.where(there, np.maximum(stop, start), start)
    return Spans(start, stop, there & left)


# Those that never got to the next mark stood there until they ended, or still stand there.
def _given_up_ns(attempts: Table, trace_end: int) -> Ints:
    pending = attempts["outcome"] == Outcome.pending
    return np.where(pending, trace_end, _times(attempts, "end_ns"))


def waits(attempts: Table, trace_end: int) -> dict[str, Ints]:
    """Return for each of `PLACES` how long each attempt stood there, ns."""
    return {place: spans(attempts, place, trace_end).lengths() for place in PLACES}


def held(attempts: Table, trace_end: int) -> tuple[Ints, Ints]:
    """Return how long each attempt was held at `HOLDS` in all (ns), and `longest` of these."""
    lengths = [spans(attempts, place, trace_end).lengths() for place in HOLDS]
    total: Ints = np.sum(lengths, axis=0)
    return total, longest(lengths)


def longest(lengths: Sequence[Ints]) -> Ints:
    """Return which of `HOLDS` held each attempt longest (its index), -1: none for `HELD_NS`.

    `lengths` are ns, in the order of `HOLDS`.
    """
    most = np.max(lengths, axis=0)
    return np.where(most >= HELD_NS, np.argmax(lengths, axis=0), -1)


def service(attempts: Table, place: str, trace_end: int) -> Spans:
    """Return when each attempt was past `place` and not over; `closed` where its end is known.

    That is the time during which a throttle at `place` counts it as one of its slots. A library
    in user space sees a blocking call end when it returns, not when the socket changes its state.
    """
    call, syn = _times(attempts, "call_ns"), _times(attempts, "syn_ns")
    if place == "egress":
        start = _times(attempts, "wire_ns")
    elif place in ("connect", *ON_THE_WAY):
        start = syn
    else:
        start = np.where(call > 0, call, syn)
    end, returned = _times(attempts, "end_ns"), _times(attempts, "return_ns")
    end = np.where(end > 0, end, returned)
    if place == "user":
        end = np.where(attempts["blocking"] != 0, np.maximum(end, returned), end)
    pending = attempts["outcome"] == Outcome.pending
    # A seeded socket was on its way before the trace began.
    start = np.where((attempts["origin"] == Origin.seeded) & (start == 0), 1, start)
    past = start > 0
    stop = np.where(pending, trace_end, end)
    stop = np.where(past, np.maximum(stop, start), start)
    return Spans(start, stop, past & ~pending & (end > 0))


def _times(attempts: Table, mark: str) -> Ints:
    return np.asarray(attempts[mark], np.int64)
