"""Whether two local addresses of one port can be in each other's way at all."""

import socket

from porttrace.tracer.diag import BOUND, CLOSE, LISTEN
from porttrace.tracer.ports.socks import Sock

_MAPPED = bytes(10) + b"\xff\xff"
_ANY4, _ANY6 = bytes(4), bytes(16)


def packed(address: str) -> bytes:
    """Return an address as 4 or 16 bytes; IPv4 through IPv6 as IPv4. Raises ValueError."""
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        raw = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        raise ValueError(f"{address!r} is no IP address") from None
    return raw[12:] if raw[:12] == _MAPPED else raw


def overlaps(sock: Sock, address: str, v6only: bool = False) -> bool:
    """Return whether a bind to `address` meets `sock`, whose port is the same.

    "" is any address. `v6only` is the option of the socket that is to be bound; of one that exists
    and whose option the kernel does not tell, the default is assumed: it takes IPv4, too.
    """
    if not address:
        return True
    theirs, ours = packed(sock.address), packed(address)
    if ours == _ANY4 and _is_half(sock, theirs):
        return True
    return theirs == ours or _covers(theirs, sock.v6only, ours) or _covers(ours, v6only, theirs)


def _is_half(sock: Sock, theirs: bytes) -> bool:
    # Bound to a wildcard or to nothing, then connected over IPv6: it collides with 0.0.0.0 all the
    # same (inet_rcv_saddr_equal). bind() to an IPv6 address itself makes a socket IPv6-only.
    return len(theirs) == 16 and not sock.v6only and sock.state not in (BOUND, CLOSE, LISTEN)


def _covers(wide: bytes, v6only: bool | None, one: bytes) -> bool:
    # Whether the wildcard `wide` takes `one`, too.
    if wide == _ANY4:
        return len(one) == 4
    if wide == _ANY6:
        return len(one) == 16 or not v6only
    return False
