"""A held thread that went on is held no more."""

import pytest

from builders import MS, S, events, packed
from porttrace.analysis.held import still_held
from porttrace.tracer.event import no_events
from porttrace.tracer.facts import Held


def held(tid: int, since_ns: int, place: str = "gate") -> Held:
    return Held(7, tid, place, since_ns, "web", packed("192.0.2.2"), 80, ())


def test_who_went_on_is_left_out() -> None:
    table = events().connect(tid=8, at=3 * S, held_ns=S).syn_sent().array()
    waits = held(9, 2 * S)
    assert still_held([held(8, 2 * S), waits], table) == [waits]


def test_inside_the_call() -> None:
    table = events().connect(tid=8, at=3 * S).syn_sent(after_ns=50 * MS).array()
    assert still_held([held(8, 3 * S, "connect")], table) == []


def test_another_hold_of_the_same_thread_says_nothing() -> None:
    table = events().connect(tid=8, at=3 * S, held_ns=S).syn_sent().array()
    later = held(8, 4 * S)
    assert still_held([later], table) == [later]


@pytest.mark.parametrize("many", [0, 3])
def test_of_nothing(many: int) -> None:
    waiting = [held(tid, S) for tid in range(many)]
    assert still_held(waiting, no_events()) == waiting
