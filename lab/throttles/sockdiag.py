"""Asks the kernel about the socket behind a packet: its state, its owner, its cgroup.

One exact look-up by addresses and ports (sock_diag), a few microseconds each. The cookie names a
socket for its whole life, so a port that is used again is never taken for the attempt before.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from porttrace.lab.throttles.segment import Ends
from porttrace.tracer import diag

_CGROUP = 21  # INET_DIAG_CGROUP_ID, Linux 5.9 and later


@dataclass(frozen=True, slots=True)
class Owner:
    """What the kernel says about a socket; `cgroup` is 0 where the kernel does not tell."""

    state: int
    uid: int
    inode: int
    cookie: bytes
    cgroup: int


class SockDiag:
    """Looks sockets up in the network namespace in which it was made."""

    def __init__(self) -> None:
        self._socket = diag.opened(timeout_s=0.2)

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()

    def find(self, ends: Ends, cookie: bytes = diag.ANY_COOKIE) -> Owner | None:
        """Return the owner of the TCP socket between `ends`, None where there is none (any more).

        With a `cookie` only that very socket is found, no later one on the same ports.
        """
        where = struct.pack("!HH16s16s", ends.sport, ends.dport, ends.saddr, ends.daddr)
        try:
            message = diag.one(self._socket, ends.family, where, cookie)
        except OSError:
            return None  # the kernel was short of memory: the packet goes on as a stranger's
        return _owner(message) if message else None

    def connecting(self, ends: Ends, cookie: bytes) -> bool:
        """Tell whether that very socket still waits for its answer."""
        owner = self.find(ends, cookie)
        return owner is not None and owner.state == diag.SYN_SENT


def all_connecting() -> Iterator[Owner]:
    """Yield the TCP sockets of both families that wait for an answer, in our namespace."""
    for family in diag.FAMILIES:
        with contextlib.suppress(OSError):  # the kernel has no such sockets
            yield from map(_owner, diag.messages(family, states=(diag.SYN_SENT,)))


def _owner(message: bytes) -> Owner:
    *_, uid, inode = diag.SOCKET.unpack_from(message, diag.SOCKET_AT)
    cgroup = dict(diag.attributes(message)).get(_CGROUP, bytes(8))
    cookie = message[diag.COOKIE_AT : diag.COOKIE_AT + 8]
    return Owner(message[diag.STATE_AT], uid, inode, cookie, struct.unpack("=Q", cgroup)[0])
