"""What the calling thread's network namespace says of its ports, queues and tables.

Only reads: /proc of the thread, and sock_diag. Work of a bounded size; what a kernel does not have
is left out. `sampler` calls this, a namespace at a time, in a thread that is in it.
"""

import contextlib
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from porttrace.tracer import diag, words
from porttrace.tracer.facts import MOST_GROUPS, Listener, PortUse, Usage
from porttrace.tracer.sysctls import sysctl

COUNTERS = (
    *("ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "TCPReqQFullDoCookies"),
    "TCPTimeWaitOverflow",
)
_SETTINGS = (
    *("ipv4.ip_local_port_range", "ipv4.ip_local_reserved_ports", "core.somaxconn"),
    *("ipv4.tcp_max_syn_backlog", "ipv4.tcp_tw_reuse", "ipv4.tcp_fin_timeout"),
    *("ipv4.tcp_timestamps", "ipv4.tcp_syncookies", "ipv4.tcp_abort_on_overflow"),
)
_CONNTRACK = ("insert_failed", "drop", "early_drop")
_NET = Path("/proc/thread-self/net")  # /proc/net would be that of the main thread
_MOST_SETTING = 4096  # characters: ip_local_reserved_ports may be long
_MOST_LISTENERS = 32
_DUMP_S = 0.25  # a count of sockets is left after so long
_TIME_WAIT_S = 60.0
_REUSED_AFTER_S = 1.0
_LISTEN = (diag.LISTEN,)
_CONNECTED = tuple(
    {*diag.EVERY_STATE} - {diag.LISTEN, diag.SYN_RECV, diag.NEW_SYN_RECV, diag.CLOSE, diag.BOUND}
)
_FAMILY, _SOURCE = diag.SOCKET_AT, diag.ADDRESSES_AT  # where these stand in a message
_NO_INODE = bytes(4)
_V4 = bytes([socket.AF_INET])
_MAPPED = bytes(10) + b"\xff\xff"
_LOOPBACK_V6 = bytes(15) + b"\x01"


def counters() -> dict[str, int]:
    """Return the `COUNTERS` of TcpExt that this kernel has."""
    lines = _text(_NET / "netstat").splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith("TcpExt:"):
            known = dict(zip(names.split()[1:], values.split()[1:], strict=False))
            return {name: int(known[name]) for name in COUNTERS if name in known}
    return {}


def sockets() -> dict[str, int]:
    """Return how many TCP sockets there are: inuse (both families), tw, orphan, alloc."""
    found: dict[str, int] = {}
    for name in ("sockstat", "sockstat6"):
        for line in _text(_NET / name).splitlines():
            kind, *words = line.split()
            if kind in ("TCP:", "TCP6:"):
                for key, value in zip(words[::2], words[1::2], strict=False):
                    found[key] = found.get(key, 0) + int(value)
    return {key: found[key] for key in ("inuse", "tw", "orphan", "alloc") if key in found}


def settings() -> dict[str, str]:
    """Return the sysctls that decide about ports and queues, with single spaces."""
    values = {name.rpartition(".")[2]: sysctl(f"net.{name}") for name in _SETTINGS}
    return {name: value[:_MOST_SETTING] for name, value in values.items() if value is not None}


def port_range(known: Mapping[str, str]) -> tuple[int, int]:
    """Return the first and the last local port for connects, (0, 0) where it is not told."""
    words = known.get("ip_local_port_range", "").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else (0, 0)


def conntrack() -> dict[str, int]:
    """Return count and max of the connection tracking, and what it dropped; {} without any."""
    found = {}
    for name in ("count", "max"):
        text = sysctl(f"net.netfilter.nf_conntrack_{name}") or ""
        if text.isdigit():
            found[name] = int(text)
    lines = _text(_NET / "stat/nf_conntrack").splitlines()
    if len(found) == 2 and lines:
        rows = [line.split() for line in lines[1:]]
        for name in set(lines[0].split()) & set(_CONNTRACK):
            at = lines[0].split().index(name)
            found[name] = sum(int(row[at], 16) for row in rows if len(row) > at)
    return found if len(found) >= 2 else {}


@dataclass(frozen=True)
class Listening:
    """A listening socket with its inode, by which its owner is found."""

    shown: Listener
    inode: int

    def near(self) -> bool:
        """Tell whether the queue is at 80 % of its limit or more."""
        return self.shown.queue > 0 and self.shown.queue * 5 >= self.shown.limit * 4


def listening(first: int, last: int) -> tuple[list[Listening], int]:
    """Return the listeners, the fullest queues first, and how many ports of the range they keep."""
    found, ports = [], set()
    for family in diag.FAMILIES:
        with contextlib.suppress(OSError):
            for row in diag.messages(family, states=_LISTEN):
                each = _listening(row)
                ports.add(each.shown.port)
                found.append(each)
    found.sort(key=lambda each: -each.shown.queue / max(1, each.shown.limit))
    return found, sum(first <= port <= last for port in ports)


def _listening(row: bytes) -> Listening:
    (family, _, _, _, port, _, source, _, _, _, _, queue, limit, uid,
     inode) = diag.SOCKET.unpack_from(row, diag.SOCKET_AT)  # fmt: skip
    local = _address(family, source), socket.ntohs(port)
    return Listening(Listener(*local, queue, limit, uid=uid), inode)


def serves(packed: bytes, port: int) -> bool:
    """Return whether the namespace listens on this port of an address of its own (16 bytes)."""
    if not is_local(packed):
        return False
    wanted = {endpoint(packed, port), f"0.0.0.0:{port}", f"[::]:{port}"}
    found, _ = listening(port, port)
    return any(f"{each.shown.address}:{each.shown.port}" in wanted for each in found)


def told(found: list[Listening], wanted: frozenset[int]) -> list[Listening]:
    """Return the listeners to tell of: half full or more, and those on the ports in `wanted`."""
    telling = [
        each
        for each in found
        if each.shown.port in wanted
        or (each.shown.queue > 1 and each.shown.queue * 2 >= each.shown.limit)
    ]
    return telling[:_MOST_LISTENERS]


def usage(first: int, last: int, kept: int, in_all: int) -> Usage:
    """Count the sockets on the local ports from `first` to `last`, by source and destination.

    `kept`: ports that listeners keep. `in_all`: sockets that there are by other means.
    """
    time_ns = time.monotonic_ns()
    groups: dict[bytes, _Group] = {}
    until_s, seen, cut = time.monotonic() + _DUMP_S, 0, False
    for family in diag.FAMILIES:
        with contextlib.suppress(OSError):
            for row in diag.messages(
                family, states=_CONNECTED, ports=(first, last), until_s=until_s
            ):
                seen += 1
                groups.setdefault(_key(row), _Group()).add(row)
        cut = cut or time.monotonic() >= until_s
    largest = sorted(groups.items(), key=lambda item: -item[1].used)[:MOST_GROUPS]
    shown = tuple(_port_use(key, group) for key, group in largest)
    return Usage(time_ns, seen, max(0, in_all - seen) if cut else 0, kept, shown)


# Family, destination port, source, destination: as bytes, which is all that counting needs.
# IPv4 through a socket of IPv6 takes the same ports as through one of IPv4.
def _key(row: bytes) -> bytes:
    if row[_FAMILY] == socket.AF_INET6 and row[_SOURCE : _SOURCE + 12] == _MAPPED:
        ends = row[_SOURCE + 12 : _SOURCE + 16] + bytes(12) + row[_SOURCE + 28 : _SOURCE + 32]
        return _V4 + row[_FAMILY + 6 : _SOURCE] + ends + bytes(12)
    return row[_FAMILY : _FAMILY + 1] + row[_FAMILY + 6 : _FAMILY + 40]


class _Group:
    # The sockets of one source and destination.
    __slots__ = ("ends_ms", "fin_wait2", "frees_ms", "reusable", "time_wait", "used")

    def __init__(self) -> None:
        self.used = self.time_wait = self.reusable = self.fin_wait2 = 0
        self.frees_ms = self.ends_ms = -1

    def add(self, row: bytes) -> None:
        """Count a socket, a message of `diag.messages`."""
        self.used += 1
        state = row[diag.STATE_AT]
        if state == diag.TIME_WAIT:
            self.time_wait += 1
            expires_ms = _expires_ms(row)
            self.frees_ms = _sooner(self.frees_ms, expires_ms)
            self.reusable += expires_ms <= 1000 * (_TIME_WAIT_S - _REUSED_AFTER_S)
        elif state == diag.FIN_WAIT2 and row[diag.INODE_AT : diag.INODE_AT + 4] == _NO_INODE:
            # with an inode it is shut for writing only: its program has it still
            self.fin_wait2 += 1
            if row[diag.TIMER_AT] == diag.TIMER_TIME_WAIT:
                self.ends_ms = _sooner(self.ends_ms, _expires_ms(row))


def _expires_ms(row: bytes) -> int:
    return int.from_bytes(row[diag.EXPIRES_AT : diag.EXPIRES_AT + 4], sys.byteorder)


def _sooner(known_ms: int, other_ms: int) -> int:
    return other_ms if known_ms < 0 else min(known_ms, other_ms)


def _port_use(key: bytes, group: _Group) -> PortUse:
    family, port = key[0], int.from_bytes(key[1:3], "big")
    return PortUse(
        source=_address(family, key[3:19]).strip("[]"),
        destination=f"{_address(family, key[19:35])}:{port}",
        used=group.used,
        time_wait=group.time_wait,
        reusable=group.reusable,
        frees_in_s=group.frees_ms / 1000 if group.frees_ms >= 0 else -1.0,
        fin_wait2=group.fin_wait2,
        fin_wait2_ends_in_s=group.ends_ms / 1000 if group.ends_ms >= 0 else -1.0,
    )


def _address(family: int, packed: bytes) -> str:
    if family == socket.AF_INET:
        return str(ip_address(packed[:4]))
    return words.bracketed(words.plain_address(packed))


def endpoint(packed: bytes, port: int) -> str:
    """Return `192.0.2.2:80` or `[2001:db8::2]:80` of 16 bytes, IPv4 mapped, and a port."""
    return words.endpoint(words.plain_address(packed), port)


def is_loopback(packed: bytes) -> bool:
    """Return whether 16 bytes, IPv4 mapped, are an address that never leaves its namespace."""
    return packed[:13] == _MAPPED + b"\x7f" or packed == _LOOPBACK_V6


def is_local(packed: bytes) -> bool:
    """Return whether the namespace has this address (16 bytes, IPv4 mapped) for its own."""
    if packed[:12] == _MAPPED:
        text = str(ip_address(packed[12:]))
        return packed[12] == 127 or any(text == each for each in _local_v4())
    return packed == _LOOPBACK_V6 or packed.hex() in _text(_NET / "if_inet6")


# The trie has each address on a line of its own, and below it what it is there for.
def _local_v4() -> Iterator[str]:
    last = ""
    for line in _text(_NET / "fib_trie").splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            last = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"]:
            yield last


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="surrogateescape")
    return ""
