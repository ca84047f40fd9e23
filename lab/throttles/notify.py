"""The kernel's side of the gate: seccomp user notification for connect(2).

`install_filter` makes every connect(2) of the calling thread, and of all its later children, wait
for an answer; the rest talks through the notify descriptor. libseccomp (python3-seccomp) builds and
loads the filter; the requests go through ioctl(2), because the library can only read notifications
in the process that loaded the filter, and here that is the throttled one.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import struct
from dataclasses import dataclass
from types import ModuleType

from porttrace.lab.errors import LabError

# include/uapi/linux/seccomp.h, magic '!': struct seccomp_notif has 80 bytes, the response 24.
_NOTIF_RECV = 0xC0502100
_NOTIF_SEND = 0xC0182101
_FLAG_CONTINUE = 1

_NOTIF = struct.Struct("=QII iIQ 6Q")
_RESPONSE = struct.Struct("=QqiI")


@dataclass(frozen=True, slots=True)
class Notification:
    """One connect(2) that waits for an answer; `tid` is the calling thread."""

    id: int
    tid: int
    syscall: int
    fd: int
    address: int
    address_length: int


def load_library() -> ModuleType:
    """Import libseccomp's Python binding, which only the distribution ships."""
    try:
        return importlib.import_module("seccomp")
    except ImportError as error:
        raise LabError(
            "the throttle gate needs libseccomp's Python module, which this Python does not find",
            "apt-get install python3-seccomp, and make the virtual environment with "
            "/usr/bin/python3 -m venv --system-site-packages",
        ) from error


def install_filter(seccomp: ModuleType) -> int:
    """Put the calling thread under notification for connect(2) and return the notify descriptor."""
    attr = seccomp.Attr
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    # By default libseccomp kills what uses another architecture, such as a 32-bit helper program.
    rules.set_attr(attr.ACT_BADARCH, seccomp.ALLOW)
    # With no_new_privs a throttled sudo would fail; the kernel lets root do without.
    rules.set_attr(attr.CTL_NNP, 0 if os.geteuid() == 0 else 1)
    rules.add_rule(seccomp.NOTIFY, "connect")
    rules.load()
    return int(rules.get_notify_fd())


def receive(notify_fd: int) -> Notification | None:
    """Take the next notification, or None where its thread died before it could be read."""
    buffer = bytearray(_NOTIF.size)  # the kernel refuses a buffer that is not all zero
    try:
        fcntl.ioctl(notify_fd, _NOTIF_RECV, buffer, True)
    except OSError:
        return None
    ident, tid, _flags, syscall, _arch, _ip, *args = _NOTIF.unpack(buffer)
    return Notification(ident, tid, syscall, args[0] & 0xFFFFFFFF, args[1], args[2] & 0xFFFFFFFF)


def let_go(notify_fd: int, ident: int) -> bool:
    """Let a held connect(2) go on; False where the thread died or left the call meanwhile."""
    answer = bytearray(_RESPONSE.pack(ident, 0, 0, _FLAG_CONTINUE))
    try:
        fcntl.ioctl(notify_fd, _NOTIF_SEND, answer, True)
    except OSError:
        return False
    return True
