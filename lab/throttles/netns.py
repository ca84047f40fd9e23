"""Network namespaces from the inside: which one is this, and a step into another and back."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from porttrace.lab.errors import LabError
from porttrace.lab.hosts import namespaces

_CLONE_NEWNET = 0x40000000
_NAMED = Path("/run/netns")
_OWN = Path("/proc/thread-self/ns/net")
_libc = ctypes.CDLL(None, use_errno=True)


def own_name() -> str:
    """Return the name of this process's namespace where it is one of the lab's, else ""."""
    own = _OWN.stat().st_ino
    return next((name for name in namespaces() if _inode(_NAMED / name) == own), "")


def router_name() -> str:
    """Return the name of the router between the two hosts, seen from the client host."""
    router = own_name().replace("-client", "-router")
    if "-router" not in router or router not in namespaces():
        raise LabError(
            "there is no router between this place and the servers",
            "run the throttle gateway through porttrace lab run or a scenario, which make one",
        )
    return router


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Have the calling thread in the namespace `name`; sockets made inside stay there."""
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(_NAMED / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(there, name)
        yield
    finally:
        _enter(home, "its own")
        os.close(home)
        os.close(there)


def _enter(fd: int, name: str) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise LabError(
            f"cannot step into the network namespace {name!r}: {os.strerror(ctypes.get_errno())}",
            "the lab needs CAP_SYS_ADMIN: run it with sudo",
        )


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
