"""The definitions of kprobes in tracefs: those of a trace, and those a killed one left behind.

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


class Definitions:
    """The kernel's list of them, held open: root's, and a trace is not root when it ends."""

    def __init__(self, tracefs: Path) -> None:
        """Open it for writing. Raises OSError."""
        # Without O_APPEND or with O_TRUNC the kernel may take away those of everybody.
        self._fd = os.open(tracefs / "kprobe_events", os.O_WRONLY | os.O_APPEND)

    def remove(self, name: str) -> bool:
        """Take one away, GROUP/EVENT; False where there is none or it is in use."""
        try:
            os.write(self._fd, f"-:{name}\n".encode())
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the list. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> "Definitions":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def definition_of(event: str) -> str:
    """Return what bcc calls the definition of one of its events in this process."""
    return f"kprobes/{event}_bcc_{os.getpid()}"


def remove_leftovers(tracefs: Path, proc: Path = Path("/proc")) -> list[str]:
    """Remove what dead processes defined at functions that porttrace hooks; return the names.

    One that is in use stays: the kernel refuses to take it away.
    """
    functions = {hook.event for hook in function_hooks("kprobe")}
    matches = [_DEFINITION.match(line) for line in _lines(tracefs / "kprobe_events")]
    left = [
        match[1]
        for match in matches
        if match and match[3] in functions and not (proc / match[2]).exists()
    ]
    if not left:
        return []
    with contextlib.suppress(OSError), Definitions(tracefs) as definitions:
        return [name for name in left if definitions.remove(name)]
    return []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
