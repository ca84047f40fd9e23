"""Reads the two headers of a queued packet: whose attempt is it, and is it a SYN or its answer."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_TCP = 6
_SYN, _ACK = 0x02, 0x10
# Hop-by-hop, routing, fragment, authentication and destination options come before TCP.
_EXTENSIONS = {0, 43, 60}


@dataclass(frozen=True, slots=True)
class Ends:
    """The four names of an attempt as its client sees them: addresses as packed bytes."""

    family: int
    saddr: bytes
    sport: int
    daddr: bytes
    dport: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A SYN, or (`answer`) a SYN-ACK, with the ends of the attempt that it belongs to."""

    ends: Ends
    answer: bool


def parse(data: bytes) -> Segment | None:
    """Read a packet from its IP header on; None where it is neither a SYN nor a SYN-ACK."""
    try:
        version = data[0] >> 4
        if version == 4:
            return _segment(socket.AF_INET, data[12:16], data[16:20], _tcp_v4(data))
        if version == 6:
            return _segment(socket.AF_INET6, data[8:24], data[24:40], _tcp_v6(data))
    except (IndexError, struct.error):
        pass
    return None


def _tcp_v4(data: bytes) -> bytes:
    return data[(data[0] & 15) * 4 :] if data[9] == _TCP else b""


def _tcp_v6(data: bytes) -> bytes:
    kind, at = data[6], 40
    while kind in _EXTENSIONS:
        kind, at = data[at], at + 8 * (data[at + 1] + 1)
    return data[at:] if kind == _TCP else b""


def _segment(family: int, source: bytes, target: bytes, tcp: bytes) -> Segment | None:
    sport, dport = struct.unpack_from("!HH", tcp)
    flags = tcp[13] & (_SYN | _ACK)
    if flags == _SYN:
        return Segment(Ends(family, source, sport, target, dport), answer=False)
    if flags == _SYN | _ACK:
        return Segment(Ends(family, target, dport, source, sport), answer=True)
    return None
