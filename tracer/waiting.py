"""Threads that stand at the gate already when a trace begins: in an incident, those that matter.

The scheduler tells of a thread as it goes to sleep. One that sleeps by then is in /proc only, as
far as we may read it (proc(5)):

    /proc/PID/task/TID/syscall    42 0xd 0x7f3af4c9e710 0x10 ...    number and arguments of its call
    /proc/PID/task/TID/stack      [<0>] seccomp_do_user_notification+0x1f3/0x5a0, and so on
"""

import contextlib
import os
import platform
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from porttrace.tracer.gate import is_gate

_PROC = Path("/proc")
_CONNECT = {"x86_64": "42", "aarch64": "203"}
_MOST_THREADS = 20_000
_SOCKADDR_BYTES = 28


@dataclass(frozen=True)
class Waiting:
    """A thread at the gate of connect(2): for which descriptor and destination, and on what stack.

    `daddr` has 16 bytes, IPv4 mapped; `stack` is innermost first.
    """

    pid: int
    tid: int
    fd: int
    family: int
    daddr: bytes
    dport: int
    stack: tuple[str, ...]


def at_gate(pids: Iterable[int], proc: Path = _PROC) -> Iterator[Waiting]:
    """Yield the threads of these processes that stand at the gate, of 20,000 that are looked at."""
    left = _MOST_THREADS
    for pid in pids:
        for tid in _threads(proc / str(pid)):
            left -= 1
            if left < 0:
                return
            with contextlib.suppress(OSError, ValueError, struct.error):
                found = _look(pid, tid, proc)
                if found:
                    yield found


def stands(each: Waiting, proc: Path = _PROC) -> bool:
    """Return whether a thread stands where it was found."""
    with contextlib.suppress(OSError, ValueError, struct.error):
        return _look(each.pid, each.tid, proc) == each
    return False


def _threads(base: Path) -> list[int]:
    try:
        return sorted(map(int, os.listdir(base / "task")))
    except OSError:
        return []


def _look(pid: int, tid: int, proc: Path) -> Waiting | None:
    base = proc / str(pid) / "task" / str(tid)
    number, *arguments = (base / "syscall").read_text().split()
    if number != _CONNECT.get(platform.machine()):
        return None
    stack = _stack((base / "stack").read_text())
    if not is_gate(stack):
        return None
    fd, address, length = (int(word, 16) for word in arguments[:3])
    return _waiting(pid, tid, fd, _read(proc / str(pid) / "mem", address, length), stack)


def _stack(text: str) -> tuple[str, ...]:
    return tuple(line.split()[1].partition("+")[0] for line in text.splitlines() if " " in line)


def _read(memory: Path, address: int, length: int) -> bytes:
    with memory.open("rb") as file:
        return os.pread(file.fileno(), min(length, _SOCKADDR_BYTES), address)


def _waiting(pid: int, tid: int, fd: int, name: bytes, stack: tuple[str, ...]) -> Waiting | None:
    family = int.from_bytes(name[:2], "little")
    (port,) = struct.unpack_from(">H", name, 2)
    if family == socket.AF_INET:
        address = bytes(10) + b"\xff\xff" + name[4:8]
    elif family == socket.AF_INET6:
        address = name[8:24]
    else:
        return None
    return Waiting(pid, tid, fd, family, address, port, stack) if len(address) == 16 else None
