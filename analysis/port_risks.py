"""What is risky or remarkable about the ports that a host serves, in a few words each."""

from collections.abc import Iterator, Sequence

from porttrace.analysis.port_ranges import Ranges, at_risk
from porttrace.tracer.facts import Holder
from porttrace.tracer.words import bracketed

_SERVES = ("listener", "udp", "bound")
_MOST_PIDS = 8  # of the workers of a server
_WILDCARDS = {"0.0.0.0": 4, "::": 6}


def risks_of(
    holder: Holder,
    holders: Sequence[Holder],
    ephemeral: tuple[int, int],
    reserved: Ranges,
    unprivileged_from: int,
) -> tuple[str, ...]:
    """Return in a few words each what is risky, or remarkable, about one of `holders`."""
    found = []
    if holder.kind == "bound":
        found.append("bound and idle")
    if holder.kind in ("kernel", "descriptor"):
        found.append({"kernel": "the kernel's own", "descriptor": "no process has it"}[holder.kind])
    if holder.kind == "listener" and at_risk(holder.port, ephemeral, reserved):
        found.append("a client may get it")
    if holder.port < unprivileged_from and holder.uid > 0:
        found.append("privileged")
    beside = [each for each in holders if each is not holder and _same_place(each, holder)]
    if any(each.uid != holder.uid or each.comm != holder.comm for each in beside):
        found.append("shared with others")
    elif beside:
        found.append(f"shared by {len(beside) + 1} sockets")
    elif holder.reuseport:
        found.append("SO_REUSEPORT")  # beside a wider or a narrower address
    if holder.queue > max(0, holder.limit):
        found.append(f"accept queue full ({holder.queue} wait, limit {holder.limit})")
    if holder.also:
        found.append(f"open in {len(holder.also)} more: {_listed(holder.also)}")
    return (*found, *_taken_beside(holder, holders))


def _listed(pids: Sequence[int]) -> str:
    shown = ", ".join(map(str, pids[:_MOST_PIDS]))
    return f"{shown}, ..." if len(pids) > _MOST_PIDS else shown


def _taken_beside(holder: Holder, holders: Sequence[Holder]) -> Iterator[str]:
    # Clients of that address, or of that family, come to somebody else: docs/ports.md.
    if holder.kind not in _SERVES:
        return
    for other in holders:
        same_port = (other.protocol, other.port) == (holder.protocol, holder.port)
        if not same_port or other.kind not in _SERVES or -1 in (holder.uid, other.uid):
            continue
        if other.uid != holder.uid and _takes_from(other, holder):
            yield f"{other.user or f'user {other.uid}'} has {bracketed(other.address)}"


def _takes_from(other: Holder, holder: Holder) -> bool:
    wide = _WILDCARDS.get(holder.address)
    if wide is None:
        return False  # one address alone: nobody expects the others to be its own
    if other.address in _WILDCARDS:
        return _WILDCARDS[other.address] != wide  # the other family
    return True


def _same_place(one: Holder, other: Holder) -> bool:
    return (one.protocol, one.port, one.address, one.v6only) == (
        other.protocol, other.port, other.address, other.v6only,
    )  # fmt: skip
