"""All ports of a network namespace that somebody serves or keeps: what `porttrace ports` lists."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from porttrace.tracer import diag
from porttrace.tracer.facts import Holder, RangeUse
from porttrace.tracer.namespaces import in_netns, sees_host_pids
from porttrace.tracer.ports import socks
from porttrace.tracer.ports.holding import Seen, holder_of
from porttrace.tracer.ports.lookup import NameOf, named, twice_lost
from porttrace.tracer.ports.owners import Elsewhere, elsewhere, owners
from porttrace.tracer.ports.settings import Settings, settings
from porttrace.tracer.ports.socks import Sock
from porttrace.tracer.ports.towards import Pair, full_pairs, range_use
from porttrace.tracer.sysctls import sysctl

MOST = 4096
"""So many sockets are told at most; `left_out` says how many were not."""


@dataclass(frozen=True)
class Inventory:
    """Sockets that serve a port or keep it idle, how many are in each state, and the settings."""

    holders: tuple[Holder, ...]  # by port; listeners, bound sockets, and UDP
    states: Mapping[str, int]  # of TCP sockets, LISTEN and the like; UDP as "udp"
    settings: Settings
    use: RangeUse = field(default_factory=RangeUse)  # of the ephemeral range
    reuse: Mapping[str, str] = field(default_factory=dict)  # tcp_tw_reuse and tcp_timestamps
    closed: tuple[int, ...] = ()  # processes that may have those of `holders` that have none
    left_out: int = 0
    lists_bound: bool = True


def inventory(netns: str = "", name_of: NameOf | None = None) -> Inventory:
    """Return what serves ports in a network namespace (a path; "" our own). Raises PorttraceError.

    Sockets that are bound and idle are there where the kernel lists them. Connected UDP sockets are
    counted, not told: they are clients.
    """
    tcp: list[Sock] = []
    udp: list[Sock] = []
    full: dict[Pair, list[Sock]] = {}
    reuse: dict[str, str] = {}

    def once() -> Seen:
        tcp[:], udp[:], told, reuse_ = in_netns(
            netns, lambda: (socks.dump("tcp"), socks.dump("udp"), settings(), _reuse())
        )
        reuse.update(reuse_)
        full.clear()
        full.update(full_pairs(tcp, told.range))
        serving = [sock for sock in (*tcp, *udp) if _serves(sock)]
        serving.sort(key=lambda each: (each.sport, each.protocol, each.src))
        short = chain.from_iterable(full.values())
        having = owners(each.inode for each in chain(serving[:MOST], short))
        return Seen(serving, having, told, apart=sees_host_pids() is False)

    seen, lost = twice_lost(once)
    kept, left_out = seen.socks[:MOST], len(seen.socks[MOST:])
    seen = replace(
        seen,
        socks=kept,
        elsewhere=elsewhere(lost) if lost and not seen.owners.hidden else Elsewhere(),
    )
    states = Counter(diag.STATES[each.state] for each in tcp)
    return Inventory(
        holders=_named([holder_of(each, seen) for each in kept], name_of),
        states={**states, "udp": len(udp)},
        settings=seen.settings,
        use=range_use(tcp, seen.settings, full, seen.owners),
        reuse=reuse,
        closed=seen.owners.closed if seen.lost() else (),
        left_out=left_out,
        lists_bound=socks.lists_bound(),
    )


def _reuse() -> dict[str, str]:
    names = ("tcp_tw_reuse", "tcp_timestamps")
    return {name: sysctl(f"net.ipv4.{name}") or "" for name in names}


def _serves(sock: Sock) -> bool:
    if sock.protocol == "udp":
        return sock.state != diag.ESTABLISHED and bool(sock.sport)
    return sock.state in (diag.LISTEN, diag.BOUND)


def _named(holders: list[Holder], name_of: NameOf | None) -> tuple[Holder, ...]:
    # Each process is read once, however many ports it has.
    known: dict[tuple[int, int], Holder] = {}
    told = []
    for each in holders:
        key = each.pid, each.uid
        if key not in known:
            known[key] = named(each, name_of)
        names = known[key]
        told.append(
            replace(
                each,
                comm=names.comm,
                user=names.user,
                container=names.container,
                cmdline=names.cmdline,
            )
        )
    return tuple(told)
