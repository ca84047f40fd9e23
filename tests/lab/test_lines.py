"""The lines of a throttle of packets, without a kernel: who goes, who waits, who is forgotten."""

from __future__ import annotations

import pytest

from porttrace.lab.throttles.lines import Attempt, Limit, Lines, Pace, Slots
from porttrace.lab.throttles.segment import Ends

NOWHERE = Ends(2, b"", 0, b"", 0)


class Book:
    """Lines whose attempts end when told."""

    def __init__(self, limit: Limit) -> None:
        self.ended: set[bytes] = set()
        self.lines = Lines(limit, lambda attempt: attempt.cookie in self.ended)

    def enter(self, cookie: bytes, scope: str = "p", at_ns: int = 0, wait: bool = True) -> Attempt:
        attempt = Attempt(NOWHERE, cookie, scope)
        self.lines.enter(attempt, at_ns, wait)
        return attempt

    def sweep(self, at_ns: int = 0) -> tuple[list[bytes], list[bytes]]:
        gone, ended = self.lines.sweep(at_ns)
        return [attempt.cookie for attempt in gone], [attempt.cookie for attempt in ended]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_slots_are_filled_and_the_rest_waits_in_order(slots: int) -> None:
    book = Book(Slots(slots))
    attempts = [book.enter(bytes([n])) for n in range(5)]
    assert [attempt.going for attempt in attempts] == [n < slots for n in range(5)]
    assert book.sweep() == ([], [])
    book.ended.add(b"\0")
    assert book.sweep() == ([bytes([slots])], [])
    assert book.lines.waiting() is (slots < 4)


def test_one_that_ended_while_it_waited_takes_no_slot() -> None:
    book = Book(Slots(1))
    for cookie in (b"a", b"b", b"c"):
        book.enter(cookie)
    book.ended |= {b"a", b"b"}
    assert book.sweep() == ([b"c"], [b"b"])
    assert book.lines.find(b"b") is None and book.lines.find(b"c") is not None


def test_scopes_do_not_hold_each_other() -> None:
    book = Book(Slots(1))
    assert book.enter(b"a", "p").going and book.enter(b"b", "q").going
    assert not book.enter(b"c", "p").going


def test_without_a_line_one_is_forgotten_and_may_come_again() -> None:
    book = Book(Slots(1))
    book.enter(b"a")
    assert not book.enter(b"b", wait=False).going
    assert book.lines.find(b"b") is None
    book.ended.add(b"a")
    assert book.enter(b"b", wait=False).going


def test_nobody_overtakes_the_line() -> None:
    book = Book(Slots(1))
    book.enter(b"a")
    book.enter(b"b")
    book.ended.add(b"a")
    assert not book.enter(b"c").going
    assert book.sweep() == ([b"b"], [])


def test_a_pace_counts_time_and_not_ends() -> None:
    book = Book(Pace(100))
    assert book.enter(b"a", at_ns=1000).going
    book.ended.add(b"a")
    assert not book.enter(b"b", at_ns=1099).going
    book.enter(b"c", at_ns=1099)
    assert book.sweep(1099) == ([], [])
    assert book.sweep(1100) == ([b"b"], [])
    assert book.sweep(1199) == ([], [])
    assert book.sweep(1250) == ([b"c"], [])


def test_all_that_is_over_is_forgotten() -> None:
    book = Book(Slots(2))
    for cookie in (b"a", b"b"):
        book.enter(cookie)
    assert book.lines.busy()
    book.ended |= {b"a", b"b"}
    book.sweep()
    assert not book.lines.busy()
