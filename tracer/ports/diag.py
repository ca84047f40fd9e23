"""TCP and UDP sockets of a network namespace, asked through sock_diag(7).

Our own reading of the answers, not pyroute2's: a server that just restarted has 10,000 sockets in
TIME_WAIT on one port, and an answer about a port is wanted within a second. Reading these took
0.04 s of a CPU here and 0.4 s there, and to import it takes as long as all the rest of a look. The
kernel filters by port, so that only few of many sockets come over.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from porttrace.tracer.errors import PorttraceError

# States as include/net/tcp_states.h numbers them, called as ss(8) calls them.
STATES = ("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
          "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "SYN_RECV", "BOUND")  # fmt: skip
ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE = range(1, 8)
CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING, NEW_SYN_RECV, BOUND = range(8, 14)
TIMER_KEEPALIVE, TIMER_TIME_WAIT = 2, 3  # idiag_timer, as inet_sk_diag_fill sets it

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
FAMILIES = (socket.AF_INET, socket.AF_INET6)

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_DUMP_REQUEST = 0x301
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_REQUEST = struct.Struct("=BBBxI2s2s16s16sIQ")  # struct inet_diag_req_v2
_SOCKET = struct.Struct("=BBBBHH16s16sIQIIIII")  # struct inet_diag_msg
_EVERY_STATE = (1 << BOUND + 1) - 2
_INFO, _V6ONLY = 2, 11  # INET_DIAG_INFO, INET_DIAG_SKV6ONLY
_MAPPED = bytes(10) + b"\xff\xff"
_WAIT_S = 2.0


class Sock(NamedTuple):
    """One socket as the kernel describes it; ports in host order."""

    protocol: str  # tcp or udp
    family: int
    state: int
    timer: int
    expires_ms: int  # when `timer` fires
    src: bytes  # 4 or 16 bytes, as the family has it
    sport: int
    dst: bytes
    dport: int
    device: int  # index of the device that it is bound to, 0 for all
    cookie: int
    uid: int
    inode: int  # 0: no process has it open (any more, or yet)
    queued: int  # of a listener: connections that wait to be accepted
    backlog: int  # of a listener: how many may
    v6only: bool | None  # None: IPv4, or the kernel does not tell
    age_ms: int  # since it was established, where nothing was sent yet; else -1

    @property
    def address(self) -> str:
        """The local address; IPv4 through an IPv6 socket is shown as IPv4."""
        return _text(self.src)

    @property
    def remote(self) -> str:
        """The other end as address:port, "" where there is none."""
        address = _text(self.dst)
        if not self.dport:
            return ""
        return f"[{address}]:{self.dport}" if ":" in address else f"{address}:{self.dport}"


def _text(packed: bytes) -> str:
    # The kernel fills 16 bytes for both families; what IPv4 does not use stays zero.
    if packed[:12] == _MAPPED:
        packed = packed[12:]
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def dump(protocol: str, port: int = 0, closer: bool = False) -> list[Sock]:
    """Return the sockets of a protocol in the network namespace of the calling thread.

    Only those with local port `port` when it is not 0. `closer` asks for what tells the age of a
    connection, too. Raises PorttraceError when the kernel does not answer.
    """
    found: list[Sock] = []
    for family in FAMILIES:
        try:
            found += _dump(protocol, family, port, closer)
        except OSError as error:
            # No IPv6 in the kernel: there is nothing to report then.
            if family == socket.AF_INET6 and error.errno in (errno.ENOENT, errno.EAFNOSUPPORT):
                continue
            raise PorttraceError(
                f"the kernel does not list {protocol} sockets: sock_diag says {error.strerror}",
                f"a kernel with CONFIG_INET_{protocol.upper()}_DIAG lists them: "
                f"sudo modprobe {protocol}_diag",
            ) from None
    return found


def _dump(protocol: str, family: int, port: int, closer: bool) -> Iterator[Sock]:
    # The kernel does not compare the port of sockets that are bound only, so we do it again.
    wanted = struct.pack("!H", port)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asked:
        asked.settimeout(_WAIT_S)
        extensions = 1 << _INFO - 1 if closer and protocol == "tcp" else 0
        request = _REQUEST.pack(family, PROTOCOLS[protocol], extensions, _EVERY_STATE, wanted,
                                bytes(2), bytes(16), bytes(16), 0, 0xFFFFFFFFFFFFFFFF)  # fmt: skip
        size = _HEADER.size + len(request)
        asked.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_DUMP_REQUEST, 1, 0) + request)
        for data, begin, end in _messages(asked):
            sock = _sock(protocol, data, begin, end)
            if not port or sock.sport == port:
                yield sock


def _messages(asked: socket.socket) -> Iterator[tuple[bytes, int, int]]:
    # Each message as the bytes that hold it, and where it begins and ends in them.
    while True:
        data = asked.recv(1 << 17)
        at = 0
        while at < len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                raise OSError(number, os.strerror(number))
            yield data, at + _HEADER.size, at + length
            at += length + 3 & ~3


def _sock(protocol: str, data: bytes, begin: int, end: int) -> Sock:
    (family, state, timer, _, sport, dport, src, dst, device, cookie, expires, queued, backlog,
     uid, inode) = _SOCKET.unpack_from(data, begin)  # fmt: skip
    v6only, age_ms = None, -1
    at = begin + _SOCKET.size
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == _V6ONLY:
            v6only = bool(data[at + 4])
        elif kind == _INFO:
            age_ms = _age_ms(data[at + 4 : at + length])
        at += max(length, 4) + 3 & ~3
    if protocol == "tcp" and state == CLOSE and sport:
        state = BOUND  # asked for as 13, answered as CLOSE
    width = 4 if family == socket.AF_INET else 16
    return Sock(protocol, family, state, timer, expires, src[:width], socket.ntohs(sport),
                dst[:width], socket.ntohs(dport), device, cookie, uid, inode, queued, backlog,
                v6only, age_ms)  # fmt: skip


def _age_ms(info: bytes) -> int:
    # struct tcp_info. The kernel notes the time of establishment as that of the last sending
    # (tcp_finish_connect and tcp_create_openreq_child set lsndtime), until there is a real one.
    if len(info) < 136 or info[0] != ESTABLISHED:
        return -1
    unacked, sent_ms = struct.unpack_from("=I", info, 24)[0], struct.unpack_from("=I", info, 44)[0]
    acked, received = struct.unpack_from("=QQ", info, 120)
    return -1 if unacked or received or acked > 1 else int(sent_ms)


def lists_bound(protocol: str = "tcp") -> bool:
    """Return whether this kernel lists sockets that are bound and do nothing (Linux 6.8 does).

    Tried with a socket of our own, bound to any free port of loopback for that moment.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as idle:
        idle.bind(("127.0.0.1", 0))
        return any(each.state == BOUND for each in dump(protocol, idle.getsockname()[1]))
