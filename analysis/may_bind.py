"""Would a bind succeed, by rule: rights, address and the sockets that stand, in the kernel's order.

The rule of sharing is in `sharing`; here it meets all sockets of a port, and what the kernel checks
before: __inet_bind of net/ipv4/af_inet.c (the address, then the right to the port, then the port)
and __inet6_bind of net/ipv6/af_inet6.c (the right first).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EACCES, EADDRNOTAVAIL, EINVAL
from ipaddress import IPv6Address, ip_address

from porttrace.analysis import sharing
from porttrace.analysis.sharing import Call, Claim


@dataclass(frozen=True)
class Here:
    """What a network namespace and a user bring to a bind."""

    unprivileged_from: int = 1024  # ip_unprivileged_port_start
    may_privileged: bool = False  # CAP_NET_BIND_SERVICE
    address_is_local: bool | None = True  # None: not known
    nonlocal_allowed: bool = False  # ip_nonlocal_bind, or IP_FREEBIND of the socket


@dataclass(frozen=True)
class Verdict:
    """What comes of a call. More than one errno where something is not known; 0 is success."""

    errnos: frozenset[int]
    why: str

    @property
    def works(self) -> bool | None:
        """True, False, or None where it may do either."""
        return None if len(self.errnos) > 1 and 0 in self.errnos else 0 in self.errnos


_Check = Callable[[Claim, Here], Verdict | None]
FINE = Verdict(frozenset((0,)), "Nothing is in the way.")


def may_bind(asked: Claim, standing: Sequence[Claim], here: Here) -> Verdict:
    """Return what bind(2) of `asked` gets while the sockets `standing` have the port."""
    for check in _in_order(asked):
        found = check(asked, here)
        if found is not None:
            return found
    return conflict(asked, standing, "bind")


def may_listen(asked: Claim, standing: Sequence[Claim]) -> Verdict:
    """Return what listen(2) gets after a bind that worked."""
    return conflict(asked, standing, "listen")


def conflict(asked: Claim, standing: Sequence[Claim], call: Call) -> Verdict:
    """Return what the sockets that stand do to a call: the worst of them decides."""
    doubt: Verdict | None = None
    for first in standing:
        errnos = sharing.outcomes(first, asked, call)
        if 0 not in errnos:
            return Verdict(errnos, sharing.why(first, asked, call))
        if errnos != {0} and doubt is None:
            doubt = Verdict(errnos, _doubtful(first))
    return doubt or _shared(asked, standing, call)


def _shared(asked: Claim, standing: Sequence[Claim], call: Call) -> Verdict:
    beside = [each for each in standing if sharing.meet(each, asked)]
    return Verdict(FINE.errnos, sharing.why(beside[0], asked, call)) if beside else FINE


def _doubtful(first: Claim) -> str:
    what = {
        "time_wait": "The closed connection",
        "listening": "The listener",
        "connected": "The connection",
    }.get(first.state, "The socket that stands")
    return (
        f"{what} decides it by options (SO_REUSEADDR, SO_REUSEPORT) or an owner that cannot be "
        "seen from outside: a trial tells."
    )


def _in_order(asked: Claim) -> tuple[_Check, ...]:
    if ":" in asked.address:
        return (_group, _right, _impossible, _address)
    return (_address, _right)


def _group(asked: Claim, here: Here) -> Verdict | None:
    if ip_address(asked.address).is_multicast and asked.protocol == "tcp":
        return _fails(EINVAL, "TCP has no groups: a multicast address cannot be bound to.")
    return None


def _impossible(asked: Claim, here: Here) -> Verdict | None:
    ip = ip_address(asked.address)
    assert isinstance(ip, IPv6Address)
    if ip.ipv4_mapped and asked.v6only:
        return _fails(EINVAL, "IPV6_V6ONLY is set, and the address is one of IPv4.")
    if (ip.is_link_local or _is_near_group(ip)) and not ip.scope_id:
        return _fails(EINVAL, "A link-local address needs its device, as in fe80::1%eth0.")
    return None


def _is_near_group(ip: IPv6Address) -> bool:
    # ff01::/16 and ff02::/16: groups of the interface and of the link.
    return ip.is_multicast and ip.packed[1] & 0x0F in (1, 2)


def _right(asked: Claim, here: Here) -> Verdict | None:
    if not 0 < asked.port < here.unprivileged_from or here.may_privileged:
        return None
    return _fails(
        EACCES,
        f"Ports below {here.unprivileged_from} (net.ipv4.ip_unprivileged_port_start) take "
        "CAP_NET_BIND_SERVICE, which this user has not.",
    )


def _address(asked: Claim, here: Here) -> Verdict | None:
    if here.address_is_local or here.nonlocal_allowed:
        return None
    if here.address_is_local is None:
        return None
    return _fails(EADDRNOTAVAIL, f"{asked.address} is no address of this host (or namespace).")


def _fails(number: int, why: str) -> Verdict:
    return Verdict(frozenset((number,)), why)
