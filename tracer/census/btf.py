"""Names of the kernel's types by their number: just enough BTF to name what a program is on.

Layout: Documentation/bpf/btf.rst, struct btf_header and struct btf_type of <linux/btf.h>.
"""

import struct
from collections.abc import Collection
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
# Bytes that follow a type: so many by its kind, and so many for each of its members.
_MORE = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def names(wanted: Collection[int], data: bytes) -> dict[int, str]:
    """Return number -> name for those of `wanted` that `data` has; {} when it is no BTF."""
    try:
        magic, _, _, length, types_at, types_bytes, names_at, _ = _HEADER.unpack_from(data)
        if magic != _MAGIC or not wanted:
            return {}
        where = _walk(data, length + types_at, types_bytes, wanted)
        start = length + names_at
        return {number: _text(data, start + at) for number, at in where.items()}
    except (struct.error, ValueError):  # cut, or a name without an end
        return {}


def _walk(data: bytes, at: int, size: int, wanted: Collection[int]) -> dict[int, int]:
    # Types have no table of where they stand: all before the last wanted one are stepped over.
    found: dict[int, int] = {}
    end, last, number = at + size, max(wanted), 1
    while at < end and number <= last:
        name, info, _ = _TYPE.unpack_from(data, at)
        kind = info >> 24 & 0x1F
        if number in wanted:
            found[number] = name
        at += 12 + _MORE.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)
        number += 1
    return found


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode(errors="backslashreplace")
