"""May a second socket have a port that a first one keeps? The kernel's own rules, without a kernel.

`porttrace lab binds` makes every combination for real and compares it with `predict`. The rules are
those of Linux 5.10 to 6.18 (docs/ports.md has one mistake of 6.1), as the source of 6.18 has them:

inet_csk_get_port, inet_csk_bind_conflict, inet_bind_conflict (net/ipv4/inet_connection_sock.c)
    TCP, at bind(2), and once more at listen(2) through inet_csk_listen_start.
inet_rcv_saddr_equal, inet_bhash2_addr_any_conflict (the same file)
    which local addresses meet.
udp_lib_get_port, udp_lib_lport_inuse (net/ipv4/udp.c)
    UDP.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from errno import EADDRINUSE, EOPNOTSUPP
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from porttrace.tracer.words import endpoint

Call = Literal["bind", "listen"]
STATES = ("bound", "listening", "connected", "time_wait")


@dataclass(frozen=True)
class Claim:
    """What a socket has of a local port, or asks of it; options as they stood at its bind.

    An option that is None is not known: `predict` takes it for not set, `outcomes` tries both.
    """

    protocol: str = "tcp"  # tcp or udp
    address: str = "0.0.0.0"  # with a colon it is a socket of AF_INET6: "::", "::ffff:192.0.2.1"
    port: int = 0  # 0 in the second claim: the kernel chooses a free one
    v6only: bool | None = False  # IPV6_V6ONLY
    reuseaddr: bool | None = False
    reuseport: bool | None = False
    uid: int = 0  # of the one who made the socket, -1 not known
    state: str = "bound"  # of STATES; every other state of TCP counts as connected
    device: str = ""  # SO_BINDTODEVICE


def predict(first: Claim, second: Claim, call: Call = "bind") -> int:
    """Return the errno that `call` of the second socket gets while the first one stands, or 0.

    For "listen" the second socket is bound already (before the first came into its state), and
    now wants to listen. Two sockets of one network namespace are meant: others never collide.
    Raises ValueError for an address that is none.

    TCP (inet_bind_conflict), where protocol, port, device and addresses meet:

    - SO_REUSEADDR on both lets the second in, whoever owns it, unless the first listens;
    - SO_REUSEPORT on both does so, listening or not, if one user made both sockets; the user
      does not matter beside a socket in TIME_WAIT;
    - all else is EADDRINUSE. What counts in TIME_WAIT is what the closed socket had set.

    A socket that connects keeps its port, but only on the address that the connection has
    (inet_bhash2_update_saddr).

    UDP (udp_lib_lport_inuse): SO_REUSEADDR on both lets the second in, whoever owns it; then
    SO_REUSEPORT on both, of one user. There is no listen(2): EOPNOTSUPP.

    What a port remembers of sockets that are gone is not in it: beside the connections that a
    listener with SO_REUSEPORT has left, whoever made that listener may still come in, even where
    another user had accepted them (fastuid, sk_reuseport_match).
    """
    return _ERRNO_OF[_reason(first, second, call)]


def outcomes(first: Claim, second: Claim, call: Call = "bind") -> frozenset[int]:
    """Return all errnos (0: it works) that are possible, given what is not known of the claims."""
    uids = (second.uid, -1) if first.uid < 0 else (first.uid,)
    return frozenset(
        predict(replace(one, uid=uid), other, call)
        for one, other in itertools.product(_known(first), _known(second))
        for uid in uids
    )


def several(standing: Iterable[Claim], second: Claim, call: Call = "bind") -> frozenset[int]:
    """Return all errnos (0: it works) that `call` of `second` may get beside several sockets.

    Whoever of them is in the way is enough. One case is open: where `second` belongs to a group
    with SO_REUSEPORT that stands already, the kernel may let it in by that alone, and not look at
    the others (sk_reuseport_match; udp_lib_lport_inuse ends at the first of the group that it
    meets). Those can only be there by SO_REUSEADDR.
    """
    standing = tuple(standing)
    per_socket = [outcomes(first, second, call) for first in standing]
    failing = frozenset().union(*per_socket) - {0}
    if not failing:
        return frozenset((0,))
    in_the_way = not all(0 in errnos for errnos in per_socket)
    may_work = not in_the_way or any(_in_one_group(first, second) for first in standing)
    return failing | {0} if may_work else failing


def why(first: Claim, second: Claim, call: Call = "bind") -> str:
    """Return one plain sentence that says why the call works, or why it fails."""
    text = _SENTENCE_OF[_reason(first, second, call)]
    return text.format(
        first=_shown(first),
        second=_shown(second),
        holds=_HOLDS.get(first.state, _HOLDS["connected"]),
        port=second.port,
        protocol=second.protocol.upper(),
    )


def meet(first: Claim, second: Claim) -> bool:
    """Tell whether the local addresses collide, port and options aside.

    inet_rcv_saddr_equal where the second asks for a wildcard, inet_bhash2_addr_any_conflict and
    the bucket of the same address otherwise. One thing is not as it seems: an IPv6 socket that was
    bound to `::` or to nothing, and is connected over IPv6, has no IPv6-only flag; it still
    collides with 0.0.0.0, though not with any IPv4 address.
    """
    one, other = _address(first), _address(second)
    if isinstance(other, IPv6Address) and not other.ipv4_mapped:
        if isinstance(one, IPv6Address) and not one.ipv4_mapped:
            return _is_any(one) or _is_any(other) or one == other
        return _is_any(other) and not second.v6only
    if isinstance(one, IPv6Address) and not one.ipv4_mapped:
        if _is_any(one):
            return not _v6only(first)
        return other == _ANY_V4 and not _v6only(first)
    one_v4, other_v4 = _v4(one), _v4(other)
    return _ANY_V4 in (one_v4, other_v4) or one_v4 == other_v4


_ANY_V4 = IPv4Address("0.0.0.0")

# The reasons, each with what comes of it; predict and why both start here, and so never differ.
_ERRNO_OF = {
    "protocol": 0,
    "any-port": 0,
    "port": 0,
    "device": 0,
    "address": 0,
    "family": 0,
    "reuseaddr": 0,
    "udp-reuseaddr": 0,
    "reuseport": 0,
    "reuseport-time-wait": 0,
    "no-listen": EOPNOTSUPP,
    "other-user": EADDRINUSE,
    "listener": EADDRINUSE,
    "time-wait": EADDRINUSE,
    "half-connected": EADDRINUSE,
    "one-sided": EADDRINUSE,
    "taken": EADDRINUSE,
    "unset": EADDRINUSE,
}

_SENTENCE_OF = {
    "protocol": "TCP and UDP ports are counted apart.",
    "any-port": "Port 0 asks for any free port, so nothing collides.",
    "port": "The two want different ports.",
    "device": "The two are bound to different devices.",
    "address": "{first} and {second} share no address, so each may have port {port}.",
    "family": "{first} and {second} share no address: a socket that is for IPv6 only (IPV6_V6ONLY, "
    "or bound to an IPv6 address) leaves IPv4 alone.",
    "reuseaddr": "Both set SO_REUSEADDR, and the first does not listen.",
    "udp-reuseaddr": "Both set SO_REUSEADDR; with UDP that is enough, whoever owns them.",
    "reuseport": "Both set SO_REUSEPORT, and one user made them: they share the port on purpose.",
    "reuseport-time-wait": "Both set SO_REUSEPORT, and a closed connection has no user.",
    "no-listen": "UDP sockets do not listen.",
    "other-user": "Both set SO_REUSEPORT, but different users made them: that option shares a port "
    "within one user only.",
    "listener": "The first listens on {first}, and beside a listener SO_REUSEADDR is no help: it "
    "takes SO_REUSEPORT on both, of one user.",
    "time-wait": "The socket of a closed connection of {first} had not set "
    "SO_REUSEADDR before bind: that the second sets it is not enough.",
    "half-connected": "The first socket is of IPv6 and is not for IPv6 only: even connected, it "
    "still collides with the IPv4 wildcard.",
    "one-sided": "{first} {holds}, and an option for sharing counts only when both sockets have "
    "set the same one before bind.",
    "taken": "{first} {holds}, and neither socket has set an option for sharing.",
    "unset": "{first} {holds}, and this bind sets no option for sharing.",
}

_HOLDS = {
    "bound": "is bound to the port",
    "listening": "listens on the port",
    "connected": "is a connection on the port",
    "time_wait": "was closed and still keeps the port",  # also an orphan in FIN_WAIT2
}


def _reason(first: Claim, second: Claim, call: Call) -> str:
    if first.protocol != second.protocol:
        return "protocol"
    if call == "listen" and second.protocol == "udp":
        return "no-listen"
    if not second.port:
        return "any-port"
    if first.port != second.port:
        return "port"
    if first.device and second.device and first.device != second.device:
        return "device"
    if not meet(first, second):
        return "address" if _is_v4(first) == _is_v4(second) else "family"
    return _shared_reason(first, second) or _conflict(first, second)


# Why the two may share what both want; "" where they may not.
def _shared_reason(first: Claim, second: Claim) -> str:
    if first.reuseaddr and second.reuseaddr:
        if first.protocol == "udp":
            return "udp-reuseaddr"
        if first.state != "listening":
            return "reuseaddr"
    if first.reuseport and second.reuseport:
        if first.uid == second.uid:
            return "reuseport"
        if first.state == "time_wait":
            return "reuseport-time-wait"
    return ""


def _conflict(first: Claim, second: Claim) -> str:
    if first.reuseport and second.reuseport:
        return "other-user"
    if first.reuseaddr and second.reuseaddr:
        return "listener"
    if first.state == "time_wait" and second.reuseaddr:
        return "time-wait"
    if _is_v4(second) and not _is_v4(first) and not _is_any(_address(first)):
        return "half-connected"
    if any((first.reuseaddr, first.reuseport, second.reuseaddr, second.reuseport)):
        return "one-sided"
    # Not known of the first: that does not matter, for it takes both.
    return "unset" if None in (first.reuseaddr, first.reuseport) else "taken"


def _address(claim: Claim) -> IPv4Address | IPv6Address:
    return ip_address(claim.address)


def _is_any(address: IPv4Address | IPv6Address) -> bool:
    return address.is_unspecified


# The IPv4 address of an IPv4 socket or of a mapped one, None for IPv6 proper.
def _v4(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    return address if isinstance(address, IPv4Address) else address.ipv4_mapped


def _in_one_group(first: Claim, second: Claim) -> bool:
    same_port = (first.protocol, first.port) == (second.protocol, second.port)
    both = first.reuseport is not False and second.reuseport is not False
    return same_port and both and first.uid in (second.uid, -1)


def _is_v4(claim: Claim) -> bool:
    return _v4(_address(claim)) is not None


# inet6_bind makes a socket that it binds to an IPv6 address one for IPv6 only, without the option.
# A connection may have come by its address otherwise, so there only the claim itself counts.
def _v6only(claim: Claim) -> bool:
    bound = claim.state in ("bound", "listening")
    return bool(claim.v6only) or (bound and not _is_any(_address(claim)))


def _known(claim: Claim) -> Iterator[Claim]:
    ways = (_ways(value) for value in (claim.v6only, claim.reuseaddr, claim.reuseport))
    for v6only, reuseaddr, reuseport in itertools.product(*ways):
        yield replace(claim, v6only=v6only, reuseaddr=reuseaddr, reuseport=reuseport)


def _ways(value: bool | None) -> tuple[bool, ...]:
    return (False, True) if value is None else (value,)


def _shown(claim: Claim) -> str:
    return endpoint(claim.address, claim.port)
