"""What `porttrace port` puts together: the look at the sockets, the rule, and the trial."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from porttrace.analysis.may_bind import Here, Verdict, may_bind, may_listen
from porttrace.analysis.port_advice import in_the_way, what_to_do
from porttrace.analysis.render.ports import PortView
from porttrace.analysis.sharing import Claim
from porttrace.tracer import diag, processes
from porttrace.tracer.facts import Holder
from porttrace.tracer.namespaces import enter_command, in_netns
from porttrace.tracer.netplace import called
from porttrace.tracer.ports.addresses import is_local
from porttrace.tracer.ports.holding import Seen
from porttrace.tracer.ports.lookup import Look, NameOf, holders_of, see, unseen
from porttrace.tracer.ports.others import (
    MOST_LOOKED_AT,
    Beside,
    Others,
    elsewhere,
    others,
    sees_others,
)
from porttrace.tracer.ports.overlap import overlaps
from porttrace.tracer.ports.peek import Options
from porttrace.tracer.ports.socks import Sock
from porttrace.tracer.ports.trybind import Ask, try_bind

_MOST_NAMED = 8


@dataclass(frozen=True)
class Wish:
    """The bind that somebody has in mind, whatever the port; `netns` is a path or "" for ours."""

    address: str = "0.0.0.0"
    uid: int = 0
    reuseaddr: bool = False
    reuseport: bool = False
    v6only: bool = False
    netns: str = ""
    listen: bool = False  # of a trial only


def look_at(
    protocol: str, port: int, wish: Wish, is_tried: bool = False, name_of: NameOf | None = None
) -> PortView:
    """Return all that is told of a port. Raises PorttraceError."""
    # Without these two options no option of the others matters to the rule.
    matters = Look(options=wish.reuseaddr or wish.reuseport)
    seen = see(protocol, "", port, wish.netns, how=matters)
    here = in_netns(wish.netns, lambda: _here(seen, wish))
    beside = elsewhere(protocol, port, _others(seen.settings.netns), name_of)
    asked = Claim(protocol, wish.address, port, wish.v6only, wish.reuseaddr, wish.reuseport,
                  wish.uid)  # fmt: skip
    standing = claims(seen)
    bind = may_bind(asked, standing, here)
    told = holders_of(seen, name_of)
    ways, to_do = _hindering(told, asked, standing, bind, seen, wish)
    return PortView(
        protocol=protocol,
        port=port,
        service=service(port, protocol),
        netns=seen.settings.netns,
        place=called(seen.settings.netns, wish.netns),
        ephemeral=seen.settings.range,
        reserved=seen.settings.reserved,
        unprivileged_from=seen.settings.unprivileged_from,
        holders=told,
        beside=beside.holders,
        not_seen=_not_seen(protocol, seen, beside, bool(told)),
        asked=asked,
        user=processes.user_name(wish.uid),
        bind=bind,
        listen=may_listen(asked, standing) if protocol == "tcp" else None,
        within=enter_command(wish.netns),
        tried=_trial(protocol, port, wish) if is_tried else None,
        in_the_way=ways,
        to_do=to_do,
    )


def _hindering(
    told: Sequence[Holder],
    asked: Claim,
    standing: Sequence[Claim],
    bind: Verdict,
    seen: Seen,
    wish: Wish,
) -> tuple[tuple[bool | None, ...], tuple[str, ...]]:
    ways = in_the_way(told, asked, standing)
    those = [each for each, way in zip(told, ways, strict=True) if way is not False]
    unprivileged_from = seen.settings.unprivileged_from
    return ways, what_to_do(those, asked, bind, enter_command(wish.netns), unprivileged_from)


@cache
def _others(netns: int) -> Others:
    # None without root: what a user's own processes are in comes and goes. The same for all ports
    # that one command is asked about.
    return others(netns) if sees_others() else Others()


def claims(seen: Seen) -> list[Claim]:
    """Return the sockets of a look as claims, with the options that are known of each.

    Those that claim the same are one: 10,000 in TIME_WAIT want to be weighed once.
    """
    return list(dict.fromkeys(_claim(sock, seen) for sock in seen.socks))


def _claim(sock: Sock, seen: Seen) -> Claim:
    # connect(2) of a datagram socket only names its peer
    state = _STATES.get(sock.state, "connected") if sock.protocol == "tcp" else "bound"
    is_over = sock.timer == diag.TIMER_TIME_WAIT
    options = seen.options.get(sock.inode) or _of_its_listener(sock, seen)
    address = sock.address
    if sock.family == socket.AF_INET6 and ":" not in address:
        address = f"::ffff:{address}"
    return Claim(
        protocol=sock.protocol,
        address=address,
        port=sock.sport,
        v6only=sock.v6only if sock.family == socket.AF_INET6 else False,
        reuseaddr=options.reuseaddr if options else None,
        reuseport=options.reuseport if options else None,
        uid=-1 if is_over else sock.uid,
        state="time_wait" if is_over else state,
    )


_STATES = {diag.LISTEN: "listening", diag.BOUND: "bound", diag.CLOSE: "bound"}


def _of_its_listener(sock: Sock, seen: Seen) -> Options | None:
    # What a listener accepted has its options, after it was closed, too.
    for each in seen.listeners:
        if overlaps(each, sock.address):
            return seen.options.get(each.inode)
    return None


def hidden(closed: Sequence[int]) -> str:
    """Return in words which processes could not be looked into, and why."""
    if os.geteuid():
        return (
            f"the sockets of processes that may not be looked into: {len(closed)} (root sees them)"
        )
    those = [f"{processes.read_process(pid).comm} (pid {pid})" for pid in closed[:_MOST_NAMED]]
    more = f" and {len(closed) - _MOST_NAMED} more" if len(closed) > _MOST_NAMED else ""
    return (
        f"whether {', '.join(those)}{more} has a socket that is shown without a process: not even "
        "to this root does the kernel show what it has open (a security module, or a capability "
        "that porttrace lacks)"
    )


def service(port: int, protocol: str) -> str:
    """Return the name that /etc/services has for a port, "" for none."""
    try:
        return socket.getservbyport(port, protocol)
    except OSError:
        return ""


def _here(seen: Seen, wish: Wish) -> Here:
    allowed = seen.settings.nonlocal_v6 if ":" in wish.address else seen.settings.nonlocal_v4
    return Here(seen.settings.unprivileged_from, wish.uid == 0, is_local(wish.address), allowed)


def _trial(protocol: str, port: int, wish: Wish) -> tuple[str, int]:
    tried = try_bind(
        Ask(protocol, wish.address, port, wish.uid, wish.reuseaddr, wish.reuseport, wish.v6only,
            wish.listen and protocol == "tcp", wish.netns)
    )  # fmt: skip
    return tried.call, tried.errno


def _not_seen(protocol: str, seen: Seen, beside: Beside, is_held: bool) -> tuple[str, ...]:
    told = []
    # Where each socket's process was found, no other one matters.
    if seen.owners.closed and seen.lost():
        told.append(hidden(seen.owners.closed))
    if not is_held and unseen(protocol):
        told.append(unseen(protocol).removeprefix(", or "))
    if not sees_others():
        # Without a number: most of them do not even show, and the rest comes and goes.
        told.append("other network namespaces: they were not looked at (root may)")
    for pids, why in (
        (beside.closed, "may not be entered"),
        (beside.beyond, f"no more than {MOST_LOOKED_AT} are looked at; --netns PID does"),
    ):
        if pids:
            told.append(f"{_spaces(pids)}: {why}")
    return tuple(told)


def _spaces(pids: Sequence[int]) -> str:
    # Each by its oldest process, which `--netns` takes.
    those = ", ".join(f"pid {pid}" for pid in pids[:_MOST_NAMED])
    rest = f" and {len(pids) - _MOST_NAMED} more" if len(pids) > _MOST_NAMED else ""
    if len(pids) == 1:
        return f"another network namespace, that of {those}"
    return f"{len(pids)} other network namespaces, those of {those}{rest}"
