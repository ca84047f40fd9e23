"""Which addresses a network namespace has, read without netlink: may a socket be bound to one?"""

import contextlib
import ipaddress
import re

_V4 = "/proc/thread-self/net/fib_trie"
_V6 = "/proc/thread-self/net/if_inet6"
# What inet_bind lets in besides local addresses: RTN_BROADCAST and RTN_MULTICAST.
_LEAF = re.compile(r"\|-- (\S+)|/(\d+) host (LOCAL|BROADCAST)|/(\d+) link (BROADCAST)")


def is_local(address: str) -> bool | None:
    """Return whether the network namespace of the calling thread has `address`.

    True for wildcards and for IPv4 groups; None where that cannot be told.
    """
    wanted = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(wanted, ipaddress.IPv6Address) and wanted.ipv4_mapped:
        wanted = wanted.ipv4_mapped
    if wanted.is_unspecified or wanted.is_multicast:
        return True
    if isinstance(wanted, ipaddress.IPv4Address):
        text = _read(_V4)
        return any(wanted in net for net in _local_v4(text)) if text else None
    text = _read(_V6)
    return any(line.startswith(wanted.packed.hex()) for line in text.splitlines()) if text else None


def _local_v4(text: str) -> list[ipaddress.IPv4Network]:
    found, leaf = [], "0.0.0.0"
    for match in _LEAF.finditer(text):
        if match[1]:
            leaf = match[1]
        else:
            found.append(ipaddress.IPv4Network((leaf, match[2] or match[4]), strict=False))
    return found


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        return file.read()
    return ""
