"""Which processes have a socket open: one pass over /proc/*/fd, for only the sockets in question.

A socket that no process has may still be alive: its descriptor travels between processes
(SCM_RIGHTS), an io_uring keeps it, or it is the kernel's own. `elsewhere` tells these apart.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_PROC = "/proc"
_RING = "anon_inode:[io_uring]"


class Descriptor(NamedTuple):
    """A descriptor of a socket."""

    pid: int
    fd: int


@dataclass(frozen=True)
class Owners:
    """Who has which socket open, by inode, and which processes could not be looked into."""

    found: dict[int, list[Descriptor]] = field(default_factory=dict)
    closed: tuple[int, ...] = ()  # processes that could not be looked into

    @property
    def hidden(self) -> int:
        """How many processes could not be looked into."""
        return len(self.closed)

    def first(self, inode: int) -> Descriptor | None:
        """Return the descriptor of the oldest process, which made it and passed it on, if any."""
        return min(self.found.get(inode, ()), default=None)


def owners(inodes: Iterable[int], proc: str = _PROC) -> Owners:
    """Return who has the sockets of these inodes open."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes if inode}
    if not wanted:
        return Owners()
    found: dict[int, list[Descriptor]] = {}
    closed = []
    for pid in _numbers(proc):
        try:
            links = list(_links(f"{proc}/{pid}/fd"))
        except PermissionError:
            closed.append(pid)
            continue
        except OSError:
            continue  # it ended
        for fd, link in links:
            if link in wanted:
                found.setdefault(wanted[link], []).append(Descriptor(pid, fd))
    return Owners(found, tuple(closed))


def sockets_of_all(proc: str = _PROC) -> Iterator[tuple[Descriptor, int]]:
    """Yield every descriptor of a socket that we may see, with the socket's inode."""
    for pid in _numbers(proc):
        with contextlib.suppress(OSError):
            for fd, link in _links(f"{proc}/{pid}/fd"):
                if link.startswith("socket:["):
                    yield Descriptor(pid, fd), int(link[8:-1])


def _numbers(path: str) -> list[int]:
    return sorted(int(name) for name in os.listdir(path) if name.isdecimal())


def _links(folder: str) -> Iterator[tuple[int, str]]:
    # By a handle of the folder: the kernel looks up /proc/PID once, not once a descriptor.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(handle):
            # Refused for one, refused for all: some processes are closed to root, too.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(name), os.readlink(name, dir_fd=handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Elsewhere:
    """Where sockets may be that no process has a descriptor of."""

    rings: dict[int, int] = field(default_factory=dict)  # inode -> process whose io_uring has it
    threads: dict[int, int] = field(
        default_factory=dict
    )  # inode -> process, in a thread's own table
    receivers: tuple[int, ...] = ()  # processes with descriptors in a queue, not received yet


def elsewhere(inodes: Iterable[int], proc: str = _PROC) -> Elsewhere:
    """Look for sockets that `owners` did not find: slower, and asked only where there are any."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    rings: dict[int, int] = {}
    threads: dict[int, int] = {}
    receivers = set()
    for pid in _numbers(proc):
        base = f"{proc}/{pid}"
        with contextlib.suppress(OSError):
            for fd, link in _links(f"{base}/fd"):
                if link == _RING:
                    told = _read(f"{base}/fdinfo/{fd}")
                    rings |= {inode: pid for word, inode in wanted.items() if word in told}
                elif link.startswith("socket:[") and _holds_descriptors(f"{base}/fdinfo/{fd}"):
                    receivers.add(pid)
            threads |= dict.fromkeys(_of_threads(base, pid, wanted), pid)
    return Elsewhere(rings, threads, tuple(sorted(receivers)))


def _holds_descriptors(path: str) -> bool:
    # Of a socket of AF_UNIX: how many descriptors wait in its queue (Linux 5.9 and newer).
    _, found, count = _read(path).partition("scm_fds:")
    return bool(found) and count.split()[0] != "0"


def _of_threads(base: str, pid: int, wanted: dict[str, int]) -> Iterator[int]:
    # A thread may have a table of descriptors of its own: unshare(CLONE_FILES).
    for tid in _numbers(f"{base}/task"):
        if tid != pid:
            with contextlib.suppress(OSError):
                for _, link in _links(f"{base}/task/{tid}/fd"):
                    if link in wanted:
                        yield wanted[link]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
