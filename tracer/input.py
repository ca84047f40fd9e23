"""The bytes of a file or pipe for a reader that does not trust them.

Never asks for more memory than there are bytes, whatever length a damaged file claims, and
remembers what tells a cut file from a damaged one: whether it ran short, and its last bytes.
"""

import io
import sys
from typing import BinaryIO

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The last 8 bytes of an Arrow IPC stream that was closed."""

_PIECE = 1 << 20
_TAIL = 64


class Source(io.RawIOBase):
    """Reads a file, or standard input for `-`. Raises OSError when it cannot be opened."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._own = False  # whoever is not opened is closed all the same, by the collector
        self._file: BinaryIO = open(path, "rb") if path != "-" else sys.stdin.buffer  # noqa: SIM115
        self._own = path != "-"
        self._head = b""
        self._last = b""
        self.short = False  # fewer bytes came than were asked for
        self.error = ""  # why the system could not read

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._own:
            self._file.close()
        super().close()

    def readable(self) -> bool:
        """Return True."""
        return True

    def peek(self, size: int) -> bytes:
        """Return the first bytes without taking them; fewer when there are no more."""
        self._head += self._pieces(size - len(self._head))
        return self._head[:size]

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer at the end."""
        taken, self._head = self._head[:size], self._head[size:]
        data = taken + self._pieces(size - len(taken))
        self._last = (self._last + data[-_TAIL:])[-_TAIL:]
        self.short |= len(data) < size
        return data

    def tail(self, size: int) -> bytes:
        """Read to the end and return the last bytes."""
        while self.read(_PIECE):
            pass
        return self._last[-size:]

    def rest_is_nothing(self) -> bool:
        """Read to the end and return whether nothing but zeros was left.

        File systems leave zeros where a crash of the host kept data from the disk.
        """
        while data := self.read(_PIECE):
            if data.strip(b"\0"):
                return False
        return True

    def _pieces(self, size: int) -> bytes:
        # In pieces: one read of a size that was made up would take that much memory at once.
        parts = []
        try:
            while size > 0 and (data := self._file.read(min(size, _PIECE))):
                parts.append(data)
                size -= len(data)
        except OSError as error:
            self.error = error.strerror or str(error)
        return b"".join(parts)
