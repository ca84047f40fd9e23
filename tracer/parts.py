"""The files of one recording: one, or parts of a bounded size of which the last ones are kept."""

import glob
import os
import time
from dataclasses import dataclass
from pathlib import Path

from porttrace.tracer.output import Output, OutputError, existing, open_output, remove


@dataclass(frozen=True)
class Rotation:
    """When a part is full, and how many are kept; 0 means no bound."""

    size: int = 0  # bytes
    seconds: float = 0.0
    keep: int = 0

    def __bool__(self) -> bool:
        return bool(self.size or self.seconds)


def parts_of(path: str) -> list[str]:
    """Return the parts that there are of a recording `path`, the oldest first."""
    folder, name = os.path.split(path)
    stem, suffix = map(glob.escape, os.path.splitext(name))
    return existing(folder, f"{stem}-[0-9][0-9][0-9][0-9]*{suffix}")


class Parts:
    """Opens FILE, or FILE-0001, FILE-0002, ...: the first at once, so that errors come early.

    Raises OutputError, from `next` too.
    """

    def __init__(self, path: str, force: bool = False, rotation: Rotation | None = None) -> None:
        self.rotation = rotation or Rotation()
        self.paths: list[str] = []
        self.number = 0  # of the part that is open; 0 without rotation
        self.total = 0  # bytes in the parts before this one
        self._path, self._force = path, force
        if self.rotation:
            self._check(path)
        self.open = self._opened()

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *_: object) -> None:
        """Remove a file to which nothing was written: its recording never began."""
        if not self.size:
            self.open.discard()

    def _check(self, path: str) -> None:
        if path == "-":
            raise OutputError("standard output cannot be rotated", "use -o FILE with --rotate")
        # All of them now: a part of an older recording must not end this one in the night.
        old = parts_of(path)
        if old and not self._force:
            raise OutputError(
                f"{old[0]} exists",
                "another name keeps it, as in FILE-$(date +%s).ptrace; --force replaces the parts",
            )
        for each in old:
            remove(each)

    def _name(self, number: str) -> str:
        path = Path(self._path)
        return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))

    def _opened(self) -> Output:
        path = self._path
        if self.rotation:
            self.number += 1
            path = self._name(f"{self.number:04}")
        output = open_output(path, self._force)
        self._begun_s = time.monotonic()
        self.paths.append(output.path)
        return output

    @property
    def folder(self) -> str | None:
        """Where the files are made ("" is here); None for standard output."""
        return None if self._path == "-" else os.path.dirname(self._path)

    @property
    def full(self) -> bool:
        """Whether it is time for the next part."""
        size, seconds = self.rotation.size, self.rotation.seconds
        aged = time.monotonic() - self._begun_s >= seconds if seconds else False
        return aged or bool(size and self.open.size >= size)

    def next(self) -> None:
        """Close the open part, open the next one, and remove what need not be kept."""
        self.open.close()
        self.total += self.open.size
        self.open = self._opened()
        while self.rotation.keep and len(self.paths) > self.rotation.keep:
            remove(self.paths.pop(0))

    @property
    def size(self) -> int:
        """Bytes written to all parts."""
        return self.total + self.open.size
