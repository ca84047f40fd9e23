"""The gate's book-keeping, without a kernel: order, limits, and threads that vanish."""

from __future__ import annotations

from porttrace.lab.throttles.notify import Notification
from porttrace.lab.throttles.slots import Flight, SlotBook
from porttrace.lab.throttles.target import Call


def call(tid: int, inode: int, ident: int | None = None) -> Call:
    notification = Notification(tid if ident is None else ident, tid, 42, 3, 0, 16)
    return Call(notification, pid=1, uid=0, inode=inode, family=2, destination=b"", cpu_ns=0)


class Kernel:
    """Stands for the kernel: what was let go, in order, and which calls are gone."""

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.went: list[int] = []

    def let_go(self, call: Call) -> bool:
        if call.notification.id in self.gone:
            return False
        self.went.append(call.notification.id)
        return True


def test_only_as_many_as_slots_go_and_the_rest_in_order() -> None:
    kernel = Kernel()
    book = SlotBook(2, kernel.let_go)
    for number in range(1, 6):
        book.ask("p", call(number, number))
    assert kernel.went == [1, 2]
    book.sweep(lambda flight: flight.call.inode == 1)
    assert kernel.went == [1, 2, 3]
    book.sweep(lambda flight: True)
    assert kernel.went == [1, 2, 3, 4, 5]
    book.sweep(lambda flight: True)
    assert not book.busy()


def test_scopes_do_not_hold_each_other() -> None:
    kernel = Kernel()
    book = SlotBook(1, kernel.let_go)
    book.ask("p", call(1, 1))
    book.ask("q", call(2, 2))
    assert kernel.went == [1, 2]


def test_a_held_call_that_is_gone_takes_no_slot() -> None:
    kernel = Kernel()
    book = SlotBook(1, kernel.let_go)
    for number in (1, 2, 3):
        book.ask("p", call(number, number))
    kernel.gone.add(2)
    book.sweep(lambda flight: True)
    assert kernel.went == [1, 3]
    assert book.in_flight("p") == 1


def test_a_scope_whose_only_call_is_gone_is_not_busy() -> None:
    kernel = Kernel()
    kernel.gone.add(1)
    book = SlotBook(1, kernel.let_go)
    book.ask("p", call(1, 1))
    assert not book.busy() and book.in_flight("p") == 0


def test_an_interrupted_thread_keeps_its_place() -> None:
    kernel = Kernel()
    book = SlotBook(1, kernel.let_go)
    for number in (1, 2, 3):
        book.ask("p", call(number, number))
    book.ask("p", call(2, 2, ident=22))
    book.sweep(lambda flight: True)
    assert kernel.went == [1, 22]


def test_a_second_connect_on_a_socket_in_flight_is_the_same_attempt() -> None:
    kernel = Kernel()
    book = SlotBook(1, kernel.let_go)
    book.ask("p", call(1, 7))
    book.ask("p", call(1, 7, ident=11))
    assert kernel.went == [1, 11]
    assert book.in_flight("p") == 1


def test_a_thread_that_calls_again_has_left_its_call_before() -> None:
    seen: list[bool] = []

    def note(flight: Flight) -> bool:
        seen.append(flight.returned)
        return False

    book = SlotBook(1, Kernel().let_go)
    book.ask("p", call(1, 1))
    book.ask("p", call(1, 2))
    book.sweep(note)
    assert seen == [True]
