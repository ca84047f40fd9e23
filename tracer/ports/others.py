"""The same port in other network namespaces: in nobody's way here, and often the one meant.

Bounded by their number and never by time, so that the same question has the same answer; which were
not looked at is told.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from porttrace.tracer import diag, processes
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.facts import Holder
from porttrace.tracer.namespaces import enter
from porttrace.tracer.ports import socks
from porttrace.tracer.ports.holding import Seen, holder_of
from porttrace.tracer.ports.lookup import MOST, NameOf, named
from porttrace.tracer.ports.overlap import overlaps
from porttrace.tracer.ports.owners import owners
from porttrace.tracer.ports.settings import Settings
from porttrace.tracer.ports.socks import Sock

MOST_LOOKED_AT = 256
"""So many network namespaces at most are looked at: those of the oldest processes."""
_CONNECTED = (diag.ESTABLISHED, diag.SYN_SENT, diag.FIN_WAIT1, diag.FIN_WAIT2, diag.CLOSE_WAIT,
              diag.CLOSING, diag.LAST_ACK)  # fmt: skip
_HAVING = {
    "tcp": (diag.LISTEN, diag.BOUND, *_CONNECTED), "udp": (diag.CLOSE, diag.ESTABLISHED),
}  # fmt: skip


@dataclass(frozen=True)
class Others:
    """Network namespaces besides one, by number, each with the processes in it, oldest first."""

    places: dict[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Beside:
    """Who has a port in other network namespaces, and in which of these nobody looked.

    Each of those by a process that is in it: `closed` may not be entered, `beyond` are too many.
    """

    holders: tuple[Holder, ...] = ()
    closed: tuple[int, ...] = ()
    beyond: tuple[int, ...] = ()


def others(netns: int) -> Others:
    """Return the network namespaces that processes are in, but for number `netns`."""
    found: dict[int, list[int]] = {}
    for pid in sorted(processes.all_pids()):
        number = processes.netns(pid)
        if number not in (0, netns):
            found.setdefault(number, []).append(pid)
    return Others({number: tuple(pids) for number, pids in found.items()})


def sees_others() -> bool:
    """Return whether we may look into the network namespaces of others' processes: root may."""
    return os.geteuid() == 0


def elsewhere(protocol: str, port: int, among: Others, name_of: NameOf | None = None) -> Beside:
    """Return who has `port` in other network namespaces. Of these `MOST` are told at most.

    Of connections that a listener there accepted nothing is said, of others one for each address.
    """
    places = list(among.places.items())
    beyond = tuple(pids[0] for _, pids in places[MOST_LOOKED_AT:])
    looks = _each(places[:MOST_LOOKED_AT], lambda: _having(protocol, port))
    closed = tuple(pid for _, pid, seen in looks if seen is None)
    found = [(number, pid, sock) for number, pid, seen in looks for sock in seen or ()]
    return Beside(tuple(_told(found, name_of)), closed, beyond)


_Place = tuple[int, tuple[int, ...]]
_Look = tuple[int, int, list[Sock] | None]  # None: it may not be entered, or tells nothing


def _each(places: Sequence[_Place], work: Callable[[], list[Sock]]) -> list[_Look]:
    # One thread for all: setns(2) moves that thread only, and making one takes as long as a look.
    def all_of_them() -> list[_Look]:
        return [(number, *_inside(number, pids, work)) for number, pids in places]

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(all_of_them).result() if places else []


# What is in a namespace, and the process by which it was entered; where all of them ended
# meanwhile, there is nothing in it.
def _inside(
    number: int, pids: Sequence[int], work: Callable[[], list[Sock]]
) -> tuple[int, list[Sock] | None]:
    for pid in pids:
        try:
            handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            return pid, None
        try:
            if os.fstat(handle).st_ino == number:  # else it moved, or is another process by now
                enter(handle)
                return pid, work()
        except (OSError, PorttraceError):
            return pid, None
        finally:
            os.close(handle)
    return 0, []


def _having(protocol: str, port: int) -> list[Sock]:
    found = socks.dump(protocol, port, states=_HAVING[protocol])
    listening = [sock for sock in found if sock.state == diag.LISTEN]
    kept = [sock for sock in found if protocol == "udp" or sock.state not in _CONNECTED]
    clients: dict[bytes, Sock] = {}
    for sock in found:
        is_one = protocol == "tcp" and sock.state in _CONNECTED and sock.inode
        if is_one and not any(overlaps(each, sock.address) for each in listening):
            clients.setdefault(sock.src, sock)
    return [*kept, *clients.values()]


def _told(found: list[tuple[int, int, Sock]], name_of: NameOf | None) -> Iterator[Holder]:
    more = len(found) - MOST
    having = owners(sock.inode for _, _, sock in found[:MOST])  # one pass for all namespaces
    for at, (number, pid, sock) in enumerate(found[:MOST], 1):
        seen = Seen([sock], having, Settings(netns=number))
        each = named(holder_of(sock, seen), name_of)
        what = "a connection, " if sock.protocol == "tcp" and sock.state in _CONNECTED else ""
        place = name_of_namespace(pid, name_of)
        why = f"{what}in {place}, where ports are counted apart: not in the way"
        rest = f"; {more} more elsewhere are not listed" if more > 0 and at == MOST else ""
        yield replace(each, kind="namespace", pid=each.pid or pid, why=f"{why} here{rest}")


def name_of_namespace(pid: int, name_of: NameOf | None = None) -> str:
    """Return in words which network namespace process `pid` is in."""
    process = processes.read_process(pid, name_of=name_of)
    if process.container:
        return f"the network of container {process.container_name or process.container}"
    return f"another network namespace (that of {process.comm}, pid {pid})"
