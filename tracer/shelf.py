"""A folder for what takes long to make and is the same the next time: the kernel program.

What lies there is run by root. The folder and its files have to belong to the user who traces,
writable by nobody else, and no link is followed: else nothing is taken from it, and nothing put.
"""

import contextlib
import hashlib
import json
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

SYSTEM = Path("/var/cache/porttrace")
"""That of root."""
_MOST_BYTES = 16 << 20
_MOST_FILES = 24
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def users_shelf() -> Path:
    """Return the folder of the user who traces; that of root is the same in every environment."""
    with contextlib.suppress(KeyError):
        if os.geteuid() != 0:
            return Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".cache" / "porttrace"
    return SYSTEM  # who is in no list of users may not write there either


class Shelf:
    """Files by what they were made of. A folder with anything wrong is as if it were empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, made_of: object) -> bytes | None:
        """Return what was put for this (anything that JSON can hold), None where there is none."""
        with contextlib.suppress(OSError), self._opened() as folder:
            name = _name(made_of)
            fd = os.open(name, _FILE, dir_fd=folder)
            with os.fdopen(fd, "rb") as file:
                if not _ours(fd, stat.S_ISREG):
                    return None
                content = file.read(_MOST_BYTES)
            digest, data = content[:32], content[32:]
            if hashlib.sha256(data).digest() == digest:
                os.utime(name, dir_fd=folder, follow_symlinks=False)
                return data
        return None

    def put(self, made_of: object, data: bytes) -> None:
        """Keep this. The files that were not used for the longest time go."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened() as folder:
                _write(folder, _name(made_of), hashlib.sha256(data).digest() + data)
                _thin_out(folder)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        folder = os.open(self.folder, _FOLDER)
        try:
            if not _ours(folder, stat.S_ISDIR):
                raise PermissionError(f"{self.folder} may be written by others")
            yield folder
        finally:
            os.close(folder)


def _ours(fd: int, is_kind: Callable[[int], bool]) -> bool:
    found = os.fstat(fd)
    return (
        is_kind(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & _OTHERS_WRITE
    )


def _name(made_of: object) -> str:
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


# Nobody sees half a file: it has its name when it is whole.
def _write(folder: int, name: str, content: bytes) -> None:
    begun = f"{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(begun, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(content)
    os.rename(begun, name, src_dir_fd=folder, dst_dir_fd=folder)


def _thin_out(folder: int) -> None:
    names = os.listdir(folder)
    used_ns = {name: os.stat(name, dir_fd=folder).st_mtime_ns for name in names}
    for name in sorted(names, key=used_ns.__getitem__)[:-_MOST_FILES]:
        os.unlink(name, dir_fd=folder)
