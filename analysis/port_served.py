"""Is a wanted port served: by the service itself, and on all addresses that it wants?"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from porttrace.tracer.facts import Holder

SERVES = ("listener", "udp")


class Service(Protocol):
    """What a file says of a service; see port_check.Wanted."""

    @property
    def address(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def uid(self) -> int: ...
    @property
    def process(self) -> str: ...
    @property
    def v6only(self) -> bool: ...


def is_its(wanted: Service, holder: Holder) -> bool:
    """Return whether a holder is a socket of the wanted service, as far as can be seen.

    Where the process does not show (another user's, without root) the user decides; `is_verified`
    tells that apart.
    """
    user = not wanted.owner or holder.uid == wanted.uid
    process = not wanted.process or not holder.comm or holder.comm == wanted.process
    return user and process


def is_verified(wanted: Service, holder: Holder) -> bool:
    """Return whether the holder showed all that the file asks of it."""
    return not wanted.process or bool(holder.comm)


def serving(wanted: Service, holders: Sequence[Holder]) -> list[Holder]:
    """Return the sockets that serve the port for the wanted service, on whatever address."""
    # A UDP socket that is connected hears one peer alone.
    return [
        each
        for each in holders
        if each.kind in SERVES and each.state != "ESTABLISHED" and is_its(wanted, each)
    ]


def unserved(wanted: Service, sockets: Sequence[Holder]) -> list[str]:
    """Return which clients of the wanted address get nothing from `sockets`, in words."""
    return [
        f"{word}{_but_some(sockets, family)}"
        for word, family in _parts(wanted)
        if not _serves(sockets, family, wanted.address)
    ]


def _but_some(sockets: Sequence[Holder], family: int) -> str:
    served = any(_address(each.address).version == family for each in sockets)
    return " to its other addresses" if served else ""


def _parts(wanted: Service) -> Iterator[tuple[str, int]]:
    # A wildcard of IPv6 takes two kinds of clients, every other address takes one.
    ip = _address(wanted.address)
    if not ip.is_unspecified:
        yield f"clients of {wanted.address}", ip.version
        return
    if ip.version == 6:
        yield "clients over IPv6", 6
    if ip.version == 4 or not wanted.v6only:
        yield "clients over IPv4", 4


def _serves(sockets: Sequence[Holder], family: int, address: str) -> bool:
    wanted = _address(address)
    return any(
        _is_wide(each, family) or (not wanted.is_unspecified and _address(each.address) == wanted)
        for each in sockets
    )


def _is_wide(holder: Holder, family: int) -> bool:
    ip = _address(holder.address)
    if not ip.is_unspecified:
        return False
    return ip.version == family or (ip.version == 6 and not holder.v6only)


def _address(text: str) -> IPv4Address | IPv6Address:
    ip = ip_address(text.partition("%")[0])
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip
