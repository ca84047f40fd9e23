"""Numbers of things and ends of connections in sentences: `1 attempt`, `[2001:db8::2]:80`."""

from functools import lru_cache
from ipaddress import IPv6Address


def count(number: int, noun: str, shown: str = "") -> str:
    """Return the number with its noun, `1 attempt`, `2 attempts`, `2 processes`.

    `shown` is how the number is written where not as digits alone, as `1,024`.
    """
    more = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{shown or number} {noun}{'' if number == 1 else more}"


@lru_cache(maxsize=65_536)
def plain_address(packed: bytes) -> str:
    """Return 16 address bytes as text without brackets, IPv4 unmapped."""
    ip = IPv6Address(packed)
    return str(ip.ipv4_mapped or ip)


def bracketed(address: str) -> str:
    """Return an address as it stands before a port: that of IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def endpoint(address: str, port: int) -> str:
    """Return `192.0.2.2:80` or `[2001:db8::2]:80` of a plain address."""
    return f"{bracketed(address)}:{port}"
