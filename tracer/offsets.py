"""Where fields stand in structs of the running kernel, read from its BTF; nothing is guessed.

Only what is asked for is looked at: names are searched as bytes, types by the number of their name.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")  # struct btf_type: name, info, size
_MEMBER = struct.Struct("<III")  # struct btf_member: name, type, offset in bits
_STRUCT = 4

# current->nsproxy->net_ns->ns.inum: each flag with the struct and the field it is about.
_NETNS = (
    ("NSPROXY_AT", "task_struct", "nsproxy"),
    ("NET_AT", "nsproxy", "net_ns"),
    ("NS_AT", "net", "ns"),
    ("INUM_AT", "ns_common", "inum"),
)


def netns_flags(vmlinux: Path = VMLINUX) -> tuple[str, ...]:
    """Return the -D flags by which a program reads the network namespace of the current task.

    () where the kernel has no BTF or other structs: what the flags are for is then left out.
    """
    try:
        data = vmlinux.read_bytes()
        found = [offset_of(data, kind, field) for _, kind, field in _NETNS]
    except (OSError, struct.error):
        return ()
    if None in found:
        return ()
    named = (f"-D{flag}={at}" for (flag, _, _), at in zip(_NETNS, found, strict=True))
    return ("-DHAVE_NETNS", *named)


def offset_of(data: bytes, kind: str, field: str) -> int | None:
    """Return where `field` stands in `struct kind`, in bytes; None where there is no such one.

    Raises struct.error when `data` is cut short.
    """
    magic, _, _, length, types_at, types_bytes, names_at, names_bytes = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return None
    names = data[length + names_at : length + names_at + names_bytes]
    wanted = names.find(b"\0" + field.encode() + b"\0") + 1
    number = names.find(b"\0" + kind.encode() + b"\0") + 1
    if not wanted or not number:
        return None
    types = data[length + types_at : length + types_at + types_bytes]
    for at in _structs_named(types, number):
        for name, _, bits in _members(types, at):
            if name == wanted:
                # with the kind flag the upper byte is the width of a bit field
                return (bits & 0xFFFFFF) // 8
    return None


# Every place where a struct of this name may begin; numbers that only look like it have no members
# of the name that is wanted.
def _structs_named(types: bytes, number: int) -> Iterator[int]:
    word, at = struct.pack("<I", number), -1
    while (at := types.find(word, at + 1)) >= 0:
        if at % 4 == 0 and at + _TYPE.size <= len(types):
            _, info, _ = _TYPE.unpack_from(types, at)
            if info >> 24 & 0x1F == _STRUCT:
                yield at


def _members(types: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    _, info, _ = _TYPE.unpack_from(types, at)
    first = at + _TYPE.size
    for place in range(first, first + (info & 0xFFFF) * _MEMBER.size, _MEMBER.size):
        if place + _MEMBER.size > len(types):
            return
        yield _MEMBER.unpack_from(types, place)
