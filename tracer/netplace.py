"""The way into a network namespace that is known by its number: a handle, and words to type.

A number is all that the kernel's record has of it. Who is in it may end at any moment, so a handle
is opened first and looked at then: it keeps the namespace, whoever ends.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from porttrace.tracer import processes
from porttrace.tracer.namespaces import NAMED, netns_number

# Where namespaces are kept, with or without anybody in them.
_KEPT = (NAMED, Path("/run/docker/netns"))


@contextlib.contextmanager
def way_in(number: int, asked: int = 0) -> Iterator[str | None]:
    """Yield a path by which network namespace `number` can be entered, "" where it is our own.

    None where nobody is in it and nothing keeps it. `asked` is a process that is probably in it.
    """
    if number and number == processes.netns(os.getpid()):
        yield ""
        return
    handle = _handle(number, asked) if number else -1
    try:
        yield f"/proc/self/fd/{handle}" if handle >= 0 else None
    finally:
        if handle >= 0:
            os.close(handle)


def words(number: int, but: int = 0) -> dict[str, int | str]:
    """Return the facts `netns_name` and `netns_pid`, as far as there are such.

    `but` is a process that will be gone when somebody types them.
    """
    name = name_of(number)
    inside = (pid for pid in sorted(processes.all_pids()) if processes.netns(pid) == number)
    pid = next((pid for pid in inside if pid != but and processes.exists(pid)), 0)
    found: dict[str, int | str] = {"netns_pid": pid} if pid else {}
    if name:
        found["netns_name"] = name
    return found


def name_of(number: int) -> str:
    """Return what `ip netns` calls network namespace `number`, "" nothing."""
    with contextlib.suppress(OSError):
        return next((e.name for e in sorted(NAMED.iterdir()) if netns_number(e) == number), "")
    return ""


def called(number: int, path: str) -> str:
    """Return what to call network namespace `number`, which was asked for by `path`.

    "" for our own ("" as `path`) where it has no name.
    """
    name = name_of(number)
    if name:
        return f"{name} ({number})"
    pid = re.fullmatch(r"/proc/(\d+)/ns/net", path)
    return f"{number}, that of {f'pid {pid[1]}' if pid else path}" if path else ""


def _handle(number: int, asked: int) -> int:
    for path in _candidates(asked):
        with contextlib.suppress(OSError):
            if path.stat().st_ino != number:
                continue
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(handle).st_ino == number:
                return handle
            os.close(handle)
    return -1


def _candidates(asked: int) -> Iterator[Path]:
    if asked:
        yield Path(f"/proc/{asked}/ns/net")
    yield from _kept()
    yield from (Path(f"/proc/{pid}/ns/net") for pid in processes.all_pids())


def _kept() -> Iterator[Path]:
    for folder in _KEPT:
        with contextlib.suppress(OSError):
            yield from sorted(folder.iterdir())
