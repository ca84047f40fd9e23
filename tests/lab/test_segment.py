"""The headers of a packet, as the kernel hands them over: whose SYN, or whose answer."""

from __future__ import annotations

import socket
import struct

import pytest

from porttrace.lab.throttles import netlink
from porttrace.lab.throttles.segment import Ends, Segment, parse

SYN, SYN_ACK, RST_ACK = 0x02, 0x12, 0x14
CLIENT, SERVER = socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")
CLIENT6, SERVER6 = (socket.inet_pton(socket.AF_INET6, f"2001:db8::{n}") for n in (1, 2))


def tcp(sport: int, dport: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 5 << 4, flags, 64, 0, 0)


def ipv4(
    source: bytes, target: bytes, payload: bytes, options: bytes = b"", kind: int = 6
) -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 4 << 4 | words, 0, 0, 0, 0, 64, kind, 0)
    return head + source + target + options + payload


def ipv6(source: bytes, target: bytes, payload: bytes, kind: int = 6) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), kind, 64) + source + target + payload


V4 = Ends(socket.AF_INET, CLIENT, 40000, SERVER, 80)
V6 = Ends(socket.AF_INET6, CLIENT6, 40000, SERVER6, 80)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (ipv4(CLIENT, SERVER, tcp(40000, 80, SYN)), Segment(V4, answer=False)),
        (ipv4(CLIENT, SERVER, tcp(40000, 80, SYN), bytes(8)), Segment(V4, answer=False)),
        (ipv4(SERVER, CLIENT, tcp(80, 40000, SYN_ACK)), Segment(V4, answer=True)),
        (ipv6(CLIENT6, SERVER6, tcp(40000, 80, SYN)), Segment(V6, answer=False)),
        (ipv6(SERVER6, CLIENT6, tcp(80, 40000, SYN_ACK)), Segment(V6, answer=True)),
        (
            # eight bytes of hop-by-hop options, then destination options of sixteen
            ipv6(
                *(CLIENT6, SERVER6),
                *(bytes((60, 0)) + bytes(6) + bytes((6, 1)) + bytes(14) + tcp(40000, 80, SYN), 0),
            ),
            Segment(V6, answer=False),
        ),
        (ipv4(CLIENT, SERVER, tcp(40000, 80, RST_ACK)), None),
        (ipv4(CLIENT, SERVER, tcp(40000, 80, SYN), kind=17), None),
        (ipv4(CLIENT, SERVER, tcp(40000, 80, SYN))[:30], None),
        (b"", None),
        (b"\x60", None),
    ],
)
def test_a_packet_tells_its_attempt(data: bytes, expected: Segment | None) -> None:
    assert parse(data) == expected


def test_netlink_is_read_as_it_is_written() -> None:
    body = netlink.attribute(3, b"abc") + netlink.attribute(7 | 1 << 15, b"")
    assert netlink.attributes(body) == {3: b"abc", 7: b""}
    assert netlink.attributes(body[:6]) == {}
    both = netlink.message(20, 1, b"abcd") + netlink.message(2, 0, b"")
    assert list(netlink.messages(both)) == [(20, b"abcd"), (2, b"")]
