"""What on this host can interpose on the connects of a process: facts, read only.

Each fact says what was seen and where; none accuses. Things that could not be read
are no facts and are left out.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from porttrace.tracer.facts import Process, Suspect
from porttrace.tracer.processes import read_process

_PROC = Path("/proc")
_WORDS, _COMMAND = 3, 60


def suspects(process: Process) -> tuple[Suspect, ...]:
    """Return what could hold the connects of `process`, best fits first."""
    return (*_seccomp(process), *_ptrace(process), *_preload(process))


def _status(pid: int) -> dict[str, str]:
    with contextlib.suppress(OSError):
        lines = (_PROC / str(pid) / "status").read_text(errors="replace").split("\n")
        return {k: v.strip() for k, v in (line.split(":", 1) for line in lines if ":" in line)}
    return {}


def _seccomp(process: Process) -> Iterator[Suspect]:
    # Mode 2 is a filter; who answers for it holds a "seccomp notify" descriptor.
    if _status(process.pid).get("Seccomp") != "2":
        return
    family = _ancestors(process.pid)
    holders = sorted(notify_holders(), key=lambda pid: (pid not in family, pid))
    for pid in holders:
        who = read_process(pid)
        near = ", an ancestor of it" if pid in family else ""
        yield Suspect(
            kind="seccomp-notify",
            place="gate",
            what=f"{who.comm} (pid {pid}{near}{_command(who)}) answers system calls in place of "
            f"the kernel (seccomp user notification); {process.comm} (pid {process.pid}) has a "
            "seccomp filter",
            source=f"/proc/{pid}/fd, /proc/{process.pid}/status",
            pid=pid,
        )
    if not holders:
        yield Suspect(
            kind="seccomp-filter",
            place="gate",
            what=f"{process.comm} (pid {process.pid}) has a seccomp filter; nobody holds "
            "a notification descriptor",
            source=f"/proc/{process.pid}/status",
        )


def _command(process: Process) -> str:
    # "python" says nothing, "python -m guard" does. No further: passwords may follow.
    words = process.cmdline.split(" ")[:_WORDS]
    return f": {' '.join(words)[:_COMMAND]}" if process.cmdline else ""


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1 and pid not in found:
        found.add(pid)
        pid = int(_status(pid).get("PPid", "0"))
    return found


def notify_holders() -> set[int]:
    """Return the processes that hold a seccomp notification descriptor."""
    return {int(name) for name in os.listdir(_PROC) if name.isdigit() and _holds_notify(name)}


def _holds_notify(pid: str) -> bool:
    with contextlib.suppress(OSError), os.scandir(_PROC / pid / "fd") as entries:
        return any(_link(entry.path).startswith("anon_inode:seccomp notify") for entry in entries)
    return False


def _link(path: str) -> str:
    # A descriptor may be closed meanwhile; the others still count.
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def _ptrace(process: Process) -> Iterator[Suspect]:
    tracer = int(_status(process.pid).get("TracerPid", "0"))
    if tracer:
        who = read_process(tracer)
        yield Suspect(
            kind="ptrace",
            place="gate",
            what=f"{who.comm} (pid {tracer}{_command(who)}) traces {process.comm} "
            f"(pid {process.pid}) with ptrace and can stop each of its system calls",
            source=f"/proc/{process.pid}/status",
            pid=tracer,
        )


def _preload(process: Process) -> Iterator[Suspect]:
    for library in process.preloads:
        yield Suspect(
            kind="preload",
            place="user",
            what=f"{library} is preloaded into {process.comm} (pid {process.pid}) "
            "and defines its own connect()",
            source=f"/proc/{process.pid}/maps",
            pid=process.pid,
        )
