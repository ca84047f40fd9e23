"""What a dump is made of; test_shortage and ports find real sockets by it."""

import os
import socket

import pytest

from porttrace.tracer import diag

LOCAL = "127.0.0.1"


def test_every_message_is_one_socket() -> None:
    with socket.create_server((LOCAL, 0)) as listener:
        rows = list(diag.messages(socket.AF_INET, states=(diag.LISTEN,)))
        sizes = [int.from_bytes(row[:4], "little") for row in rows]
        assert sizes == [len(row) for row in rows]
        fields = [diag.SOCKET.unpack_from(row, diag.SOCKET_AT) for row in rows]
        assert {(family, state) for family, state, *_ in fields} == {(socket.AF_INET, diag.LISTEN)}
        inode = os.fstat(listener.fileno()).st_ino
        (mine,) = [each for each in fields if each[-1] == inode]
        assert socket.ntohs(mine[4]) == listener.getsockname()[1]
        assert mine[6][:4] == socket.inet_aton(LOCAL)


def test_where_the_parts_of_a_message_are() -> None:
    with socket.create_server((LOCAL, 0)) as listener:
        port = listener.getsockname()[1]
        (row,) = diag.messages(socket.AF_INET, states=(diag.LISTEN,), port=port)
    assert row[diag.STATE_AT] == diag.LISTEN
    assert row[diag.PORTS_AT : diag.PORTS_AT + 4] == port.to_bytes(2, "big") + bytes(2)
    assert row[diag.ADDRESSES_AT : diag.ADDRESSES_AT + 4] == socket.inet_aton(LOCAL)
    assert row[diag.EXPIRES_AT : diag.EXPIRES_AT + 4] == bytes(4)


def test_attributes_that_are_asked_for() -> None:
    with socket.create_server((LOCAL, 0)) as listener:
        port = listener.getsockname()[1]
        (plain,) = diag.messages(socket.AF_INET, states=(diag.LISTEN,), port=port)
        (more,) = diag.messages(socket.AF_INET, states=(diag.LISTEN,), port=port, info=True)
    assert diag.INFO not in dict(diag.attributes(plain))
    assert dict(diag.attributes(more))[diag.INFO][0] == diag.LISTEN  # tcpi_state


def test_what_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError) as error:
        list(diag.messages(socket.AF_INET, protocol=255))
    assert error.value.errno and error.value.strerror == os.strerror(error.value.errno)


def test_one_socket_by_its_ends_and_cookie() -> None:
    with (
        socket.create_server((LOCAL, 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        diag.opened() as netlink,
    ):
        port = client.getsockname()[1]
        (row,) = diag.messages(socket.AF_INET, states=(diag.ESTABLISHED,), port=port)
        ends, cookie = row[diag.PORTS_AT : diag.PORTS_AT + 36], row[diag.COOKIE_AT :][:8]
        for named in (diag.ANY_COOKIE, cookie):
            found = diag.one(netlink, socket.AF_INET, ends, named)
            assert found and diag.SOCKET.unpack_from(found, diag.SOCKET_AT)[-1] == (
                os.fstat(client.fileno()).st_ino
            )
        assert diag.one(netlink, socket.AF_INET, ends, bytes(7) + b"\1") is None
        assert diag.one(netlink, socket.AF_INET, ends[:2] + bytes(34)) is None
