"""Which holders of a port are in the way of a bind, and what to do about each of them."""

from collections.abc import Iterator, Sequence
from errno import EACCES, EADDRNOTAVAIL

from porttrace.analysis.may_bind import Verdict, conflict
from porttrace.analysis.sharing import Claim
from porttrace.tracer.facts import Holder

_MOST_PIDS = 16  # that a command lists
_STATES = {
    "listener": ("listening",), "bound": ("bound",), "udp": ("bound", "connected"),
    "time_wait": ("time_wait",), "client": ("connected",), "accepted": ("connected",),
    "closing": ("connected", "time_wait"),
}  # fmt: skip


def in_the_way(
    holders: Sequence[Holder], asked: Claim, standing: Sequence[Claim]
) -> tuple[bool | None, ...]:
    """Return of each holder whether it is in the way of `asked`, None where it may be or not.

    `standing` are the sockets of all of them. With SO_REUSEADDR some do not hinder bind(2), but
    listen(2): that counts, too.
    """
    return tuple(_is_in_the_way(each, asked, standing) for each in holders)


def _is_in_the_way(holder: Holder, asked: Claim, standing: Sequence[Claim]) -> bool | None:
    its = [claim for claim in standing if _is_of(claim, holder)]
    verdicts = [conflict(asked, its, "bind")]
    if asked.protocol == "tcp":
        verdicts.append(conflict(asked, its, "listen"))
    works = [each.works for each in verdicts]
    if not its:
        return None
    return True if False in works else None if None in works else False


def _is_of(claim: Claim, holder: Holder) -> bool:
    address = claim.address.removeprefix("::ffff:") if "." in claim.address else claim.address
    user = claim.uid == holder.uid or -1 in (claim.uid, holder.uid)
    state = claim.state in _STATES.get(holder.kind, (claim.state,))
    return user and state and address == holder.address


def what_to_do(
    holders: Sequence[Holder], asked: Claim, bind: Verdict, within: str, unprivileged_from: int
) -> tuple[str, ...]:
    """Return what to do so that `asked` works, each kind of holder once; () where it does.

    `holders` are those in the way, `within` goes before a command for their network namespace.
    """
    if EACCES in bind.errnos:
        return (_rights(asked, within, unprivileged_from),)
    if EADDRNOTAVAIL in bind.errnos:
        version = 6 if ":" in asked.address else 4
        return (
            f"{within}ip address add {asked.address} dev DEVICE gives this host the address; or"
            f" IP_FREEBIND, or {within}sysctl -w net.ipv{version}.ip_nonlocal_bind=1.",
        )
    kinds = {each.kind for each in holders}
    told: dict[str, None] = {}
    for each in holders:
        # What a listener accepted does not hinder the next one: nearly all set SO_REUSEADDR.
        if each.kind == "accepted" and "listener" in kinds:
            continue
        told |= dict.fromkeys(_about(each, asked, within))
    return tuple(told)


def _about(holder: Holder, asked: Claim, within: str) -> Iterator[str]:
    if holder.kind == "time_wait":
        yield _wait(holder, asked, within)
    elif holder.kind == "client":
        yield _end(holder, within)
    elif holder.kind == "accepted":
        yield f"{_reuseaddr(asked)}; or {_end(holder, within)}"
    elif holder.kind == "closing":
        yield _closing(holder, asked, within)
    elif holder.pid:
        yield _stop(holder, asked)
    elif holder.kind != "kernel":
        yield "Find out whose it is, as root and outside of any container: that decides what to do."


def _stop(holder: Holder, asked: Claim) -> str:
    pids = (holder.pid, *holder.also)
    listed = " ".join(map(str, pids[:_MOST_PIDS])) + (" ..." if len(pids) > _MOST_PIDS else "")
    every = f" (all {len(pids)} have it open)" if holder.also else ""
    inside = f" in container {holder.container}" if holder.container else ""
    share = (
        "; or let both set SO_REUSEPORT before bind, as the same user (--reuseport asks for it)"
        if holder.kind == "listener" and not asked.reuseport
        else ""
    )
    return (
        f"Stop {holder.comm or 'it'}{inside}: kill {listed}{every}, or its service (systemctl"
        f" status {holder.pid} names it); or take another port or address{share}."
    )


def _end(holder: Holder, within: str) -> str:
    there, _, dport = holder.remote.rpartition(":")
    one = f" and dst {there} and dport = {dport}" if dport and not _are_many(holder) else ""
    them = "these connections" if _are_many(holder) else "this connection"
    again = (
        "; then reserve the port, so that no client gets it again"
        if holder.kind == "client"
        else ""
    )
    restart = f", and so does a restart of {holder.comm} (pid {holder.pid})" if holder.pid else ""
    return (
        f"{within}ss -tK state connected 'sport = {holder.port}{one}' ends {them}{restart}; its"
        f" program sees an error{again}."
    )


def _are_many(holder: Holder) -> bool:
    return holder.why.endswith("such sockets)")


def _wait(holder: Holder, asked: Claim, within: str) -> str:
    left = f"Wait {holder.frees_in_s:.0f} s" if holder.frees_in_s >= 0 else "Wait a minute"
    ends = f"{within}ss -tK state time-wait 'sport = {holder.port}' ends the wait"
    return f"{left}; or {_lower(_reuseaddr(asked))}; or {ends}."


def _closing(holder: Holder, asked: Claim, within: str) -> str:
    if holder.state == "CLOSE_WAIT" and holder.pid:
        return (
            f"{holder.comm} (pid {holder.pid}) has to close it, it leaks the descriptor: kill"
            f" {holder.pid}, or mend that; or {_lower(_reuseaddr(asked))}."
        )
    return f"{_reuseaddr(asked)}; or {_end(holder, within)}"


def _reuseaddr(asked: Claim) -> str:
    if asked.reuseaddr:
        return (
            "SO_REUSEADDR helps only where both have set it: let the program that had the port"
            " before set it as well, before its own bind"
        )
    return (
        "Let the server set SO_REUSEADDR before bind, as nearly all do, this time and the last"
        " (--reuseaddr asks for that)"
    )


def _lower(text: str) -> str:
    return text if text.startswith("SO_") else text[:1].lower() + text[1:]


def _rights(asked: Claim, within: str, unprivileged_from: int) -> str:
    return (
        "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit of the service, or setcap"
        " cap_net_bind_service=+ep PROGRAM gives it the right; or"
        f" {within}sysctl -w net.ipv4.ip_unprivileged_port_start={asked.port} gives it to everybody"
        f" from {asked.port} on (now {unprivileged_from})."
    )
