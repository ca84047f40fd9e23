"""The same port in other network namespaces: in nobody's way here, and often the one meant."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from porttrace.tracer import diag, processes
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.facts import Holder
from porttrace.tracer.namespaces import in_netns_of
from porttrace.tracer.ports import socks
from porttrace.tracer.ports.holding import Seen, holder_of
from porttrace.tracer.ports.lookup import NameOf, named
from porttrace.tracer.ports.owners import owners
from porttrace.tracer.ports.settings import Settings
from porttrace.tracer.ports.socks import Sock

_SERVING = (diag.LISTEN, diag.BOUND, diag.CLOSE)  # CLOSE: UDP
_PATIENCE_S = 0.3
_MOST = 32


@dataclass(frozen=True)
class Others:
    """Network namespaces besides one, by number, each with a process that is in it."""

    places: dict[int, int]


def others(netns: int) -> Others:
    """Return the network namespaces that processes are in, but for number `netns`."""
    first: dict[int, int] = {}
    for pid in processes.all_pids():
        with contextlib.suppress(OSError):
            first.setdefault(os.stat(f"/proc/{pid}/ns/net").st_ino, pid)
    first.pop(netns, None)
    return Others(first)


def sees_others() -> bool:
    """Return whether we may look into the network namespaces of others' processes: root may."""
    return os.geteuid() == 0


def elsewhere(
    protocol: str, port: int, among: Others, name_of: NameOf | None = None
) -> tuple[tuple[Holder, ...], int]:
    """Return who serves `port` in other network namespaces, and how many of these could not be
    looked into, for want of rights or of time."""
    found: list[tuple[int, int, Sock]] = []
    missed = 0
    until = time.monotonic() + _PATIENCE_S
    for number, pid in among.places.items():
        try:
            if time.monotonic() > until or len(found) >= _MOST:
                missed += 1
            else:
                found += [(number, pid, each) for each in _serving(pid, protocol, port)]
        except PorttraceError:
            # A process that ended meanwhile took us to nothing: its namespace is none that hides.
            missed += os.path.exists(f"/proc/{pid}/ns/net")
    return tuple(_told(found[:_MOST], name_of)), missed


def _serving(pid: int, protocol: str, port: int) -> list[Sock]:
    found = in_netns_of(pid, lambda: socks.dump(protocol, port))
    return [each for each in found if each.state in _SERVING]


def _told(found: list[tuple[int, int, Sock]], name_of: NameOf | None) -> Iterator[Holder]:
    having = owners(sock.inode for _, _, sock in found)  # one pass for all namespaces
    for number, pid, sock in found:
        seen = Seen([sock], having, Settings(netns=number))
        each = named(holder_of(sock, seen), name_of)
        why = f"in {name_of_namespace(pid, name_of)}, where ports are counted apart: not in the way"
        yield replace(each, kind="namespace", pid=each.pid or pid, why=f"{why} here")


def name_of_namespace(pid: int, name_of: NameOf | None = None) -> str:
    """Return in words which network namespace process `pid` is in."""
    process = processes.read_process(pid, name_of=name_of)
    if process.container:
        return f"the network of container {process.container_name or process.container}"
    return f"another network namespace (that of {process.comm}, pid {pid})"
