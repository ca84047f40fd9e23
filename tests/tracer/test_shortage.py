"""Ports, queues and tables of our own network namespace; nothing here needs root.

What is counted is told from what others do at the same time by ports of our own.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from porttrace.tracer import diag, shortage
from porttrace.tracer.facts import Listener, PortUse

_LOOPBACKS = ("127.0.0.1", "::1")


@contextlib.contextmanager
def listening(address: str = "127.0.0.1", backlog: int = 9) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip(f"{address} is not available here")
        listener.listen(backlog)
        yield listener


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def packed(text: str) -> bytes:
    address = ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


@pytest.mark.parametrize("address", _LOOPBACKS)
def test_a_listener_is_found_with_its_queue(address: str) -> None:
    with listening(address) as listener, contextlib.ExitStack() as ends:
        port = port_of(listener)
        for _ in range(4):
            ends.enter_context(socket.create_connection((address, port)))
        found, kept = shortage.listening(port, port)
        (mine,) = [each for each in found if each.shown.port == port]
        name = f"[{address}]" if ":" in address else address
        assert mine.shown == Listener(name, port, 4, 9, uid=os.getuid())
        assert mine.inode == os.fstat(listener.fileno()).st_ino
        assert kept == 1 and not mine.near()
        assert shortage.serves(packed(address), port)
        assert not shortage.serves(packed("203.0.113.77"), port)
        # less than half full: told only where somebody asks for it
        assert shortage.told([mine], frozenset()) == []
        assert shortage.told([mine], frozenset((port,))) == [mine]


def test_the_fullest_queue_comes_first() -> None:
    with listening(backlog=2) as full, listening() as empty, contextlib.ExitStack() as ends:
        for _ in range(2):
            ends.enter_context(socket.create_connection(("127.0.0.1", port_of(full))))
        found, _ = shortage.listening(0, 0)
        order = [each.shown.port for each in found]
        assert order.index(port_of(full)) < order.index(port_of(empty))
        near = [each.near() for each in found if each.shown.port == port_of(full)]
        assert near == [True]


def counted(address: str, port: int) -> PortUse:
    name = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    found = shortage.usage(1, 65535, 0, 0)
    (mine,) = [each for each in found.groups if each.destination == name]
    assert mine.source == address
    return mine


def used(address: str, port: int) -> tuple[int, int, int, float]:
    mine = counted(address, port)
    return mine.used, mine.time_wait, mine.reusable, mine.frees_in_s


@pytest.mark.parametrize("address", _LOOPBACKS)
def test_ports_are_counted_by_destination(address: str) -> None:
    with listening(address, 50) as listener, contextlib.ExitStack() as ends:
        port = port_of(listener)
        for number in range(12):
            client = socket.create_connection((address, port))
            accepted, _ = listener.accept()
            if number < 5:  # this side closes first
                client.close()
                accepted.close()
            else:
                ends.enter_context(client)
                ends.enter_context(accepted)
        taken, waiting, reusable, frees_in_s = used(address, port)
        assert (taken, waiting, reusable) == (12, 5, 0)
        assert 58 < frees_in_s <= 60


@pytest.mark.parametrize("address", _LOOPBACKS)
def test_what_only_the_other_end_keeps_is_told_from_open_connections(address: str) -> None:
    with listening(address, 50) as listener, contextlib.ExitStack() as ends:
        port = port_of(listener)
        for number in range(9):
            client = ends.enter_context(socket.create_connection((address, port)))
            ends.enter_context(listener.accept()[0])  # and never closed before the end
            if number < 4:
                client.close()
            elif number < 6:  # in FIN_WAIT2 as well, and its program reads on
                client.shutdown(socket.SHUT_WR)
        mine = counted(address, port)
        until_s = time.monotonic() + 10
        while mine.fin_wait2 < 4 and time.monotonic() < until_s:  # the last FIN is answered later
            time.sleep(0.02)
            mine = counted(address, port)
        assert (mine.used, mine.time_wait, mine.fin_wait2) == (9, 0, 4)
        assert mine.frees_in_s == -1.0 and 58 < mine.fin_wait2_ends_in_s <= 60


def test_ipv4_through_ipv6_counts_with_ipv4() -> None:
    with listening(backlog=50) as listener, contextlib.ExitStack() as ends:
        try:
            six = ends.enter_context(socket.socket(socket.AF_INET6))
        except OSError:
            pytest.skip("there is no IPv6 here")
        six.connect(("::ffff:127.0.0.1", port_of(listener)))
        ends.enter_context(socket.create_connection(("127.0.0.1", port_of(listener))))
        assert used("127.0.0.1", port_of(listener))[0] == 2


def test_the_kernel_compares_the_ports() -> None:
    with listening() as listener, contextlib.ExitStack() as ends:
        clients = [
            ends.enter_context(socket.create_connection(("127.0.0.1", port_of(listener))))
            for _ in range(3)
        ]
        one = port_of(clients[1])
        rows = list(diag.messages(socket.AF_INET, states=(diag.ESTABLISHED,), ports=(one, one)))
        at = diag.PORTS_AT
        assert {int.from_bytes(row[at : at + 2], "big") for row in rows} == {one}


def test_a_count_that_takes_too_long_says_what_it_left_out() -> None:
    assert shortage.usage(1, 65535, 0, 10**6).left_out == 0  # it was not cut
    rows = list(diag.messages(socket.AF_INET, until_s=0.0))
    assert rows == []


def test_netstat_sockstat_and_sysctls() -> None:
    counters = shortage.counters()
    assert {"ListenOverflows", "ListenDrops"} <= counters.keys()
    with listening():
        assert shortage.sockets()["inuse"] >= 1
    settings = shortage.settings()
    first, last = shortage.port_range(settings)
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    assert text.split() == [str(first), str(last)]
    assert settings["somaxconn"].isdigit() and "ip_local_reserved_ports" in settings
    assert shortage.port_range({}) == (0, 0)


def test_conntrack_is_whole_or_not_there() -> None:
    found = shortage.conntrack()
    assert not found or {"count", "max"} <= found.keys()


def test_which_addresses_are_here() -> None:
    assert shortage.is_local(packed("127.0.0.1")) and shortage.is_local(packed("127.1.2.3"))
    assert shortage.is_local(packed("::1"))
    assert not shortage.is_local(packed("203.0.113.77"))
    assert not shortage.is_local(packed("2001:db8::77"))
    assert shortage.is_loopback(packed("127.0.0.9")) and shortage.is_loopback(packed("::1"))
    assert not shortage.is_loopback(packed("192.0.2.1"))
    assert shortage.endpoint(packed("192.0.2.1"), 80) == "192.0.2.1:80"
    assert shortage.endpoint(packed("2001:db8::1"), 80) == "[2001:db8::1]:80"
