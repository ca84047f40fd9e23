"""The wire probe's user-space side: one packet socket in each network namespace of interest.

Each carries the socket filter of bpf/wire.h, which keeps no packet: nothing is ever read
from these sockets. They are plain descriptors of this process, so that the kernel takes
them away with it, however it ends.
"""

import contextlib
import ctypes
import errno
import os
import socket
import threading
import time

from porttrace.tracer import namespaces, processes

MAX_NAMESPACES = 64
"""Every packet of a watched namespace passes the filter: a host of a thousand must not pay."""

_LACKING = "it takes CAP_NET_RAW, and CAP_SYS_ADMIN where it is not our own"
_SO_ATTACH_BPF = 50
_ETH_P_ALL = 0x0003
_ANY_DEVICE = 0


class Wire:
    """Watches the wire of network namespaces. `close` ends all of it.

    `program_fd` is the loaded socket filter. What could not be watched is in `missing`, in words.
    """

    def __init__(self, program_fd: int) -> None:
        self._program_fd = program_fd
        self._sockets: dict[int, socket.socket | None] = {}
        self.missing: list[str] = []

    def watch(self, pid: int) -> tuple[int, int] | None:
        """Watch the network namespace that process `pid` is in.

        Returns its number (inode) and since when (CLOCK_MONOTONIC, ns) its packets are seen; None
        when it was watched already, or cannot be.
        """
        path = f"/proc/{pid}/ns/net"
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # gone
            return None
        try:
            number = os.fstat(handle).st_ino
            if number in self._sockets:
                return None
            return self._add(number, handle)
        finally:
            os.close(handle)

    def _add(self, number: int, handle: int) -> tuple[int, int] | None:
        self._sockets[number] = None
        if len(self._sockets) > MAX_NAMESPACES:
            self._lack(f"the wire of more than {MAX_NAMESPACES} network namespaces is not seen")
            return None
        try:
            self._sockets[number] = self._open_in(number, handle)
        except OSError as error:
            why = _LACKING if error.errno == errno.EPERM else error.strerror
            self._lack(f"the wire of a network namespace is not seen: {why}")
            return None
        return number, time.monotonic_ns()

    def _open_in(self, number: int, handle: int) -> socket.socket:
        # Into our own one we need no privilege, and no thread.
        if number == processes.netns(threading.get_native_id()):
            return self._open()
        return namespaces.inside(handle, self._open)

    def _open(self) -> socket.socket:
        # Without a protocol nothing arrives: the filter is there before the first packet.
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        try:
            tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, self._program_fd)
            _bind_all(tap)
        except BaseException:
            tap.close()
            raise
        return tap

    def _lack(self, what: str) -> None:
        if what not in self.missing:
            self.missing.append(what)

    def keep(self, netns: frozenset[int]) -> None:
        """Stop watching all other network namespaces (inodes); an open socket would keep them."""
        for number in self._sockets.keys() - netns:
            tap = self._sockets.pop(number)
            if tap is not None:
                tap.close()

    def close(self) -> None:
        """Stop watching. Safe to call twice."""
        for tap in self._sockets.values():
            if tap is not None:
                tap.close()
        self._sockets.clear()


def _bind_all(tap: socket.socket) -> None:
    # Python's own bind() insists on the name of a device; here it is all of them.
    address = _LinkAddress(
        family=socket.AF_PACKET, protocol=socket.htons(_ETH_P_ALL), device=_ANY_DEVICE
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(tap.fileno(), ctypes.byref(address), ctypes.sizeof(address)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _LinkAddress(ctypes.Structure):
    # struct sockaddr_ll of <linux/if_packet.h>
    _fields_ = (
        ("family", ctypes.c_uint16),
        ("protocol", ctypes.c_uint16),
        ("device", ctypes.c_int32),
        ("rest", ctypes.c_uint8 * 12),
    )


def drop_reasons(text: str) -> dict[int, str]:
    """Return the names of drop reasons by number, from the format of skb:kfree_skb.

    `text` is that tracepoint's format file; {} where it has none.
    """
    _, _, symbols = text.partition("REC->reason, ")
    names: dict[int, str] = {}
    for part in symbols.split("{")[1:]:
        number, _, rest = part.partition(",")
        name = rest.partition("}")[0].strip().strip('"')
        with contextlib.suppress(ValueError):
            names[int(number.strip(), 0)] = name
    return names
