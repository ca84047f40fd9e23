"""Kprobe definitions that a killed porttrace left behind, taken away by the next one.

A kretprobe with more places than the kernel's own choice has to be defined in tracefs,
and a definition outlives the process that made it: switched off, and costing nothing but
a line in kprobe_events. bcc names it after the process: r_tcp_v4_connect_bcc_PID.
"""

import contextlib
import os
import re
from pathlib import Path

from porttrace.tracer.hooks import function_hooks

_DEFINITION = re.compile(r"^[pr]\d*:(kprobes/\w+_bcc_(\d+)) (\w+)")


def remove_leftovers(tracefs: Path, proc: Path = Path("/proc")) -> list[str]:
    """Remove what dead processes defined at functions that porttrace hooks; return the names.

    One that is in use stays: the kernel refuses to take it away.
    """
    functions = {hook.event for hook in function_hooks("kprobe")}
    removed = []
    for line in _lines(tracefs / "kprobe_events"):
        match = _DEFINITION.match(line)
        if match and match[3] in functions and not (proc / match[2]).exists():
            with contextlib.suppress(OSError):
                _remove(tracefs / "kprobe_events", match[1])
                removed.append(match[1])
    return removed


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _remove(path: Path, name: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, f"-:{name}\n".encode())
    finally:
        os.close(fd)
