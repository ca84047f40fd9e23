"""How much memory is left for a trace: that of the host, or of the control groups it runs in.

The kernel side's maps are charged to the control group as well (since Linux 5.11): all of them at
their full size are 125 MB. Whoever grows past a group's limit is killed, so with little memory a
trace takes smaller maps and keeps less waiting; what does not fit is lost, and counted.
"""

import contextlib
import ctypes
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from porttrace.tracer.options import TraceOptions

ROOMY_BYTES = 400 << 20
"""With less than this to spare, maps are small."""
FEW_PLACES = 8192
"""Sockets and threads that small maps hold."""
_SHARE = 8  # what waits may take this part of what is left, at each place
_DEEPEST = 32  # groups on the way down that are looked at
_HOST = Path("/")
_WORTH_KB = 256
_MADV_DONTNEED = 4
# Where a kind of tree is mounted, what begins its line in /proc/self/cgroup, its files.
_TREES = (
    ("sys/fs/cgroup/memory", r"\d+:[^:]*\bmemory\b[^:]*:",
     "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ("sys/fs/cgroup", "0::", "memory.max", "memory.current", "inactive_file"),
)  # fmt: skip


def spare_bytes(root: Path = _HOST) -> int:
    """Return how many bytes can still be taken; `root` is "/" except in tests."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", _read(root / "proc/meminfo"), re.M)
    left = [int(found[1]) << 10] if found else [1 << 62]
    return max(0, min([*left, *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    lines = _read(root / "proc/self/cgroup").split("\n")
    for mount, pattern, limit, usage, cache in _TREES:
        for line in lines:
            begin = re.match(pattern, line)
            if begin:
                path = line[begin.end() :].strip("/")
                parts = path.split("/")[:_DEEPEST] if path and ".." not in path else []
                for depth in range(len(parts) + 1):
                    group = (root / mount).joinpath(*parts[:depth])
                    yield from _left(group, limit, usage, cache)


def _left(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    # Without a limit the file says "max", or is not there. Files in memory make room by themselves.
    with contextlib.suppress(ValueError):
        most, used = int(_read(group / limit)), int(_read(group / usage))
        found = re.search(rf"^{cache} (\d+)$", _read(group / "memory.stat"), re.M)
        yield most - used + (int(found[1]) if found else 0)


def fitted(options: TraceOptions, spare: int) -> TraceOptions:
    """Return the options with maps that fit in `spare` bytes, and a note where they are small."""
    if spare >= ROOMY_BYTES or options.max_attempts <= FEW_PLACES:
        return options
    return replace(
        options,
        max_attempts=FEW_PLACES,
        extra_flags=(*options.extra_flags, f"-DMAX_THREADS={FEW_PLACES}"),
        notes=(*options.notes, f"With {spare >> 20} MB of memory left, {FEW_PLACES:,} sockets and "
               "threads can be followed at once; more are counted."),
    )  # fmt: skip


def most_waiting(spare: int, most: int) -> int:
    """Return how many bytes may wait at one place: `most`, or less where little is left."""
    return min(most, max(1 << 20, spare // _SHARE))


def unused_code(smaps: str) -> Iterator[tuple[int, int]]:
    """Yield (address, bytes) of mapped files in the text of /proc/PID/smaps that nobody changed.

    Read-only, with no page of our own: what is dropped of them comes back from the file.
    """
    for entry in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.M):
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) r-[-x]p \S+ \S+ [1-9]\d* +/", entry)
        held = {name: int(kb) for name, kb in re.findall(r"^(\w+): +(\d+) kB$", entry, re.M)}
        if head and held.get("Rss", 0) >= _WORTH_KB and held.get("Anonymous", 1) == 0:
            begin = int(head[1], 16)
            yield begin, int(head[2], 16) - begin


def release(root: Path = _HOST) -> None:
    """Give back memory that is free, and the pages of programs that ran once.

    The compiler that was loaded with bcc will not run again while this traces.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(AttributeError):  # glibc's
        libc.malloc_trim(0)
    for begin, size in unused_code(_read(root / "proc/self/smaps")):
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), _MADV_DONTNEED)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return path.read_text()
    return ""
