"""Sockets that the kernel knows of, asked through sock_diag.

With `links` one of the two modules that import pyroute2.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar

from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.namespaces import inside

_SYN_SENT = 2
_T = TypeVar("_T")


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
    if netns_of:
        return inside_netns(netns_of, lambda: tuple(_dump()))
    return tuple(_dump())


def _dump() -> Iterator[Connecting]:
    from pyroute2 import DiagSocket
    from pyroute2.netlink.exceptions import NetlinkError

    for family in (socket.AF_INET, socket.AF_INET6):
        # Without IPv6 in the kernel the second dump fails: there is nothing to report then.
        with contextlib.suppress(OSError, NetlinkError), DiagSocket() as diag:
            diag.bind()
            for message in diag.get_sock_stats(family=family, states=1 << _SYN_SENT):
                yield _row(message)


def _row(message: Any) -> Connecting:
    return Connecting(
        cookie=message["idiag_cookie"],
        inode=message["idiag_inode"],
        uid=message["idiag_uid"],
        family=message["idiag_family"],
        saddr=_mapped(message["idiag_src"]),
        daddr=_mapped(message["idiag_dst"]),
        sport=message["idiag_sport"],
        dport=message["idiag_dport"],
        retransmits=message["idiag_retrans"],
    )


def _mapped(text: str) -> bytes:
    packed = ip_address(text).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


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


def inside_netns(pid: int, work: Callable[[], _T]) -> _T:
    """Run `work` in the network namespace of `pid`, in a thread of its own.

    Raises PorttraceError when that cannot be entered.
    """
    try:
        with open(f"/proc/{pid}/ns/net", "rb") as handle:
            return inside(handle.fileno(), work)
    except OSError as error:
        raise PorttraceError(
            f"cannot enter the network namespace of process {pid}: {error.strerror}",
            "is the process still there? 'porttrace doctor' shows what may be missing",
        ) from None
