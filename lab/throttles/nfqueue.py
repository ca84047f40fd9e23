"""The kernel's queue of packets (NFQUEUE): each packet waits there until this process decides.

A rule of the packet filter puts packets into the queue; the reader takes them one by one and gives
a verdict later, in any order. That is how firewalls with a program behind them work. Spoken over
plain netlink: the bindings on PyPI need a compiler and have had no release for years.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass

from porttrace.lab.errors import LabError
from porttrace.lab.throttles import netlink

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5
_QUEUE = 3 << 8  # the subsystem of nfnetlink
_PACKET, _VERDICT, _CONFIG = _QUEUE | 0, _QUEUE | 1, _QUEUE | 2

# include/uapi/linux/netfilter/nfnetlink_queue.h
_A_HEADER, _A_VERDICT, _A_MARK, _A_PAYLOAD = 1, 2, 3, 10
_CFG_CMD, _CFG_PARAMS, _CFG_MAXLEN = 1, 2, 3
_CMD_BIND = struct.pack("!BBH", 1, 0, 0)
_COPY_PACKET = 2
_BYTES_WANTED = 256  # both headers with all their options; never the payload
_MOST_PACKETS = 65536

_NF_DROP, _NF_ACCEPT = 0, 1


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet that waits for a verdict: its number, and its first bytes from the IP header."""

    number: int
    data: bytes


class PacketQueue:
    """The queue `number` of the network namespace that the calling thread is in."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        # A full buffer shall lose a packet, as a real reader would, not end the reader.
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        try:
            self._configure()
        except OSError as error:
            self._socket.close()
            raise _refusal(number, error) from error

    def fileno(self) -> int:
        """Return the descriptor to poll for packets."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the queue up: the kernel drops the packets that still wait in it."""
        self._socket.close()

    def receive(self) -> list[Packet]:
        """Return the packets that arrived, [] where there is none just now."""
        try:
            data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return []
        found = (_packet(body) for kind, body in netlink.messages(data) if kind == _PACKET)
        return [packet for packet in found if packet is not None]

    def accept(self, packet: Packet, mark: int = 0) -> None:
        """Let a packet go on, with a mark for the rules behind the queue (0: leave it alone)."""
        marked = netlink.attribute(_A_MARK, struct.pack("!I", mark)) if mark else b""
        self._decide(packet, _NF_ACCEPT, marked)

    def drop(self, packet: Packet) -> None:
        """Drop a packet without a word."""
        self._decide(packet, _NF_DROP, b"")

    def _decide(self, packet: Packet, verdict: int, more: bytes) -> None:
        header = netlink.attribute(_A_VERDICT, struct.pack("!II", verdict, packet.number))
        self._send(_VERDICT, netlink.REQUEST, header + more)

    def _configure(self) -> None:
        self._ask(netlink.attribute(_CFG_CMD, _CMD_BIND))
        params = struct.pack("!IB", _BYTES_WANTED, _COPY_PACKET)
        longest = struct.pack("!I", _MOST_PACKETS)
        self._ask(netlink.attribute(_CFG_PARAMS, params) + netlink.attribute(_CFG_MAXLEN, longest))

    def _ask(self, attributes: bytes) -> None:
        self._send(_CONFIG, netlink.REQUEST | netlink.ACK, attributes)
        for kind, body in netlink.messages(self._socket.recv(1 << 16)):
            (code,) = struct.unpack_from("=i", body)
            if kind == netlink.ERROR and code:
                raise OSError(-code, os.strerror(-code))

    def _send(self, kind: int, flags: int, attributes: bytes) -> None:
        head = struct.pack("!BBH", socket.AF_UNSPEC, 0, self._number)
        self._socket.send(netlink.message(kind, flags, head + attributes))


def _packet(body: bytes) -> Packet | None:
    found = netlink.attributes(body[4:])
    if _A_HEADER not in found:
        return None
    (number,) = struct.unpack_from("!I", found[_A_HEADER])
    return Packet(number, found.get(_A_PAYLOAD, b""))


def _refusal(number: int, error: OSError) -> LabError:
    if error.errno in (errno.EBUSY, errno.EPERM) and os.geteuid() == 0:
        return LabError(
            f"the packet queue {number} of this network namespace has a reader already",
            "one throttle of packets at a time: end the other one first",
        )
    return LabError(
        f"the kernel refused the packet queue: {error.strerror}",
        "it needs CAP_NET_ADMIN and a kernel with CONFIG_NETFILTER_NETLINK_QUEUE",
    )
