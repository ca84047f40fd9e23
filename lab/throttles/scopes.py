"""Whom a throttle of packets counts: from the socket behind a packet to the key of its scope.

A packet tells no process: the reader looks for the socket's inode among the open files of the
command and all its descendants, as firewalls do that decide by program.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

from porttrace.lab.throttles.segment import Ends
from porttrace.lab.throttles.sockdiag import Owner

Key = Callable[[Ends, Owner], Hashable]

_NOBODY = -1  # the scope of sockets whose owner cannot be found


def key_of(scope: str, root_pid: int) -> Key:
    """Return the function that names the scope of an attempt below the process `root_pid`."""
    keys: dict[str, Key] = {
        "host": lambda ends, owner: 0,
        "destination": lambda ends, owner: (ends.daddr, ends.dport),
        "user": lambda ends, owner: owner.uid,
        "cgroup": lambda ends, owner: owner.cgroup,
        "process": lambda ends, owner: pid_of(owner.inode, root_pid),
    }
    return keys[scope]


def pid_of(inode: int, root_pid: int) -> int:
    """Return the process below `root_pid`, or itself, that has the socket open; -1 if none has."""
    wanted = f"socket:[{inode}]"
    found = (pid for pid in _descendants(root_pid) if wanted in _open_files(pid))
    return next(found, _NOBODY)


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _descendants(int(child))


def _open_files(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                yield os.readlink(f"{folder}/{name}")
