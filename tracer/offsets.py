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
_STRUCT, _UNION = 4, 5
# Bytes behind struct btf_type, by kind (include/uapi/linux/btf.h): so many, and so many for each
# of its members. Kinds that are not named have none.
_BEHIND = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0),
           15: (0, 12), 17: (4, 0), 19: (0, 12)}  # fmt: skip

# current->nsproxy->net_ns->ns.inum: each flag with the struct and the field it is about.
_NETNS = (
    ("NSPROXY_AT", "task_struct", "nsproxy"),
    ("NET_AT", "nsproxy", "net_ns"),
    ("NS_AT", "net", "ns"),
    ("INUM_AT", "ns_common", "inum"),
)
# What the tracepoints of a socket tell in their records, read off the socket itself.
_SOCK = (
    ("SOCK_FAMILY_AT", "sock_common", "skc_family"),
    ("SOCK_STATE_AT", "sock_common", "skc_state"),
    ("SOCK_DADDR_AT", "sock_common", "skc_daddr"),
    ("SOCK_DPORT_AT", "sock_common", "skc_dport"),
    ("SOCK_V6_DADDR_AT", "sock_common", "skc_v6_daddr"),
    ("SOCK_V6_SADDR_AT", "sock_common", "skc_v6_rcv_saddr"),
    ("SOCK_PROTOCOL_AT", "sock", "sk_protocol"),
    ("SOCK_ERROR_AT", "sock", "sk_err"),
    ("SOCK_SADDR_AT", "inet_sock", "inet_saddr"),
    ("SOCK_SPORT_AT", "inet_sock", "inet_sport"),
)
# Each of these begins with the one before it: an address of one is an address of all.
_NESTED = (("sock", "__sk_common"), ("inet_sock", "sk"))


def netns_flags(vmlinux: Path = VMLINUX) -> tuple[str, ...]:
    """Return the -D flags by which a program reads the network namespace of the current task.

    () where the kernel has no BTF or other structs: what the flags are for is then left out.
    """
    return _flags("-DHAVE_NETNS", _NETNS, (), vmlinux)


def sock_flags(vmlinux: Path = VMLINUX) -> tuple[str, ...]:
    """Return the -D flags by which a program reads the ends of a socket; () as `netns_flags`."""
    return _flags("-DHAVE_SOCK", _SOCK, _NESTED, vmlinux)


def _flags(
    have: str,
    wanted: tuple[tuple[str, str, str], ...],
    nested: tuple[tuple[str, str], ...],
    vmlinux: Path,
) -> tuple[str, ...]:
    try:
        btf = _Btf(vmlinux.read_bytes())
        found = [btf.offset_of(kind, field) for _, kind, field in wanted]
        first = [btf.offset_of(kind, field) for kind, field in nested]
    except (OSError, struct.error):
        return ()
    if None in found or any(at != 0 for at in first):
        return ()
    named = (f"-D{flag}={at}" for (flag, _, _), at in zip(wanted, found, strict=True))
    return (have, *named)


def offset_of(data: bytes, kind: str, field: str) -> int | None:
    """Return where `field` stands in `struct kind`, in bytes; None where there is no such one.

    Members of its structs and unions without a name are its own; a bit field stands nowhere.
    Raises struct.error when `data` is cut short.
    """
    return _Btf(data).offset_of(kind, field)


class _Btf:
    def __init__(self, data: bytes) -> None:
        magic, _, _, length, types_at, types_bytes, names_at, names_bytes = _HEADER.unpack_from(
            data
        )
        known = magic == _MAGIC
        self._names = data[length + names_at : length + names_at + names_bytes] if known else b""
        self._types = data[length + types_at : length + types_at + types_bytes] if known else b""
        self._begins = [0]  # of the types that were looked for so far; the first is number 1

    def offset_of(self, kind: str, field: str) -> int | None:
        """Return as the function of this name."""
        wanted, number = self._number(field), self._number(kind)
        if not wanted or not number:
            return None
        found = (self._place(at, wanted) for at in self._structs_named(number))
        return next((bits // 8 for bits in found if bits is not None), None)

    def _number(self, name: str) -> int:
        return self._names.find(b"\0" + name.encode() + b"\0") + 1

    # Every place where a struct of this name may begin; numbers that only look like it have no
    # members of the name that is wanted.
    def _structs_named(self, number: int) -> Iterator[int]:
        word, at = struct.pack("<I", number), -1
        while (at := self._types.find(word, at + 1)) >= 0:
            fits = at % 4 == 0 and at + _TYPE.size <= len(self._types)
            if fits and self._kind(at) == _STRUCT:
                yield at

    def _kind(self, at: int) -> int:
        info: int = _TYPE.unpack_from(self._types, at)[1]
        return info >> 24 & 0x1F

    def _place(self, at: int, wanted: int) -> int | None:
        # In bits, of a member of the struct or union at `at`. With the kind flag the upper byte of
        # a member's offset is the width of a bit field.
        for name, number, bits in self._members(at):
            if name == wanted:
                return None if bits >> 24 else bits
            inner = self._begin(number) if not name else None
            if inner is None or self._kind(inner) not in (_STRUCT, _UNION):
                continue
            within = self._place(inner, wanted)
            if within is not None:
                return (bits & 0xFFFFFF) + within
        return None

    def _members(self, at: int) -> Iterator[tuple[int, int, int]]:
        _, info, _ = _TYPE.unpack_from(self._types, at)
        first = at + _TYPE.size
        for place in range(first, first + (info & 0xFFFF) * _MEMBER.size, _MEMBER.size):
            if place + _MEMBER.size > len(self._types):
                return
            yield _MEMBER.unpack_from(self._types, place)

    def _begin(self, number: int) -> int | None:
        # Types have no index: each begins where the one before it ends.
        while len(self._begins) < number:
            at = self._begins[-1]
            if at + _TYPE.size > len(self._types):
                return None
            _, info, _ = _TYPE.unpack_from(self._types, at)
            fixed, each = _BEHIND.get(info >> 24 & 0x1F, (0, 0))
            self._begins.append(at + _TYPE.size + fixed + each * (info & 0xFFFF))
        at = self._begins[number - 1]
        return at if number and at + _TYPE.size <= len(self._types) else None
