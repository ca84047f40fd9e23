"""What bind(2) does not tell, asked of the socket itself while it is there.

Which port the kernel chose, and the options of sockets that were made before the trace, or by
another process: a copy of the descriptor (pidfd_getfd, Linux 5.6) answers both. What cannot be
asked stays unknown: the process is gone, has closed the socket, or must not be looked into.
"""

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Iterator

import numpy as np

from porttrace.tracer.event import Events, EventType, of_kinds

_PIDFD_GETFD = 438  # the same on every architecture
_ASKED_AT_ONCE_S = 0.02
_ALWAYS_ASKED = 32  # records of a round, also where that takes longer
_EVERY_OPTION = 31
_ASKABLE = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
# (bit of enum event_option, level and name for IPv4, the same for IPv6); <linux/in.h>, in6.h
_REUSEADDR = (socket.SOL_SOCKET, socket.SO_REUSEADDR)
_REUSEPORT = (socket.SOL_SOCKET, socket.SO_REUSEPORT)
_V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
_FREEBIND = (socket.IPPROTO_IP, 15)
_TRANSPARENT = (socket.IPPROTO_IP, 19)
_LATE_PORT = (socket.IPPROTO_IP, 24)
_MAPPED = bytes(10) + b"\xff\xff"


def ask(events: Events, within_s: float = _ASKED_AT_ONCE_S) -> None:
    """Fill in what the records of bind(2) and listen(2) among `events` do not tell; in place.

    Takes at most about `within_s` where there are many: what is left then stays unknown.
    """
    ours = of_kinds(events, EventType.BIND, EventType.LISTEN)
    if not ours.any():
        return
    no_port = (events["error"] == 0) & (events["dport"] == 0)
    lacking = ours & (no_port | (events["answers"] != _EVERY_OPTION))
    until_s = time.monotonic() + within_s
    # The latest first: of the sockets that are gone already, most are old ones.
    for number, row in enumerate(np.flatnonzero(lacking)[::-1].tolist()):
        if number >= _ALWAYS_ASKED and time.monotonic() > until_s:
            return
        with contextlib.suppress(OSError):
            _ask_one(events[row : row + 1])


def without_unwanted(events: Events, ports: frozenset[int]) -> Events:
    """Return the events without binds that the kernel chose another port for than one of `ports`.

    The kernel program cannot know that port. Without `ports` all are wanted.
    """
    if not ports:
        return events
    chosen = of_kinds(events, EventType.BIND, EventType.LISTEN)
    chosen &= (events["sport"] == 0) & (events["error"] == 0)
    if not chosen.any():
        return events
    wanted: Events = events[~chosen | np.isin(events["dport"], list(ports))]
    return wanted


def complete(events: Events) -> Events:
    """Return records of calls that failed with the protocol and options of their sockets."""
    ask(events)
    return events


def _ask_one(event: Events) -> None:
    with copied(int(event["pid"][0]), int(event["fd"][0])) as sock:
        if not _is_it(sock, event):
            return
        event["newstate"] = sock.proto
        if event["error"][0] == 0 and event["dport"][0] == 0:
            event["dport"] = sock.getsockname()[1]
        if event["answers"][0] != _EVERY_OPTION:
            event["answer"], event["answers"] = options_of(sock), _EVERY_OPTION


def _is_it(sock: socket.socket, event: Events) -> bool:
    # The descriptor may be another socket's by now.
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.proto not in _ASKABLE:
        return False
    if event["newstate"][0] not in (0, sock.proto):
        return False
    if event["error"][0] or event["type"][0] != EventType.BIND:
        return True
    address, port = packed_name(sock)
    asked, wanted = event["saddr"][0].tobytes(), int(event["sport"][0])
    wild = not any(asked) or asked == _MAPPED + bytes(4)
    return port != 0 and wanted in (0, port) and (wild or address == asked)


def packed_name(sock: socket.socket) -> tuple[bytes, int]:
    """Return a socket's local address (16 bytes, IPv4 mapped) and port. Raises OSError."""
    host, port = sock.getsockname()[:2]
    packed = socket.inet_pton(sock.family, host.partition("%")[0])
    return (_MAPPED + packed if len(packed) == 4 else packed), port


def options_of(sock: socket.socket) -> int:
    """Return the options of a socket that matter to bind(2): enum event_option, or-ed."""
    asked = [_REUSEADDR, _REUSEPORT, _V6ONLY, _FREEBIND, _LATE_PORT]
    found = sum(1 << bit for bit, option in enumerate(asked) if _is_on(sock, *option))
    return found | (8 if _is_on(sock, *_TRANSPARENT) else 0)


def _is_on(sock: socket.socket, level: int, name: int) -> bool:
    # IPV6_V6ONLY is unknown to a socket of IPv4.
    with contextlib.suppress(OSError):
        return bool(sock.getsockopt(level, name))
    return False


@contextlib.contextmanager
def copied(pid: int, fd: int) -> Iterator[socket.socket]:
    """Yield a socket of another process, as a copy of its descriptor. Raises OSError."""
    handle = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        copy = libc.syscall(_PIDFD_GETFD, handle, fd, 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(handle)
    sock = socket.socket(fileno=copy)
    try:
        yield sock
    finally:
        sock.close()
