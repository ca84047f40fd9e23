"""Asks the kernel about the socket behind a packet: its state, its owner, its cgroup.

One exact look-up by addresses and ports (sock_diag), a few microseconds each. The cookie names a
socket for its whole life, so a port that is used again is never taken for the attempt before.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from porttrace.lab.throttles import netlink
from porttrace.lab.throttles.segment import Ends

SYN_SENT = 2
_NETLINK_SOCK_DIAG = 4
_BY_FAMILY = 20
_DUMP = netlink.REQUEST | 0x300  # NLM_F_DUMP
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_ANY_COOKIE = b"\xff" * 8
_REQUEST = struct.Struct("=BBBBI")  # the head of struct inet_diag_req_v2
# struct inet_diag_msg: four bytes of state, the socket's id (48), then five counts.
_COOKIE_AT, _COUNTS_AT, _LENGTH = 4 + 40, 4 + 48, 4 + 48 + 20
_A_CGROUP = 21  # INET_DIAG_CGROUP_ID, Linux 5.9 and later


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
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._socket.settimeout(0.2)

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()

    def find(self, ends: Ends, cookie: bytes = _ANY_COOKIE) -> Owner | None:
        """Return the owner of the TCP socket between `ends`, None where there is none (any more).

        With a `cookie` only that very socket is found, no later one on the same ports.
        """
        where = struct.pack("!HH", ends.sport, ends.dport)
        where += ends.saddr.ljust(16, b"\0") + ends.daddr.ljust(16, b"\0") + bytes(4)
        head = _REQUEST.pack(ends.family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
        request = netlink.message(_BY_FAMILY, netlink.REQUEST, head + where + cookie)
        try:
            self._socket.send(request)
            reply = self._socket.recv(1 << 14)
        except OSError:
            return None  # the kernel was short of memory: the packet goes on as a stranger's
        for kind, body in netlink.messages(reply):
            if kind == _BY_FAMILY:
                return _owner(body)
        return None

    def all_connecting(self) -> list[Owner]:
        """List the TCP sockets of both families that wait for an answer."""
        return [owner for family in _FAMILIES for owner in self._dump(family)]

    def _dump(self, family: int) -> Iterator[Owner]:
        head = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << SYN_SENT)
        self._socket.send(netlink.message(_BY_FAMILY, _DUMP, head + bytes(48)))
        while True:
            for kind, body in netlink.messages(self._socket.recv(1 << 16)):
                if kind != _BY_FAMILY:
                    return  # the end of the dump, or the kernel's refusal
                yield _owner(body)

    def connecting(self, ends: Ends, cookie: bytes) -> bool:
        """Tell whether that very socket still waits for its answer."""
        owner = self.find(ends, cookie)
        return owner is not None and owner.state == SYN_SENT


def _owner(body: bytes) -> Owner:
    _expires, _rqueue, _wqueue, uid, inode = struct.unpack_from("=5I", body, _COUNTS_AT)
    told = netlink.attributes(body[_LENGTH:]).get(_A_CGROUP, bytes(8))
    cgroup = struct.unpack("=Q", told)[0]
    return Owner(body[1], uid, inode, body[_COOKIE_AT : _COOKIE_AT + 8], cgroup)
