"""A copy of a real descriptor tells what bind(2) does not: port, protocol, options."""

import os
import socket
from typing import Any

import numpy as np
import pytest

from binding import call
from porttrace.tracer.asking import ask, options_of
from porttrace.tracer.event import Events


def asked(sock: socket.socket, to: str, **how: Any) -> Events:
    """Return the record of a call on `sock` of our own, after the asking."""
    values = {"pid": os.getpid(), "fd": sock.fileno(), "known": 0, "protocol": "", "got": 0, **how}
    event = call(to=to, **values)
    ask(event)
    return event


def told(event: Events) -> tuple[int, int, int, int]:
    """Return port got, protocol, options and which of them are known."""
    return tuple(int(event[name][0]) for name in ("dport", "newstate", "answer", "answers"))  # type: ignore[return-value]


def test_port_protocol_and_options() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::1", 0))
        assert told(asked(sock, "[::1]:0")) == (sock.getsockname()[1], 17, 1 | 4, 31)


@pytest.mark.parametrize(
    ("level", "name", "bit"),
    [
        (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
        (socket.SOL_SOCKET, socket.SO_REUSEPORT, 2),
        (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 4),
        (socket.IPPROTO_IP, 15, 8),
        (socket.IPPROTO_IP, 24, 16),
    ],
)
def test_each_option(level: int, name: int, bit: int) -> None:
    with socket.socket(socket.AF_INET6) as sock:
        assert options_of(sock) == 0
        sock.setsockopt(level, name, 1)
        assert options_of(sock) == bit


def test_what_is_known_is_not_asked_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        event = asked(sock, f"127.0.0.1:{port}", got=port, known=31, protocol="tcp")
        assert told(event) == (port, 6, 0, 31)  # SO_REUSEADDR is on by now, and was not at the call


@pytest.mark.parametrize("to", ["127.0.0.2:0", "127.0.0.1:9"])
def test_another_socket_of_the_same_number_is_told_by_its_address(to: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert told(asked(sock, to)) == (0, 0, 0, 0)


def test_another_protocol_is_another_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert told(asked(sock, "127.0.0.1:0", protocol="udp")) == (0, 17, 0, 0)


def test_what_is_no_socket_of_ours_stays_unknown() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert told(asked(sock, "127.0.0.1:0")) == (0, 0, 0, 0)
    with open(os.devnull) as file:
        event = call(to="127.0.0.1:0", pid=os.getpid(), fd=file.fileno(), got=0, known=0)
    ask(event)  # closed
    assert event["dport"][0] == 0
    ask(call(to="127.0.0.1:0", pid=2**22 + 1, got=0))  # no such process


def test_asking_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        one = call(to="127.0.0.1:0", pid=os.getpid(), fd=sock.fileno(), got=0)
        many = np.concatenate([one] * 50)
        ask(many, within_s=-1)
        assert not many["dport"].any()
        ask(many, within_s=5)
        assert many["dport"].all()


def test_options_of_a_call_that_failed_are_asked_too() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert told(asked(sock, "127.0.0.1:80", error=98)) == (0, 6, 1, 31)
