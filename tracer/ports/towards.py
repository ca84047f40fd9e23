"""How much of the ephemeral range is taken: at all, and towards each destination.

Each pair of source and destination has the whole range for itself; a bind to port 0 wants a port
that nobody has at all.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from porttrace.tracer import diag, processes
from porttrace.tracer.facts import RangeUse, Towards
from porttrace.tracer.ports.owners import Owners
from porttrace.tracer.ports.settings import Settings
from porttrace.tracer.ports.socks import Sock

NEARLY = 0.8
"""Share of the range from which a destination is told of."""
_REUSED_AFTER_MS = 59_000  # what is left of a TIME_WAIT that has lasted for a second
_MOST_TOLD = 8
_MOST_NAMED = 3
_HALF_OPEN = (diag.LISTEN, diag.SYN_RECV, diag.NEW_SYN_RECV, diag.BOUND, diag.CLOSE)
_MAPPED = bytes(10) + b"\xff\xff"

Pair = tuple[bytes, bytes, int]
"""Source, destination and its port; IPv4 through IPv6 as IPv4."""


def full_pairs(socks: Iterable[Sock], span: tuple[int, int]) -> dict[Pair, list[Sock]]:
    """Return the sockets of each pair that has `NEARLY` all ports of the range `span`."""
    low, high = span
    found: dict[Pair, list[Sock]] = {}
    for each in socks:
        if low <= each.sport <= high and each.dport and each.state not in _HALF_OPEN:
            found.setdefault((_short(each.src), _short(each.dst), each.dport), []).append(each)
    full = {pair: many for pair, many in found.items() if len(many) >= NEARLY * (high - low)}
    largest = sorted(full.items(), key=lambda item: -len(item[1]))
    return dict(largest[:_MOST_TOLD])


def range_use(
    socks: Sequence[Sock], host: Settings, full: Mapping[Pair, list[Sock]], having: Owners
) -> RangeUse:
    """Return what is taken of the range of `host`; `full` is of `full_pairs`, `having` of these."""
    ports = {each.sport for each in socks}
    free = {port for port in ports if host.is_ephemeral(port)}
    inside = [each for each in socks if each.sport in free]
    kept = {each.sport for each in inside if each.state in (diag.LISTEN, diag.BOUND)}
    towards = tuple(_towards(many, having) for many in full.values())
    return RangeUse(len(free), len(kept), towards)


def _towards(many: Sequence[Sock], having: Owners) -> Towards:
    waiting = [each.expires_ms for each in many if each.state == diag.TIME_WAIT]
    first = many[0]
    return Towards(
        source=first.address,
        destination=first.remote,
        states=Counter(diag.STATES[each.state] for each in many),
        reusable=sum(left <= _REUSED_AFTER_MS for left in waiting),
        frees_in_s=min(waiting) / 1000 if waiting else -1.0,
        whose=_whose(many, having),
    )


def _whose(many: Sequence[Sock], having: Owners) -> tuple[tuple[int, str, int], ...]:
    owners = (having.first(each.inode) for each in many if each.inode)
    counted = Counter(owner.pid for owner in owners if owner)
    return tuple(
        (pid, processes.read_process(pid).comm, number)
        for pid, number in counted.most_common(_MOST_NAMED)
    )


def _short(packed: bytes) -> bytes:
    return packed[12:] if packed[:12] == _MAPPED else packed
