"""A BPF program on a cgroup's connect hooks that returns EPERM while too many are in flight.

Loaded by bpf(2) itself: two dozen instructions need no compiler. The counters stand in a map that
this process shares with the program: the program alone adds to `started`, this process alone writes
`ended`. The links go with the descriptors, so a killed lab leaves no program behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from porttrace.lab.errors import LabError

# include/uapi/linux/bpf.h
_MAP_CREATE, _PROG_LOAD, _LINK_CREATE = 0, 5, 28
_ARRAY, _MMAPABLE = 2, 1 << 10
_CGROUP_SOCK_ADDR = 18
_CONNECT_HOOKS = (10, 11)  # BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT
_SYSCALL = {"x86_64": 321, "aarch64": 280}
_libc = ctypes.CDLL(None, use_errno=True)

_VALUE = struct.Struct("=QQQ")  # started, ended, slots
_ENDED_AT = 8


class Counters:
    """The map that is shared with the program."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    @property
    def started(self) -> int:
        """Count the attempts that the program let go so far."""
        return int(_VALUE.unpack_from(self._memory)[0])

    @property
    def ended(self) -> int:
        """Count the attempts that are over, as told."""
        return int(_VALUE.unpack_from(self._memory)[1])

    def tell_ended(self, count: int) -> None:
        """Tell the program how many attempts are over."""
        struct.pack_into("=Q", self._memory, _ENDED_AT, count)


@contextmanager
def denying(folder: Path, slots: int) -> Iterator[Counters]:
    """Deny TCP connects of a cgroup and of all below it while `slots` of them are in flight."""
    with ExitStack() as ends:
        map_fd = _create_map()
        ends.callback(os.close, map_fd)
        memory = ends.enter_context(contextlib.closing(mmap.mmap(map_fd, mmap.PAGESIZE)))
        _VALUE.pack_into(memory, 0, 0, 0, slots)
        cgroup_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        ends.callback(os.close, cgroup_fd)
        for hook in _CONNECT_HOOKS:
            program_fd = _load(map_fd, hook)
            ends.callback(os.close, program_fd)
            ends.callback(os.close, _link(program_fd, cgroup_fd, hook))
        yield Counters(memory)


def _instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


def _program(map_fd: int, exact: bool) -> bytes:
    load, move, jump_equal, jump_not = 0x61, 0xB7, 0x15, 0x55
    counted = _counted_exactly() if exact else _counted_simply()
    to_allow = len(counted) // 8
    return b"".join(
        (
            _instruction(load, 2, 1, 36),  # r2 = context->protocol
            _instruction(jump_not, 2, 0, 9 + to_allow, 6),  # no TCP: allow
            _instruction(0x62, 10, 0, -4, 0),  # the map's key 0, on the stack
            _instruction(0xBF, 2, 10),
            _instruction(0x07, 2, 0, 0, -4),
            _instruction(0x18, 1, 1, 0, map_fd),  # r1 = the map (two instructions long)
            _instruction(0),
            _instruction(0x85, imm=1),  # bpf_map_lookup_elem
            _instruction(jump_equal, 0, 0, 2 + to_allow, 0),  # never: allow
            _instruction(0x79, 4, 0, 8),  # r4 = ended
            _instruction(0x79, 3, 0, 16),  # r3 = slots
            counted,
            _instruction(move, 0, 0, 0, 1),
            _instruction(0x95),  # allow
        )
    )


# Adds one, and takes it back where that was too many: right even on two CPUs at once.
def _counted_exactly() -> bytes:
    return b"".join(
        (
            _instruction(0xB7, 1, 0, 0, 1),
            _instruction(0xDB, 0, 1, 0, 1),  # r1 = started++ (atomic fetch, Linux 5.12)
            _instruction(0x1F, 1, 4),  # r1 -= r4: in flight before this one
            _instruction(0xAD, 1, 3, 4),  # fewer than slots: allow
            _instruction(0xB7, 1, 0, 0, -1),
            _instruction(0xDB, 0, 1, 0, 0),  # started-- (atomic)
            _instruction(0xB7, 0, 0, 0, 0),
            _instruction(0x95),  # deny: EPERM
        )
    )


# Looks first and adds then: two CPUs at the very same time may take one slot both.
def _counted_simply() -> bytes:
    return b"".join(
        (
            _instruction(0x79, 1, 0, 0),  # r1 = started
            _instruction(0x1F, 1, 4),  # r1 -= r4: in flight
            _instruction(0xAD, 1, 3, 2),  # fewer than slots: go on below
            _instruction(0xB7, 0, 0, 0, 0),
            _instruction(0x95),  # deny: EPERM
            _instruction(0xB7, 1, 0, 0, 1),
            _instruction(0xDB, 0, 1, 0, 0),  # started++ (atomic)
        )
    )


def _create_map() -> int:
    return _bpf(_MAP_CREATE, struct.pack("=5I", _ARRAY, 4, _VALUE.size, 1, _MMAPABLE))


# What an older kernel's verifier refuses is an instruction that it does not know.
def _load(map_fd: int, hook: int) -> int:
    try:
        return _load_program(_program(map_fd, exact=True), hook)
    except LabError:
        return _load_program(_program(map_fd, exact=False), hook)


def _load_program(program: bytes, hook: int) -> int:
    text = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        *(_CGROUP_SOCK_ADDR, len(program) // 8),
        *(ctypes.addressof(text), ctypes.addressof(license_text)),
        *(0, 0, 0, 0, 0, b"porttrace_lab", 0, hook),
    )
    return _bpf(_PROG_LOAD, attributes)


def _link(program_fd: int, cgroup_fd: int, hook: int) -> int:
    return _bpf(_LINK_CREATE, struct.pack("=4I", program_fd, cgroup_fd, hook, 0))


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSCALL.get(platform.machine())
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(number, command, buffer, len(attributes)) if number else -1
    if result < 0:
        reason = os.strerror(ctypes.get_errno()) if number else "not known on this machine"
        raise LabError(
            f"the kernel refused the BPF program of the throttle deny-cgroup: {reason}",
            "it needs root and Linux 5.7 or later with CONFIG_CGROUP_BPF",
        )
    return int(result)
