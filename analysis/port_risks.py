"""What is risky or remarkable about the ports that a host serves, in a few words each."""

from collections.abc import Sequence

from porttrace.analysis.port_ranges import Ranges, at_risk
from porttrace.tracer.facts import Holder


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
    return tuple(found)


def _same_place(one: Holder, other: Holder) -> bool:
    return (one.protocol, one.port, one.address, one.v6only) == (
        other.protocol, other.port, other.address, other.v6only,
    )  # fmt: skip
