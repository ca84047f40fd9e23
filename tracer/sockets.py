"""TCP sockets that wait for an answer, as the kernel knows them, and who holds a socket open."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from porttrace.tracer import diag
from porttrace.tracer.namespaces import in_netns_of


@dataclass(frozen=True)
class Connecting:
    """A socket in SYN_SENT. Addresses are 16 bytes, IPv4 mapped; ports in host order."""

    cookie: int
    inode: int
    uid: int
    family: int
    saddr: bytes
    daddr: bytes
    sport: int
    dport: int
    retransmits: int


def connecting(netns_of: int = 0) -> tuple[Connecting, ...]:
    """Return the TCP sockets in SYN_SENT, in the network namespace of process `netns_of`.

    0 means our own namespace. Raises PorttraceError when the namespace cannot be entered.
    """
    return in_netns_of(netns_of, lambda: tuple(_dump()))


def _dump() -> Iterator[Connecting]:
    for family in diag.FAMILIES:
        # Without IPv6 in the kernel the second dump fails: there is nothing to report then.
        with contextlib.suppress(OSError):
            yield from map(_connecting, diag.messages(family, states=(diag.SYN_SENT,)))


def _connecting(message: bytes) -> Connecting:
    (family, _, _, retransmits, sport, dport, source, destination, _, cookie, _, _, _, uid,
     inode) = diag.SOCKET.unpack_from(message, diag.SOCKET_AT)  # fmt: skip
    return Connecting(
        cookie=cookie,
        inode=inode,
        uid=uid,
        family=family,
        saddr=_mapped(family, source),
        daddr=_mapped(family, destination),
        sport=socket.ntohs(sport),
        dport=socket.ntohs(dport),
        retransmits=retransmits,
    )


def _mapped(family: int, packed: bytes) -> bytes:
    return bytes(10) + b"\xff\xff" + packed[:4] if family == socket.AF_INET else packed


def owners(inodes: set[int], pids: frozenset[int]) -> dict[int, int]:
    """Return inode -> pid for the sockets that the given processes hold open.

    Without `pids` all processes are searched. What vanishes meanwhile is left out.
    """
    found: dict[int, int] = {}
    for pid in pids or (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    link = os.readlink(entry.path)
                    if link.startswith("socket:[") and int(link[8:-1]) in inodes:
                        found[int(link[8:-1])] = pid
    return found
