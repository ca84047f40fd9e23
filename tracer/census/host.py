"""The files of a host that a census reads, below a root: "/", or a made one in tests.

Everything may vanish while it is read; what cannot be read says why, once.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from porttrace.tracer.facts import Process
from porttrace.tracer.processes import read_process

_LIMIT = 4 << 20  # bytes of one file
_THREADS = 512  # of one process
_WORDS, _COMMAND = 3, 60


class UnreadError(Exception):
    """A file could not be read; the message is the reason, for a `NotLooked`."""


@dataclass(frozen=True)
class HostFiles:
    """Reads below `root`. Paths are given as on the host: /proc/1/status."""

    root: Path = Path("/")

    def path(self, name: str) -> Path:
        """Return where a file of the host is to be read."""
        return self.root / name.lstrip("/")

    def is_here(self) -> bool:
        """Whether this is the running host, of which the kernel can be asked, too."""
        return self.root == Path("/")

    def text(self, name: str) -> str:
        """Return a file as text, at most 4 MiB of it. Raises UnreadError with the reason."""
        try:
            with open(self.path(name), "rb") as handle:
                return os.fsdecode(handle.read(_LIMIT))
        except OSError as error:
            raise UnreadError(f"{name}: {(error.strerror or str(error)).lower()}") from None

    def found(self, name: str) -> str:
        """Return a file as text, "" where there is none or it cannot be read."""
        with contextlib.suppress(UnreadError):
            return self.text(name)
        return ""

    def names(self, folder: str) -> list[str]:
        """Return what is in a folder, sorted. Raises UnreadError."""
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError as error:
            raise UnreadError(f"{folder}: {(error.strerror or str(error)).lower()}") from None

    # -- processes -------------------------------------------------------------

    def status(self, pid: int, tid: int = 0) -> dict[str, str]:
        """Return /proc/PID/status by its keys; empty when the process is gone."""
        name = f"/proc/{pid}/task/{tid}/status" if tid else f"/proc/{pid}/status"
        # Not splitlines(): the kernel escapes newlines in names, but no other separator.
        pairs = (line.split(":", 1) for line in self.found(name).split("\n") if ":" in line)
        return {key: value.strip() for key, value in pairs}

    def threads(self, pid: int) -> list[dict[str, str]]:
        """Return the status of the process and of its threads, at most 512; without those gone."""
        tids: list[int] = []
        with contextlib.suppress(UnreadError):
            tids = [int(name) for name in self.names(f"/proc/{pid}/task")[:_THREADS]]
        read = (self.status(pid), *(self.status(pid, tid) for tid in tids if tid != pid))
        return [status for status in read if status]

    def ancestors(self, pid: int) -> set[int]:
        """Return a process and those that it descends from, without init."""
        found: set[int] = set()
        while pid > 1 and pid not in found:
            found.add(pid)
            pid = int(self.status(pid).get("PPid", "0"))
        return found

    def pids(self) -> Iterator[int]:
        """Yield the processes that are there."""
        with contextlib.suppress(UnreadError):
            yield from (int(name) for name in self.names("/proc") if name.isdigit())

    def process(self, pid: int) -> Process:
        """Return what is known of a process."""
        return read_process(pid, self.path("/proc"))

    def who(self, pid: int, more: str = "") -> str:
        """Return `comm (pid N: first words of its command)`; `more` stands behind the number."""
        known = self.process(pid)
        # "python" says nothing, "python -m guard" does. No further: passwords may follow.
        words = " ".join(known.cmdline.split(" ")[:_WORDS])[:_COMMAND]
        return f"{known.comm or 'a process'} (pid {pid}{more}{words and ': ' + words})"


HERE = HostFiles()
"""The running host."""
