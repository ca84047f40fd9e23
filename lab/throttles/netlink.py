"""Netlink as bytes: a message of attributes is packed and taken apart, and nothing else.

Netlink is a binary protocol over a socket; see include/uapi/linux/netlink.h. For the reader of the
packet queue and for entries of connection tracking; sockets are looked up through
porttrace.tracer.diag.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

REQUEST = 1
ACK = 4
ERROR = 2
HEAD = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF  # the upper two bits of an attribute's type are flags


def message(kind: int, flags: int, body: bytes) -> bytes:
    """Return one netlink message with its header in front."""
    return HEAD.pack(HEAD.size + len(body), kind, flags, 0, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    head = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind)
    return head + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Read a row of attributes: type -> value. What is cut off is left out."""
    return dict(_each_attribute(data))


def _each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += length + -length % 4


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Take what one recv() returned apart: type and body of each message."""
    at = 0
    while at + HEAD.size <= len(data):
        length, kind, _flags, _sequence, _port = HEAD.unpack_from(data, at)
        if length < HEAD.size:
            return
        yield kind, data[at + HEAD.size : at + length]
        at += length + -length % 4
