"""Waits by place, for attempts that went on, ended, or still stand there."""

import numpy as np

from porttrace.analysis.holds import HELD_NS, HOLDS, held, service, spans, waits
from porttrace.analysis.model import ATTEMPT, Answer, Attempts, Origin, Outcome

from .simulate import Client, row

END = 1000


def one(outcome: Outcome = Outcome.established, **marks: int) -> Attempts:
    """Return one attempt with these marks."""
    return np.array([row(1, Client(1, 1), marks, outcome)], ATTEMPT)


def waited(table: Attempts) -> dict[str, int]:
    """Return the waits of one attempt that are not zero."""
    return {place: int(ns[0]) for place, ns in waits(table, END).items() if ns[0]}


def test_each_place_lies_between_its_marks() -> None:
    table = one(gate_ns=10, call_ns=30, syn_ns=70, end_ns=150, return_ns=151)
    assert waited(table) == {"gate": 20, "connect": 40, "beyond": 80, "return": 1}
    assert waited(one(sleep_ns=5, call_ns=30, syn_ns=31, end_ns=40))["user"] == 25


def test_holds_on_this_host_are_added_up_and_the_longest_names_the_place() -> None:
    ms = HELD_NS // 10
    marks = {"gate_ns": ms, "call_ns": 21 * ms, "syn_ns": 22 * ms, "wire_ns": 72 * ms,
             "answer_ns": 900 * ms, "end_ns": 930 * ms}  # fmt: skip
    table = np.array([row(1, Client(1, 1), marks, Outcome.established)], ATTEMPT)
    table["watched"], table["answer"] = True, Answer.syn_ack
    # gate 20 ms, connect 1, egress 50, ingress 30: the network's 828 are no hold
    assert [int(each[0]) for each in held(table, END)] == [101 * ms, HOLDS.index("egress")]
    short = one(call_ns=ms, syn_ns=2 * ms, end_ns=900 * ms)
    assert [int(each[0]) for each in held(short, END)] == [ms, -1]


def test_a_sleep_before_a_gate_is_not_a_hold_of_its_own() -> None:
    assert "user" not in waited(one(sleep_ns=5, gate_ns=10, call_ns=30, syn_ns=31, end_ns=40))


def test_who_still_waits_waits_until_the_trace_ends() -> None:
    held = one(Outcome.pending, gate_ns=10)
    assert waited(held) == {"gate": 990}
    assert not spans(held, "gate", END).closed[0]
    assert waited(one(Outcome.pending, call_ns=10)) == {"connect": 990}
    assert waited(one(Outcome.pending, call_ns=10, syn_ns=11)) == {"connect": 1, "beyond": 989}


def test_a_call_that_failed_before_its_syn_waited_but_was_never_in_service() -> None:
    denied = one(Outcome.denied, call_ns=10, end_ns=60, return_ns=61)
    assert waited(denied) == {"connect": 50, "return": 1}
    assert service(denied, "connect", END).lengths()[0] == 0
    assert service(denied, "gate", END).lengths()[0] == 50


def test_service_ends_with_the_socket_or_for_a_library_with_the_call() -> None:
    table = one(call_ns=10, syn_ns=12, end_ns=100, return_ns=130)
    assert [int(service(table, p, END).lengths()[0]) for p in ("gate", "connect", "user")] == [
        90,
        88,
        120,
    ]


def test_unknown_and_seeded_rows() -> None:
    unknown = service(one(Outcome.unknown, call_ns=10, syn_ns=12), "gate", END)
    assert (int(unknown.lengths()[0]), bool(unknown.closed[0])) == (0, False)
    seeded = one(end_ns=50)
    seeded["origin"] = Origin.seeded
    assert service(seeded, "gate", END).stop[0] == 50
    assert service(seeded, "gate", END).lengths()[0] > 0
