"""The namespaces of processes: is our own view of pids the kernel's, and who is in which network.

The kernel's events carry the pids of the host's pid namespace. Where /proc shows another one,
none of them would be found, so `require_host_pids` refuses instead of showing nothing.
"""

import contextlib
import ctypes
import fcntl
import os
import re
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from porttrace.tracer import processes
from porttrace.tracer.errors import (
    NotPermittedError,
    PorttraceError,
    TargetError,
    UnsupportedError,
)

# The first pid namespace has this number on every kernel: PROC_PID_INIT_INO of proc_ns.h
_HOST_PIDS = 0xEFFFFFFC
NAMED = Path("/run/netns")
"""Where `ip netns add` keeps them."""
_NS_GET_NSTYPE = 0xB703  # ioctl of <linux/nsfs.h>
_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")

NO_HOST_PIDS = (
    "porttrace runs in a pid namespace of its own, where processes have other numbers than the "
    "kernel reports"
)
NO_HOST_PIDS_HINT = (
    "start the container with --pid=host (Kubernetes: hostPID: true), or run porttrace on the "
    "host; docs/containers.md lists all that it needs there"
)


def sees_host_pids(root: Path = Path("/")) -> bool | None:
    """Return whether /proc shows the pids of the host; None where that cannot be told."""
    with contextlib.suppress(OSError):
        match = re.fullmatch(r"pid:\[(\d+)\]", os.readlink(root / "proc/self/ns/pid"))
        if match:
            return int(match[1]) == _HOST_PIDS
    return None


def require_host_pids(root: Path = Path("/")) -> None:
    """Raise UnsupportedError where the pids of the kernel's events mean nothing in our /proc."""
    if sees_host_pids(root) is False:
        raise UnsupportedError(NO_HOST_PIDS, NO_HOST_PIDS_HINT)


def find_netns(word: str) -> int:
    """Return the number (inode) of a network namespace, given by name, path or pid.

    Names are those of `ip netns`; digits are a pid where there is no such name.
    Raises TargetError.
    """
    number = netns_number(_netns_path(word))
    if number:
        return number
    raise TargetError(
        f"there is no network namespace {word}",
        "name one of 'ip netns list', a pid, or a path such as /proc/PID/ns/net",
    )


def netns_path(word: str) -> str:
    """Return the path of a network namespace, given as to `find_netns`.

    Raises TargetError, and NotPermittedError where only root may see it.
    """
    path = _netns_path(word)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
        try:
            os.stat(path)
        except PermissionError as error:
            raise _no_entry(str(path), error) from None
    find_netns(word)
    return str(path)


def enter_command(path: str) -> str:
    """Return what goes before a command that is meant for the network namespace at `path`.

    It ends with a blank; "" for our own. Without it `sysctl -w` would change the host.
    """
    if not path or _is_ours(path):
        return ""
    if Path(path).parent in (NAMED, Path("/var/run/netns")):
        return f"ip netns exec {shlex.quote(Path(path).name)} "
    of_process = re.fullmatch(r"/proc/(\d+)/ns/net", path)
    return (
        f"nsenter -t {of_process[1]} -n "
        if of_process
        else f"nsenter {shlex.quote(f'--net={path}')} "
    )


def in_netns(path: str, work: Callable[[], _T]) -> _T:
    """Run `work` in the network namespace at `path`; right here when that is "" or our own.

    Raises PorttraceError when it cannot be entered, and what `work` raises.
    """
    if not path or _is_ours(path):
        return work()
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _no_entry(path, error) from None
    try:
        return inside(handle, work)
    except PermissionError as error:
        raise _no_entry(path, error) from None
    finally:
        os.close(handle)


def in_netns_of(pid: int, work: Callable[[], _T]) -> _T:
    """Run `work` in the network namespace of process `pid`, 0 is our own. As `in_netns`."""
    return in_netns(f"/proc/{pid}/ns/net" if pid else "", work)


def _is_ours(path: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(path, "/proc/thread-self/ns/net")
    return False


def _no_entry(path: str, error: OSError) -> PorttraceError:
    message = f"cannot enter the network namespace {path}: {error.strerror}"
    if isinstance(error, PermissionError):
        return NotPermittedError(message, "it takes CAP_SYS_ADMIN: run it as root")
    return TargetError(message, "is the process still there?")


def _netns_path(word: str) -> Path:
    if "/" in word:
        return Path(word)
    named = NAMED / word
    return Path(f"/proc/{word}/ns/net") if word.isdecimal() and not named.exists() else named


def netns_number(path: Path) -> int:
    """Return the number (inode) of the network namespace at `path`, 0 where there is none."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a NUL in it
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if fcntl.ioctl(handle, _NS_GET_NSTYPE) == _CLONE_NEWNET:
                return os.fstat(handle).st_ino
        finally:
            os.close(handle)
    return 0


def pids_in_netns(number: int) -> frozenset[int]:
    """Return the processes that are in network namespace `number` (inode) now."""
    return frozenset(pid for pid in processes.all_pids() if processes.netns(pid) == number)


def inside(handle: int, work: Callable[[], _T]) -> _T:
    """Run `work` in the network namespace that the descriptor `handle` stands for.

    It runs in a thread of its own: setns(2) changes the calling thread only, so nothing else of
    us moves. Raises OSError when the namespace cannot be entered, and what `work` raises.
    """

    def entered() -> _T:
        enter(handle)
        return work()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(entered).result()


def enter(handle: int) -> None:
    """Move the calling thread, which must be one of its own for that, as `inside` does.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
