"""What only a socket itself tells: its options, and the port of one that sock_diag does not list.

The descriptor of another process is copied for as long as getsockopt(2) takes (pidfd_getfd, Linux
5.6), which needs the right to trace that process. Nothing is sent, received or changed; but for
that moment the port stays taken when its owner closes it: see Look.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from porttrace.tracer.diag import BOUND
from porttrace.tracer.ports.owners import Descriptor, sockets_of_all
from porttrace.tracer.ports.socks import Sock

_PIDFD_GETFD = 438  # the same on every architecture
_SO_BINDTODEVICE = 25
_SIOCGSKNS = 0x894C  # <linux/sockios.h>: the network namespace of a socket


@dataclass(frozen=True)
class Options:
    """Options of a socket that decide with whom it shares its port."""

    reuseaddr: bool
    reuseport: bool
    device: str = ""  # SO_BINDTODEVICE


def options(of: Descriptor) -> Options | None:
    """Return the options of a socket of another process; None where that is not permitted."""
    with contextlib.suppress(OSError), _copied(of) as sock:
        device = sock.getsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, 16)
        return Options(
            bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)),
            bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)),
            os.fsdecode(device.rstrip(b"\0")),
        )
    return None


@contextlib.contextmanager
def _copied(of: Descriptor) -> Iterator[socket.socket]:
    process = os.pidfd_open(of.pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        copy = libc.syscall(_PIDFD_GETFD, process, of.fd, 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(process)
    # Without family and protocol Python asks the descriptor for them.
    with socket.socket(fileno=copy) as sock:
        yield sock


def unlisted(port: int, known: frozenset[int], netns: int) -> list[tuple[Sock, Descriptor]]:
    """Return the TCP sockets bound to `port` that sock_diag did not list, by asking each socket.

    For kernels before 6.8, which do not list sockets that are bound only. `known` are the inodes
    that were listed, `netns` is the network namespace that counts. Processes that may not be looked
    into are left out.
    """
    found: dict[int, tuple[Sock, Descriptor]] = {}
    for descriptor, inode in sockets_of_all():
        if inode not in known and inode not in found and _is_tcp(descriptor):
            with contextlib.suppress(OSError), _copied(descriptor) as sock:
                name = sock.getsockname()
                if name[1] == port and _netns(sock) == netns:
                    found[inode] = _idle(sock, inode), descriptor
    return list(found.values())


def _is_tcp(of: Descriptor) -> bool:
    # The name of the protocol, without touching the socket itself: cheap enough for all of them.
    with contextlib.suppress(OSError):
        return os.getxattr(f"/proc/{of.pid}/fd/{of.fd}", "system.sockprotoname")[:3] == b"TCP"
    return False


def _netns(sock: socket.socket) -> int:
    handle = fcntl.ioctl(sock, _SIOCGSKNS)
    try:
        return os.fstat(handle).st_ino
    finally:
        os.close(handle)


def _idle(sock: socket.socket, inode: int) -> Sock:
    six = sock.family == socket.AF_INET6
    address, port = sock.getsockname()[:2]
    v6only = bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)) if six else None
    return Sock(
        protocol="tcp", family=sock.family, state=BOUND, timer=0, expires_ms=0,
        src=socket.inet_pton(sock.family, address), sport=port, dst=bytes(16 if six else 4),
        dport=0, device=0, cookie=0, uid=os.fstat(sock.fileno()).st_uid, inode=inode, queued=0,
        backlog=0, v6only=v6only, age_ms=-1,
    )  # fmt: skip
