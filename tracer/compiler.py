"""The kernel program by bcc: compiled, or as it was compiled before on this very host."""

import contextlib
import os
from pathlib import Path
from typing import Any

from porttrace.tracer.kept import Kept, revive, taken_from
from porttrace.tracer.shelf import Shelf

_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OSError)


class Compiler:
    """Makes BPF objects of bcc's class `base`. What it compiled is kept on a shelf.

    What is kept depends on all that it is made of: text and flags, the kernel, whose tracepoints
    bcc looks up, the number of CPUs, by which it sizes maps, and bcc itself.
    """

    def __init__(self, bcc: Any, base: type, shelf: Shelf) -> None:
        self._bcc, self._base, self._shelf = bcc, base, shelf
        self._host = [*_kernel(), _text(_POSSIBLE_CPUS), *_library()]

    def compile(self, text: str, flags: list[str]) -> Any:
        """Return a new module. Raises what bcc raises."""
        return self._base(text=text.encode(), cflags=flags)

    def revive(self, text: str, flags: list[str]) -> Any | None:
        """Return what was kept of the same text and flags, None where there is nothing good."""
        data = self._shelf.find([text, flags, self._host])
        with contextlib.suppress(*_UNREADABLE):
            return revive(self._bcc, self._base, Kept.from_bytes(data)) if data else None
        return None

    def keep(self, bpf: Any, text: str, flags: list[str]) -> None:
        """Keep what `compile` returned for this text and these flags."""
        with contextlib.suppress(*_UNREADABLE):
            data = taken_from(bpf, self._bcc.lib).to_bytes()
            self._shelf.put([text, flags, self._host], data)


def _kernel() -> list[str]:
    uname = os.uname()
    return [uname.release, uname.version, uname.machine]


# The library's file and not its version: distributions mend it without a new one.
def _library() -> list[str]:
    for line in _text(Path("/proc/self/maps")).splitlines():
        path = line.partition("/")[2]
        if Path(path).name.startswith("libbcc.so"):
            found = os.stat(f"/{path}")
            return [path, str(found.st_size), str(found.st_mtime_ns)]
    return []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
