"""BPF programs and links as the kernel lists them: bpf(2), only to ask.

Layouts and numbers are those of <linux/bpf.h>, which never change: structs only grow at the end,
and a kernel fills what it knows of them.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_NUMBER = {"x86_64": 321, "aarch64": 280}
_PROG_NEXT, _PROG_FD, _GET_INFO, _PROG_QUERY, _TASK_FD_QUERY = 11, 13, 15, 16, 20
_BTF_FD, _LINK_FD, _LINK_NEXT = 19, 30, 31
_ATTR_BYTES, _INFO_BYTES, _MOST_IDS, _NAME_BYTES = 128, 256, 512, 128
_EFFECTIVE = 1  # BPF_F_QUERY_EFFECTIVE

PROGRAM_TYPES = {
    2: "kprobe", 5: "tracepoint", 8: "cgroup_skb", 13: "sock_ops", 17: "raw tracepoint",
    18: "cgroup_sock_addr", 26: "tracing", 28: "extension", 29: "lsm", 32: "netfilter",
}  # fmt: skip
LINK_TYPES = {
    2: "tracing", 3: "cgroup", 6: "xdp", 7: "perf event", 8: "kprobe_multi", 10: "netfilter",
    11: "tcx", 13: "netkit",
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A loaded program."""

    number: int
    type: str  # of PROGRAM_TYPES, else the number as text
    name: str  # at most 15 characters
    target_object: int = 0  # tracing, lsm: id of the BTF that describes what it is attached to
    target: int = 0  # and the number of that type in it


@dataclass(frozen=True)
class Link:
    """An attachment; which fields are filled depends on the type."""

    number: int
    type: str  # of LINK_TYPES, else the number as text
    program: int
    values: tuple[int, int, int] = (0, 0, 0)  # the first three 32-bit numbers of its own
    function: str = ""  # of a kprobe
    addresses: tuple[int, ...] = ()  # of kprobe_multi


@dataclass(frozen=True)
class Probe:
    """What a perf event with a BPF program is attached to."""

    program: int
    is_kprobe: bool
    function: str


def call(command: int, attr: bytes) -> tuple[int, bytes]:
    """Return the result of bpf(2) and the attributes as it left them. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES)
    result = libc.syscall(_NUMBER.get(platform.machine(), -1), command, buffer, _ATTR_BYTES)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result, buffer.raw


def _ids(command: int) -> Iterator[int]:
    number = 0
    while True:
        try:
            number = struct.unpack_from("<I", call(command, struct.pack("<I", number))[1], 4)[0]
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield number


def programs() -> Iterator[Program]:
    """Yield every loaded program. Raises OSError where the kernel or our rights do not allow it."""
    for number in _ids(_PROG_NEXT):
        info = _info(_PROG_FD, number)
        if info:
            kind, _ = struct.unpack_from("<II", info)
            name = info[64:80].split(b"\0")[0].decode(errors="backslashreplace")
            target_object, target = struct.unpack_from("<II", info, 220)
            yield Program(number, PROGRAM_TYPES.get(kind, str(kind)), name, target_object, target)


def links() -> Iterator[Link]:
    """Yield every link. Raises OSError, also on kernels before 5.8, which do not list them."""
    for number in _ids(_LINK_NEXT):
        info = _info(_LINK_FD, number)
        if info:
            kind, _, program = struct.unpack_from("<III", info)
            yield _link(number, LINK_TYPES.get(kind, str(kind)), program, info)


def _link(number: int, kind: str, program: int, info: bytes) -> Link:
    first, second, third = struct.unpack_from("<III", info, 16)
    if kind == "kprobe_multi":
        return Link(number, kind, program, addresses=_addresses(number, third))
    if kind == "perf event":
        return Link(number, kind, program, (first, second, third), _function(number, first))
    return Link(number, kind, program, (first, second, third))


def _addresses(number: int, count: int) -> tuple[int, ...]:
    room = (ctypes.c_uint64 * min(count, 1 << 16))()
    ask = struct.pack("<16xQI", ctypes.addressof(room), len(room))
    return tuple(room) if count and _info(_LINK_FD, number, ask) else ()


def _function(number: int, kind: int) -> str:
    if kind not in (3, 4):  # BPF_PERF_EVENT_KPROBE, KRETPROBE
        return ""
    room = ctypes.create_string_buffer(_NAME_BYTES)
    ask = struct.pack("<24xQI", ctypes.addressof(room), _NAME_BYTES)
    return room.value.decode(errors="backslashreplace") if _info(_LINK_FD, number, ask) else ""


def _info(command: int, number: int, ask: bytes = b"") -> bytes:
    # b"" when the object is gone meanwhile.
    try:
        handle, _ = call(command, struct.pack("<I", number))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return b""
        raise
    try:
        info = ctypes.create_string_buffer(ask, _INFO_BYTES)
        call(_GET_INFO, struct.pack("<IIQ", handle, _INFO_BYTES, ctypes.addressof(info)))
        return info.raw
    finally:
        os.close(handle)


def attached(target: int, attach_type: int, effective: bool = False) -> tuple[int, ...]:
    """Return the programs attached to a control group (descriptor) or device (its index).

    With `effective` those of its ancestors, too, in the order they run. Raises OSError; EINVAL
    where the kernel does not know the attach type.
    """
    room = (ctypes.c_uint32 * _MOST_IDS)()
    flags = _EFFECTIVE if effective else 0
    ask = struct.pack("<IIIIQI", target, attach_type, flags, 0, ctypes.addressof(room), _MOST_IDS)
    (count,) = struct.unpack_from("<I", call(_PROG_QUERY, ask)[1], 24)
    return tuple(room[:count])


def probe_of(pid: int, descriptor: int) -> Probe | None:
    """Return what a perf event of a process is, None when no BPF program is on it."""
    room = ctypes.create_string_buffer(_NAME_BYTES)
    ask = struct.pack("<IIIIQ", pid, descriptor, 0, _NAME_BYTES, ctypes.addressof(room))
    try:
        program, kind = struct.unpack_from("<II", call(_TASK_FD_QUERY, ask)[1], 24)
    except OSError:
        return None
    # BPF_FD_TYPE_KPROBE and KRETPROBE
    return Probe(program, kind in (2, 3), room.value.decode(errors="backslashreplace"))


def is_vmlinux(btf: int) -> bool:
    """Return whether the BTF object of that id describes the kernel itself."""
    room = ctypes.create_string_buffer(_NAME_BYTES)
    # struct bpf_btf_info: btf, btf_size, id, name, name_len
    info = _info(_BTF_FD, btf, struct.pack("<16xQI", ctypes.addressof(room), _NAME_BYTES))
    return bool(info) and room.value == b"vmlinux"
