"""Linux capabilities of the calling thread: which it holds, and how it lets go of them.

They belong to a thread, not to a process (capabilities(7)): a thread that begins later has those
of the one that began it, others keep what they have.
"""

import contextlib
import ctypes
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

# Bits, include/uapi/linux/capability.h
NUMBERS = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
_VERSION_3 = 0x20080522  # sets of 64 bits, in two halves
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 23, 24, 47
_AMBIENT_RAISE = 2
_MOST = 64


@dataclass(frozen=True)
class Sets:
    """Three of a thread's sets, each a number with a bit for each capability."""

    effective: int
    permitted: int
    inheritable: int


def bits(names: Collection[str]) -> int:
    """Return the capabilities of these names as one number."""
    return sum(1 << NUMBERS[name] for name in names)


def names(number: int) -> frozenset[str]:
    """Return the names of the capabilities in `number`; those that porttrace never uses have none.

    They are left out.
    """
    return frozenset(name for name, bit in NUMBERS.items() if number >> bit & 1)


def held() -> Sets:
    """Return the sets of the calling thread."""
    halves = (ctypes.c_uint32 * 6)()
    _call("capget", halves)
    pairs = [halves[each] | halves[each + 3] << 32 for each in range(3)]
    return Sets(*pairs)


def may(name: str) -> bool:
    """Return whether the calling thread can use a capability now."""
    return bool(held().effective & bits((name,)))


def hold(sets: Sets) -> None:
    """Give the calling thread these sets; only fewer than it has. Raises OSError."""
    values = (sets.effective, sets.permitted, sets.inheritable)
    halves = [value & 0xFFFFFFFF for value in values] + [value >> 32 for value in values]
    _call("capset", (ctypes.c_uint32 * 6)(*halves))


@contextlib.contextmanager
def without(unwanted: Collection[str]) -> Iterator[None]:
    """Do without some capabilities for a while, in this thread."""
    before = held()
    hold(replace(before, effective=before.effective & ~bits(unwanted)))
    try:
        yield
    finally:
        hold(before)


def limit(number: int) -> None:
    """Let nothing that is run from here ever get other capabilities than those in `number`.

    That takes CAP_SETPCAP. Raises OSError.
    """
    for bit in range(_MOST):
        if prctl(_PR_CAPBSET_READ, bit) != 1:  # 0: gone already, -1: more than the kernel has
            continue
        if not number >> bit & 1 and prctl(_PR_CAPBSET_DROP, bit):
            raise _failed()


def pass_on(number: int) -> None:
    """Give those in `number` to programs that are run from here. They must be inheritable."""
    for bit in range(_MOST):
        if number >> bit & 1 and prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, bit):
            raise _failed()


def prctl(option: int, *arguments: int) -> int:
    """Call prctl(2); return what it did, -1 where it failed."""
    values = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    return int(_libc().prctl(ctypes.c_int(option), *values))


def _call(name: str, halves: "ctypes.Array[ctypes.c_uint32]") -> None:
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)  # 0: the calling thread
    if _libc()[name](header, halves):
        raise _failed()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _failed() -> OSError:
    # ctypes keeps one errno for a thread, whichever of its libraries failed last.
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
