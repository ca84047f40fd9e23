"""A full table of tracked connections, on the lab's client host alone.

The kernel counts entries by network namespace, against one limit for the whole machine. That limit
is left as it is: what fills the table are entries of nobody, put in through ctnetlink
(include/uapi/linux/netfilter/nfnetlink_conntrack.h). They are marked as assured, since the kernel
throws others out where it needs room (net/netfilter/nf_conntrack_core.c, early_drop). Once a packet
found no room they stay for a moment, and are then removed; so they are with the namespace.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import time
from collections.abc import Iterator

from porttrace.lab.errors import LabError
from porttrace.lab.peer import parse_and_bind, say_ready
from porttrace.lab.throttles import netlink
from porttrace.lab.throttles.netlink import attribute
from porttrace.tracer.shortage import conntrack

MOST_ENTRIES = 1_000_000
"""A table with room for more is not filled: it would take more than 300 MB of kernel memory."""

_NETFILTER, _CTNETLINK = 12, 1 << 8
_NEW, _DELETE = _CTNETLINK | 0, _CTNETLINK | 2
_EXCL, _CREATE = 0x200, 0x400
_NESTED = 0x8000
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _TIMEOUT = 1, 2, 3, 7
_SEEN_REPLY, _ASSURED, _CONFIRMED = 2, 4, 8
_UDP = 17
_ENDS = socket.inet_aton("198.51.100.1"), socket.inet_aton("198.51.100.2")
_AT_ONCE, _PORTS = 100, 60_000
_LASTS_S, _LOOK_S = 300, 0.1


def _tuple(kind: int, source: bytes, to: bytes, sport: int, dport: int) -> bytes:
    ports = attribute(2, struct.pack("!H", sport)) + attribute(3, struct.pack("!H", dport))
    addresses = attribute(1, source) + attribute(2, to)
    protocol = attribute(1, bytes([_UDP])) + ports
    both = attribute(1 | _NESTED, addresses) + attribute(2 | _NESTED, protocol)
    return attribute(kind | _NESTED, both)


def _message(kind: int, flags: int, attributes: bytes = b"") -> bytes:
    family = struct.pack("=BBH", socket.AF_INET, 0, 0)
    return netlink.message(kind, netlink.REQUEST | flags, family + attributes)


def entry(number: int) -> bytes:
    """Return the message that puts in entry `number` (from 0): UDP, between hosts that are none."""
    sport, dport = number % _PORTS + 1, number // _PORTS + 1
    near, far = _ENDS
    state = struct.pack("!I", _SEEN_REPLY | _ASSURED | _CONFIRMED)
    return _message(
        _NEW,
        _CREATE | _EXCL,
        _tuple(_TUPLE_ORIG, near, far, sport, dport)
        + _tuple(_TUPLE_REPLY, far, near, dport, sport)
        + attribute(_STATUS, state)
        + attribute(_TIMEOUT, struct.pack("!I", _LASTS_S)),
    )


def fill(most: int) -> None:
    """Put in `most` entries. Raises LabError where the kernel takes fewer."""
    why = ""
    try:
        with _opened() as kernel:
            for first in range(0, most, _AT_ONCE):
                kernel.send(b"".join(map(entry, range(first, min(first + _AT_ONCE, most)))))
    except OSError as error:
        why = f" ({error.strerror})"
    there = conntrack().get("count", 0)
    if there < most:
        raise LabError(
            f"the table of tracked connections took {there} of {most} entries{why}",
            "it needs the kernel module nf_conntrack_netlink: modprobe nf_conntrack_netlink",
        )


def clear() -> None:
    """Remove every entry of this network namespace."""
    with _opened() as kernel:
        kernel.send(_message(_DELETE, netlink.ACK))
        kernel.recv(4096)


def drops() -> int:
    """Return how many packets found no room in this network namespace."""
    return conntrack().get("drop", 0)


def room() -> int:
    """Return how many entries the table has room for. Raises LabError where none may be filled."""
    most = conntrack().get("max", 0)
    if not most:
        raise LabError(
            "this kernel tracks no connections",
            "load its part for that: modprobe nf_conntrack nf_conntrack_netlink",
        )
    if most > MOST_ENTRIES:
        raise LabError(
            f"the table of tracked connections has room for {most} entries: to fill it would take"
            f" about {most * 320 // 1_000_000} MB of kernel memory",
            f"run it on a machine whose nf_conntrack_max is at most {MOST_ENTRIES}",
        )
    return most


def _opened() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)


def _turns(seconds: float) -> Iterator[None]:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        yield
        time.sleep(_LOOK_S)


def main() -> int:
    """Fill the table, keep it full until `--keep` seconds after the first drop, and clear it."""
    parser = argparse.ArgumentParser(prog="porttrace.lab.tracking", description=__doc__)
    parser.add_argument("--keep", type=float, default=4.0, metavar="S")
    options = parse_and_bind(parser)
    try:
        fill(room())
    except LabError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_status
    say_ready()
    for _ in _turns(_LASTS_S):
        if drops():
            time.sleep(options.keep)
            break
    clear()
    return 0


if __name__ == "__main__":
    sys.exit(main())
