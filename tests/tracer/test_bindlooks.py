"""Looking into failed calls: what is alike shares a look, and nothing is without a bound."""

import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from binding import call
from builders import S
from porttrace.tracer import bindlooks
from porttrace.tracer.bindfacts import Failure, look_into
from porttrace.tracer.bindlooks import MOST_KEYS, MOST_KINDS, Lookups, alike
from porttrace.tracer.event import Events, no_events
from porttrace.tracer.facts import Looked

OURS = os.stat("/proc/self/ns/net").st_ino


def never(tid: int) -> int:
    """Say of every thread that it did not move."""
    return 0


class Bell:
    """A buffer that gives these rounds, one a read."""

    def __init__(self, *rounds: Events) -> None:
        self.rounds, self.closed = list(rounds), False

    def wait(self, timeout_ms: int) -> bool:
        time.sleep(0.001)
        return bool(self.rounds)

    def wake(self) -> None:
        pass

    def read(self) -> Events:
        return self.rounds.pop(0) if self.rounds else no_events()

    def close(self) -> None:
        self.closed = True


def failures(number: int, **how: Any) -> Events:
    return np.concatenate(
        [
            call(at=S + n, error=errno.EADDRINUSE, pid=os.getpid(), netns=OURS, **how)
            for n in range(number)
        ]
    )


def looked(*rounds: Events) -> list[Looked]:
    bell = Bell(*rounds)
    lookups = Lookups(bell)  # type: ignore[arg-type]
    while bell.rounds:
        time.sleep(0.005)
    lookups.stop()
    assert bell.closed
    return list(lookups.taken())


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_what_is_alike_is_one() -> None:
    events = np.concatenate([failures(3), failures(2, to="[::1]:443", protocol="udp")])
    events["pid"][3:], events["peer_pid"][3:] = 2**22 + 1, 5
    (one, two), (keys, more) = zip(*alike(events, never).items(), strict=True)
    assert (one.protocol, one.address, one.port, one.errno) == ("tcp", "0.0.0.0", 80, 98)
    assert (two.protocol, two.address, two.port, two.netns) == ("udp", "::1", 443, 5)
    assert keys == [(S, os.getpid()), (S + 1, os.getpid()), (S + 2, os.getpid())] and len(more) == 2


def test_a_real_holder_is_found(server: socket.socket) -> None:
    port = server.getsockname()[1]
    (found,) = looked(failures(1, to=f"127.0.0.1:{port}"))
    assert found.keys == ((S, os.getpid()),)
    assert [(each.kind, each.pid, each.port) for each in found.holders] == [
        ("listener", os.getpid(), port)
    ]
    assert found.facts["range_first"] > 0  # type: ignore[operator]


def test_a_look_answers_so_many_and_no_more() -> None:
    (found,) = looked(failures(MOST_KEYS + 10))
    assert len(found.keys) == MOST_KEYS


def test_so_many_kinds_are_looked_into_at_once() -> None:
    events = np.concatenate([failures(1, to=f"127.0.0.1:{n}") for n in range(1, MOST_KINDS + 9)])
    assert len(looked(events)) == MOST_KINDS


def test_alike_calls_soon_after_share_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Failure] = []

    def look(failure: Failure, *_: object) -> Any:
        seen.append(failure)
        return (), {}

    monkeypatch.setattr(bindlooks, "look_into", look)
    assert len(looked(failures(1), failures(1), failures(1))) == 3
    assert len(seen) == 1


def test_a_look_that_fails_is_told_and_the_next_one_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look(failure: Failure, *_: object) -> Any:
        if failure.port == 80:
            raise PermissionError(1, "Operation not permitted")
        return (), {}

    monkeypatch.setattr(bindlooks, "look_into", look)
    one, two = looked(failures(1), failures(1, to="127.0.0.1:81"))
    assert "Operation not permitted" in one.holders[0].why and two.holders == ()


def failed(number: int, **how: Any) -> Failure:
    values = {"pid": os.getpid(), "protocol": "tcp", "address": "127.0.0.1", "port": 80,
              "netns": OURS, **how}  # fmt: skip
    return Failure(errno=number, **values)


def test_facts_of_a_denied_port() -> None:
    holders, facts = look_into(failed(errno.EACCES))
    assert holders == ()
    assert facts["may_bind_low"] == int(os.geteuid() == 0) and facts["unprivileged_from"] == 1024
    assert facts["exe"] == os.readlink("/proc/self/exe")


def test_facts_of_an_address() -> None:
    here, there = (
        look_into(failed(errno.EADDRNOTAVAIL, address=address))[1]
        for address in ("127.0.0.1", "192.0.2.77")
    )
    assert (here["address_is_local"], there["address_is_local"]) == (1, 0)
    assert here["nonlocal_bind"] == 0


def test_who_is_gone_is_looked_for_where_the_kernel_saw_it(server: socket.socket) -> None:
    gone, port = 2**22 + 1, server.getsockname()[1]
    (found,), facts = look_into(failed(errno.EADDRINUSE, pid=gone, port=port))
    assert (found.kind, found.pid) == ("listener", os.getpid())
    assert (facts["netns"], facts["own_netns"]) == (OURS, 1) and "netns_by" not in facts


@pytest.mark.parametrize(("netns", "by"), [(0, "unknown"), (1, "closed")])
def test_no_holder_is_taken_from_a_guessed_namespace(
    server: socket.socket, netns: int, by: str
) -> None:
    # GIVEN a listener of ours on the port, and a failure in a namespace that nobody can tell
    port = server.getsockname()[1]
    failure = failed(errno.EADDRINUSE, pid=2**22 + 1, netns=netns, port=port)
    # THEN the listener is not accused
    (found,), facts = look_into(failure)
    assert (found.kind, found.pid, facts["netns_by"]) == ("unknown", 0, by)
    assert "network namespace" in found.why and "/proc" not in found.why


def test_the_kernels_number_counts_before_all_others() -> None:
    events = failures(1)
    events["peer_pid"] = 4026531999
    (failure,) = alike(events, never)
    assert failure.netns == 4026531999


def test_without_btf_it_is_that_of_the_thread_while_it_is_there() -> None:
    # GIVEN a failure of which the kernel did not tell the namespace
    events = failures(1)
    events["peer_pid"], events["tid"] = 0, threading.get_native_id()
    (failure,) = alike(events, never)
    assert failure.netns == os.stat("/proc/thread-self/ns/net").st_ino
    # THEN one of a thread that is gone is in none that is known, though its process is still there
    events["tid"] = 2**22 + 1
    (failure,) = alike(events, never)
    assert failure.netns == 0


@pytest.mark.parametrize(("moved_ns", "known"), [(0, True), (S - 9_000, True), (S, False)])
def test_without_btf_a_thread_that_went_elsewhere_since_is_not_believed(
    moved_ns: int, known: bool
) -> None:
    events = failures(1)  # the call was entered 4 us before S
    events["peer_pid"], events["tid"] = 0, threading.get_native_id()
    (failure,) = alike(events, lambda tid: moved_ns)
    assert bool(failure.netns) == known


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace of its own takes root")
def test_without_btf_a_thread_that_moved_is_where_it_is_now() -> None:
    # GIVEN a thread in a network namespace of its own, whose process is elsewhere
    seen: list[int] = []

    def moved() -> None:
        assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
        events = failures(1)
        events["peer_pid"], events["tid"] = 0, threading.get_native_id()
        (failure,) = alike(events, never)
        seen.extend((os.stat("/proc/thread-self/ns/net").st_ino, failure.netns))

    thread = threading.Thread(target=moved)
    thread.start()
    thread.join()
    # THEN that is the one which is looked into, not the process's
    assert seen[0] == seen[1] != OURS
