"""What the gate reads about a throttled thread and its socket, all of it from /proc.

No function here keeps a reference to the target's socket: a descriptor held by the gate would keep
an attempt alive that the application has already given up. Whatever cannot be read is None.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from porttrace.lab.throttles.notify import Notification

_STREAM_PROTOCOLS = {b"TCP", b"TCPv6", b"MPTCP", b"MPTCPv6"}
# A loopback handshake takes well under 0.1 ms of CPU; a thread that ran this long has left connect.
_MOST_CPU_IN_CONNECT_NS = 2_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """One connect(2) of a TCP socket: who calls, on which socket, where to."""

    notification: Notification
    pid: int
    uid: int
    inode: int
    family: int
    destination: bytes
    cpu_ns: int


def read_call(notification: Notification) -> Call | None:
    """Describe a waiting call, or None where it is no TCP connect or cannot be read."""
    tid = notification.tid
    try:
        family, destination = _read_address(notification)
        path = f"/proc/{tid}/fd/{notification.fd}"
        # sockfs tells the protocol as an extended attribute (sockfs_xattr_get, net/socket.c):
        # this opens nothing, whereas getsockopt would need a copy of the descriptor.
        protocol = os.getxattr(path, "system.sockprotoname").rstrip(b"\0")
        if family not in (socket.AF_INET, socket.AF_INET6) or protocol not in _STREAM_PROTOCOLS:
            return None
        pid, uid = _read_identity(tid)
        socket_family = socket.AF_INET6 if protocol.endswith(b"v6") else socket.AF_INET
        inode = Path(path).stat().st_ino
        return Call(notification, pid, uid, inode, socket_family, destination, cpu_ns(tid))
    except (OSError, ValueError, struct.error):
        return None


def _read_address(notification: Notification) -> tuple[int, bytes]:
    if notification.address_length < 8:
        return socket.AF_UNSPEC, b""
    memory = os.open(f"/proc/{notification.tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        address = os.pread(memory, min(notification.address_length, 28), notification.address)
    finally:
        os.close(memory)
    (family,) = struct.unpack_from("=H", address)
    # The flow label and scope of an IPv6 address do not make another destination.
    host = address[8:24] if family == socket.AF_INET6 else address[4:8]
    return family, host + address[2:4]


def _read_identity(tid: int) -> tuple[int, int]:
    status = Path(f"/proc/{tid}/status").read_bytes()
    tgid = status.split(b"\nTgid:", 1)[1].split(None, 1)[0]
    uid = status.split(b"\nUid:", 1)[1].split(None, 1)[0]
    return int(tgid), int(uid)


def cpu_ns(tid: int) -> int:
    """Return the CPU time that a thread has used, 0 where the kernel does not tell."""
    try:
        return int(Path(f"/proc/{tid}/schedstat").read_bytes().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def still_calling(call: Call) -> bool:
    """Tell whether the thread is still inside the connect(2) that was let go."""
    notification = call.notification
    try:
        path = f"/proc/{call.pid}/task/{notification.tid}/syscall"
        words = Path(path).read_bytes().split(None, 2)
    except OSError:
        return False
    if words[:1] == [b"running"]:
        # Woken but not yet on a CPU, in the call, or past it: only the CPU time tells these apart.
        return cpu_ns(notification.tid) - call.cpu_ns < _MOST_CPU_IN_CONNECT_NS
    expected = [str(notification.syscall).encode(), hex(notification.fd).encode()]
    return words[:2] == expected
