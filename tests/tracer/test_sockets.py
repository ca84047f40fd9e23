"""sock_diag is asked about real sockets of our own; nothing here needs root."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from porttrace.tracer.sockets import connecting, owners


@dataclass(frozen=True)
class Stuck:
    """A connect that hangs in SYN_SENT: the listener's queue is full and drops its SYN."""

    sock: socket.socket
    port: int


@pytest.fixture(params=["127.0.0.1", "::1"])
def stuck(request: pytest.FixtureRequest) -> Iterator[Stuck]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.socket(family))
            listener.bind((request.param, 0))
        except OSError:
            pytest.skip(f"{request.param} is not available here")
        listener.listen(0)
        port = listener.getsockname()[1]
        clients = [stack.enter_context(socket.socket(family)) for _ in range(8)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((request.param, port))
        yield Stuck(clients[-1], port)


def test_what_hangs_in_syn_sent_is_found(stuck: Stuck) -> None:
    local, port = stuck.sock.getsockname()[:2]
    (found,) = [each for each in connecting() if (each.sport, each.dport) == (port, stuck.port)]
    assert (found.family, found.uid) == (stuck.sock.family, os.getuid())
    assert found.inode == os.fstat(stuck.sock.fileno()).st_ino
    assert len(found.saddr) == len(found.daddr) == 16
    address = ip_address(local)
    assert found.saddr.endswith(address.packed)
    if address.version == 4:
        assert found.saddr[:12] == bytes(10) + b"\xff\xff"


def test_an_established_socket_is_not_connecting() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        sport = client.getsockname()[1]
        assert sport not in [each.sport for each in connecting()]


def test_sockets_have_owners() -> None:
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        assert owners({inode}, frozenset((os.getpid(),))) == {inode: os.getpid()}
        assert owners({inode}, frozenset()) == {inode: os.getpid()}
        assert owners({inode}, frozenset((2**22 + 1,))) == {}
    assert owners({inode}, frozenset((os.getpid(),))) == {}
