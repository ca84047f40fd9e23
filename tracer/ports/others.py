"""The same port in other network namespaces: in nobody's way here, and often the one meant."""

import time
from collections.abc import Iterator
from dataclasses import replace

from porttrace.tracer import processes
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.facts import Holder
from porttrace.tracer.ports import diag
from porttrace.tracer.ports.holding import Seen, holder_of
from porttrace.tracer.ports.lookup import NameOf, in_namespace, named
from porttrace.tracer.ports.owners import owners
from porttrace.tracer.ports.settings import settings

_SERVING = (diag.LISTEN, diag.BOUND, diag.CLOSE)  # CLOSE: UDP
_PATIENCE_S = 0.4
_MOST = 32


def elsewhere(
    protocol: str, port: int, netns: int, name_of: NameOf | None = None
) -> tuple[tuple[Holder, ...], int]:
    """Return who has `port` in network namespaces other than number `netns`, and how many of
    these could not be looked into, for want of rights or of time."""
    found: list[Holder] = []
    missed = 0
    until = time.monotonic() + _PATIENCE_S
    for pid in _one_of_each(netns):
        try:
            if time.monotonic() > until or len(found) >= _MOST:
                missed += 1
            else:
                found += _of(pid, protocol, port, name_of)
        except PorttraceError:
            missed += 1
    return tuple(found[:_MOST]), missed


def _one_of_each(netns: int) -> list[int]:
    # A process in each other network namespace, by which it can be entered.
    first: dict[int, int] = {}
    for pid in processes.all_pids():
        number = processes.netns(pid)
        if number and number != netns:
            first.setdefault(number, pid)
    return list(first.values())


def _of(pid: int, protocol: str, port: int, name_of: NameOf | None) -> Iterator[Holder]:
    seen = in_namespace(pid, lambda: Seen(diag.dump(protocol, port), settings=settings()))
    serving = [each for each in seen.socks if each.state in _SERVING]
    seen = replace(seen, socks=serving, owners=owners(each.inode for each in serving))
    where = name_of_namespace(pid, name_of)
    for sock in serving:
        each = named(holder_of(sock, seen), name_of)
        why = f"in {where}, where ports are counted apart: not in the way here"
        yield replace(each, kind="namespace", pid=each.pid or pid, why=why)


def name_of_namespace(pid: int, name_of: NameOf | None = None) -> str:
    """Return in words which network namespace process `pid` is in."""
    process = processes.read_process(pid, name_of=name_of)
    if process.container:
        return f"the network of container {process.container_name or process.container}"
    return f"another network namespace (that of {process.comm}, pid {pid})"
