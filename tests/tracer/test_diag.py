"""What a dump is made of; that it finds real sockets stands in test_shortage."""

import socket

import pytest

from porttrace.tracer import diag


def test_every_message_is_one_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rows = list(diag.dump(socket.AF_INET, diag.LISTEN))
        sizes = [int.from_bytes(row[:4], "little") for row in rows]
        assert sizes == [len(row) for row in rows]
        fields = [diag.ROW.unpack_from(row, diag.MESSAGE) for row in rows]
        assert {(family, state) for family, state, *_ in fields} == {(socket.AF_INET, 10)}
        assert listener.getsockname()[1] in [port for _, _, _, _, port, *_ in fields]


def test_what_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError):
        list(diag.dump(socket.AF_INET, diag.LISTEN, protocol=255))
