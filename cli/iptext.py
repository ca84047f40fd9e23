"""IP addresses as people write them."""

from typing import Any


def ip_text(address: Any) -> str:
    """Return an address of `ipaddress` as text; IPv4 within IPv6 keeps its dots.

    Python before 3.13 writes ::ffff:127.0.0.1 as ::ffff:7f00:1.
    """
    mapped = getattr(address, "ipv4_mapped", None)
    return f"::ffff:{mapped}" if mapped else str(address)
