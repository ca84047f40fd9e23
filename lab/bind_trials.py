"""Makes the cells of the collision matrix: `python -m porttrace.lab.bind_trials`, as root.

It leaves for a network namespace of its own first, which ends with it. Each cell has a port of its
own, since a socket in TIME_WAIT stays. Prints one JSON list: the fields of `Tried` but the cell.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from porttrace.lab.binds import ONE_V4, ONE_V6, OTHER_V4, Ask, Cell, cells

_CLONE_NEWNET = 0x40000000
_PEER_PORT = 1999
_FIRST_PORT = 2000
_CLIENT_PORTS = "50000 65000"  # beyond those of the cells
_TCP_CLOSE = 7
_PATIENCE_S = 5.0
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)

Found = tuple[int, int | None, str, int]


def main() -> int:
    """Make all cells, print what came of them, and return the exit status."""
    leave_for_own_netns()
    with _servers() as servers:
        found = [_try(cell, _FIRST_PORT + n, servers) for n, cell in enumerate(cells())]
    json.dump(found, sys.stdout)
    return 0


def leave_for_own_netns() -> None:
    """Go into a new network namespace that has nothing but addresses on its loopback device."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}")
    for words in (
        ("link", "set", "lo", "up"),
        ("addr", "add", f"{ONE_V4}/32", "dev", "lo"),
        ("addr", "add", f"{OTHER_V4}/32", "dev", "lo"),
        ("addr", "add", f"{ONE_V6}/128", "dev", "lo", "nodad"),
    ):
        subprocess.run(["ip", *words], check=True)
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(_CLIENT_PORTS)


# Servers to connect to, by address.
@contextmanager
def _servers() -> Iterator[dict[str, socket.socket]]:
    with ExitStack() as ends:
        servers = {}
        for family, address in ((socket.AF_INET, ONE_V4), (socket.AF_INET6, ONE_V6)):
            server = ends.enter_context(socket.socket(family, socket.SOCK_STREAM))
            server.bind((address, _PEER_PORT))
            server.listen()
            server.settimeout(_PATIENCE_S)
            servers[address] = server
        yield servers


def _try(cell: Cell, port: int, servers: dict[str, socket.socket]) -> Found:
    with ExitStack() as ends:
        first = _First(cell, servers, ends)
        if cell.state != "client":
            first.sock.bind((cell.first.place.address, port))
        second = ends.enter_context(make_socket(cell.protocol, cell.second))
        if cell.call == "listen" and bind_errno(second, cell.second, port):
            return port, None, cell.first.place.address, 0
        try:
            address, port = first.come_into_state()
        except OSError as error:
            return port, None, cell.first.place.address, _number(error)
        if cell.call == "listen":
            return port, errno_of(second.listen), address, 0
        return port, bind_errno(second, cell.second, port), address, 0


class _First:
    def __init__(self, cell: Cell, servers: dict[str, socket.socket], ends: ExitStack) -> None:
        self.sock = ends.enter_context(make_socket(cell.protocol, cell.first))
        self._cell = cell
        self._servers = servers
        self._ends = ends

    def come_into_state(self) -> tuple[str, int]:
        """Return the local address and port that the socket has then. Raises OSError."""
        if self._cell.state == "listening":
            self.sock.listen()
        elif self._cell.state == "accepted":
            self._accept_and_close()
        elif self._cell.state != "bound":
            self.sock.connect((self._cell.first.place.peer, _PEER_PORT))
        address, port = self.sock.getsockname()[:2]
        if self._cell.protocol == "tcp" and self._cell.state in ("connected", "client"):
            self._reset_at_the_end(self.sock, self._accepted())
        elif self._cell.state == "time_wait":
            self._close()
        return str(address), int(port)

    def _accepted(self) -> socket.socket:
        address = self.sock.getpeername()[0].removeprefix("::ffff:")
        return self._ends.enter_context(self._servers[address].accept()[0])

    # The socket is from now on the connection that a client has made to it, as with a server
    # that ends while its connections go on. Its owner is who accepts (sock_graft).
    def _accept_and_close(self) -> None:
        self.sock.listen()
        self.sock.settimeout(_PATIENCE_S)
        to = (self._cell.first.place.peer, self.sock.getsockname()[1])
        if self._cell.first.place.address == OTHER_V4:
            to = (OTHER_V4, to[1])
        client = self._ends.enter_context(socket.create_connection(to))
        with self.sock, _as_user(self._cell.first.uid):
            self.sock = self._ends.enter_context(self.sock.accept()[0])
        self._reset_at_the_end(self.sock, client)

    # Neither end of a connection that was only looked at should stay behind.
    def _reset_at_the_end(self, *ends: socket.socket) -> None:
        for sock in ends:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)

    # Who closes first gets TIME_WAIT. The kernel makes that a thing of its own when the other end
    # has closed, too; the socket itself is in CLOSE from then on (tcp_time_wait).
    def _close(self) -> None:
        with self._accepted() as peer:
            self.sock.shutdown(socket.SHUT_WR)
            peer.settimeout(_PATIENCE_S)
            peer.recv(1)  # the end of file: the FIN is here
        end_s = time.monotonic() + _PATIENCE_S
        while self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE:
            if time.monotonic() > end_s:
                raise OSError("a connection did not come into TIME_WAIT")
            time.sleep(0)
        self.sock.close()


def make_socket(protocol: str, ask: Ask) -> socket.socket:
    """Return a socket of tcp or udp with the options and the owner of `ask`, not yet bound."""
    family = socket.AF_INET6 if ":" in ask.place.address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with _as_user(ask.uid):
        sock = socket.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ask.place.v6only)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, ask.reuseaddr)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, ask.reuseport)
    return sock


# The owner of a socket is who made it (sk_uid), not who binds it.
@contextmanager
def _as_user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def bind_errno(sock: socket.socket, ask: Ask, port: int) -> int:
    """Bind a socket where `ask` says, and return the errno, 0 where it worked."""
    return errno_of(lambda: sock.bind((ask.place.address, port)))


def errno_of(call: Callable[[], None]) -> int:
    """Return the errno with which `call` fails, 0 where it works."""
    try:
        call()
    except OSError as error:
        return _number(error)
    return 0


# An error without a number is not the kernel's answer.
def _number(error: OSError) -> int:
    if error.errno is None:
        raise error
    return error.errno


if __name__ == "__main__":
    sys.exit(main())
