"""Sockets of a network namespace from sock_diag(7): the request, and the answer cut to messages.

Own netlink: pyroute2 spends 31 us on a message, this 0.6, and its import takes as long as all the
rest of a look. A namespace with 50,000 sockets is counted once a second in the background, and a
server that just restarted has 10,000 in TIME_WAIT on one port. So the kernel filters, and whoever
asks takes from each message what it needs.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator

# States as include/net/tcp_states.h numbers them, called as ss(8) calls them.
STATES = ("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
          "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "SYN_RECV", "BOUND")  # fmt: skip
ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE = range(1, 8)
CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING, NEW_SYN_RECV, BOUND = range(8, 14)
EVERY_STATE = tuple(range(ESTABLISHED, BOUND + 1))
TIMER_KEEPALIVE, TIMER_TIME_WAIT = 2, 3  # idiag_timer, as inet_sk_diag_fill sets it
FAMILIES = (socket.AF_INET, socket.AF_INET6)

INFO, V6ONLY = 2, 11
"""Attributes behind a message: INET_DIAG_INFO, which has to be asked for, INET_DIAG_SKV6ONLY."""

SOCKET_AT = 16
"""Where struct inet_diag_msg begins in each message."""
# Family, state, timer, retransmissions; ports in network order; addresses; device; cookie; expiry
# (ms), queues, uid, inode: struct inet_diag_msg of <linux/inet_diag.h>
SOCKET = struct.Struct("=BBBBHH16s16sIQIIIII")
STATE_AT, TIMER_AT, PORTS_AT, ADDRESSES_AT, COOKIE_AT, EXPIRES_AT, INODE_AT = (
    SOCKET_AT + at for at in (1, 2, 4, 8, 44, 52, 68)
)
ANY_COOKIE = b"\xff" * 8

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_ONE, _REQUEST_DUMP = 0x1, 0x301  # NLM_F_REQUEST, the same | NLM_F_DUMP
_DONE, _ERROR = 3, 2
_REQ_BYTECODE = 1
_SOURCE_GE, _SOURCE_LE = 2, 3  # operations of struct inet_diag_bc_op
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
# struct inet_diag_req_v2: family, protocol, attributes wanted, states; ends, any device, cookie
_REQUEST = struct.Struct("=BBBxI36s4x8s")
_LENGTH_TYPE = struct.Struct("=IH")
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_BUFFER, _ONE = 1 << 17, 1 << 12  # bytes of many messages, and of one
_WAIT_S = 5.0


def opened(timeout_s: float = _WAIT_S) -> socket.socket:
    """Return a socket that asks in the calling thread's network namespace. Raises OSError."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    netlink.settimeout(timeout_s)
    return netlink


def one(
    netlink: socket.socket, family: int, ends: bytes, cookie: bytes = ANY_COOKIE
) -> bytes | None:
    """Return the message of the TCP socket between `ends`, None where the kernel names none.

    `ends` are its ports (network order) and addresses (16 bytes each), as in a message from
    `PORTS_AT` on. With a `cookie` only that very socket is found, no later one on the same ports.
    `netlink` is of `opened`. Raises OSError.
    """
    wanted = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF, ends, cookie)
    netlink.send(_request(_REQUEST_ONE, wanted))
    reply = netlink.recv(_ONE)
    return reply if _LENGTH_TYPE.unpack_from(reply)[1] == _SOCK_DIAG_BY_FAMILY else None


def _request(flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, flags, 1, 0) + body


def messages(
    family: int,
    protocol: int = socket.IPPROTO_TCP,
    states: tuple[int, ...] = EVERY_STATE,
    *,
    port: int = 0,
    ports: tuple[int, int] | None = None,
    info: bool = False,
    until_s: float = float("inf"),
) -> Iterator[bytes]:
    """Yield each socket's message, header included, of the calling thread's network namespace.

    `port` (not 0) and `ports` (first and last) are local ones, compared by the kernel; sockets that
    are bound only it tells whatever their `port`. `info` asks for `INFO`. The dump is left at
    `until_s` of time.monotonic(). Raises OSError.
    """
    with opened() as netlink:
        wanted = sum(1 << state for state in states)
        extensions = 1 << INFO - 1 if info else 0
        ends = struct.pack("!H", port)
        body = _REQUEST.pack(family, protocol, extensions, wanted, ends, bytes(8))
        netlink.send(_request(_REQUEST_DUMP, body + (_bytecode(*ports) if ports else b"")))
        while time.monotonic() < until_s:
            data = netlink.recv(_BUFFER)
            at, size = 0, len(data)
            while at + 6 <= size:
                length, kind = _LENGTH_TYPE.unpack_from(data, at)
                if kind in (_DONE, _ERROR) or length < SOCKET_AT:
                    return _raise(data, at)
                yield data[at : at + length]
                at += (length + 3) & ~3


# The end of a dump tells an error as well: DONE and ERROR both begin with its negative number.
def _raise(data: bytes, at: int) -> None:
    at += _HEADER.size
    code = struct.unpack_from("=i", data, at)[0] if len(data) >= at + 4 else 0
    if code < 0:
        raise OSError(-code, os.strerror(-code))


# Two operations: each goes on at `yes`, or leaves by `no`, four bytes past the end: refused.
def _bytecode(first: int, last: int) -> bytes:
    operation = struct.Struct("=BBH")
    code = operation.pack(_SOURCE_GE, 8, 20) + operation.pack(0, 0, first)
    code += operation.pack(_SOURCE_LE, 8, 12) + operation.pack(0, 0, last)
    return struct.pack("=HH", 4 + len(code), _REQ_BYTECODE) + code


def attributes(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and value of what stands behind the socket in a message."""
    at, end = SOCKET_AT + SOCKET.size, len(message)
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        yield kind, message[at + 4 : at + length]
        at += max(length, 4) + 3 & ~3
