"""Control groups v2 as directories: where one is, and which processes are in it."""

import contextlib
import ctypes
import os
import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


def directory_of(path: str, pids: Collection[int], mounts: Path = _MOUNTS) -> str:
    """Return the directory of a control group that /proc/PID/cgroup shows as `path`.

    "" unless one of `pids` really is in it: the path may be one of v1, or relative to another
    namespace than the tree that is mounted here.
    """
    for root, mounted in _trees(mounts):
        if root == "/" or path == root or path.startswith(f"{root}/"):
            place = mounted + path.removeprefix(root.rstrip("/"))
            if pids_below(place) & set(pids):
                return place
    return ""


def pids_below(directory: str) -> frozenset[int]:
    """Return the processes in a control group and in those below it; none if it is gone."""
    found: set[int] = set()
    for place, _, _ in os.walk(directory):
        with contextlib.suppress(OSError, ValueError):
            found.update(map(int, Path(place, "cgroup.procs").read_text().split()))
    return frozenset(found)


@lru_cache(maxsize=4096)
def path_of(number: int) -> str:
    """Return the path of the control group with this id (what events carry), as in /proc.

    "" when it is gone, not in the part of the tree that is mounted here, or cannot be asked for:
    that takes CAP_DAC_READ_SEARCH.
    """
    for root, mounted in _trees(_MOUNTS):
        place = _opened(mounted, number)
        if place == mounted or place.startswith(f"{mounted}/"):
            return root.rstrip("/") + place.removeprefix(mounted) or "/"
    return ""


class _Handle(ctypes.Structure):
    # struct file_handle of <fcntl.h>, as kernfs makes them: FILEID_KERNFS of exportfs.h
    _fields_ = (
        ("handle_bytes", ctypes.c_uint32),
        ("handle_type", ctypes.c_int32),
        ("number", ctypes.c_uint64),
    )


_FILEID_KERNFS = 0xFE


def _opened(mounted: str, number: int) -> str:
    handle = _Handle(ctypes.sizeof(ctypes.c_uint64), _FILEID_KERNFS, number)
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError):
        tree = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = os.O_PATH | os.O_CLOEXEC
            place = libc.open_by_handle_at(tree, ctypes.byref(handle), flags)
            if place >= 0:
                try:
                    return os.readlink(f"/proc/self/fd/{place}")
                finally:
                    os.close(place)
        finally:
            os.close(tree)
    return ""


def _trees(mounts: Path) -> Iterator[tuple[str, str]]:
    # ID PARENT DEV ROOT MOUNTPOINT OPTIONS... - TYPE SOURCE OPTIONS, see proc(5)
    with contextlib.suppress(OSError):
        for line in mounts.read_text(errors="surrogateescape").split("\n"):
            fields, _, rest = line.partition(" - ")
            if rest.startswith("cgroup2 "):
                root, mounted = fields.split(" ")[3:5]
                yield _plain(root), _plain(mounted)


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
