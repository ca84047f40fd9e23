"""Files for what porttrace writes, opened so that root is led nowhere by somebody's links.

Under sudo a file is opened with the file system identity of the user who called it: a planted
link, or a linked folder above, leads nowhere that he could not go himself, and the file is his.
Nothing is overwritten without being told so, and only plain files are.
"""

import contextlib
import ctypes
import errno
import os
import platform
import pwd
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from porttrace.tracer import capabilities
from porttrace.tracer.errors import PorttraceError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o600
_PAST_MODES = ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH")
# The C library's setgroups() changes every thread; the system call only the one that asks.
_SETGROUPS = {"x86_64": 116, "aarch64": 159}.get(platform.machine())


class OutputError(PorttraceError):
    """An output file cannot be made or written."""


class Output:
    """An open file that holds whole pieces only: one that does not fit is taken back."""

    def __init__(self, path: str, fd: int) -> None:
        self.path, self.size = path, 0
        self._fd = fd

    def write(self, data: bytes) -> None:
        """Write all of `data`, or nothing of it.

        Raises OutputError, or BrokenPipeError when the reader of a pipe has gone.
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise _cannot("write", self.path, error) from None
        self.size += len(data)

    def close(self) -> None:
        """Bring everything to the disk and close the file. Raises OutputError."""
        if self._fd < 0:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # no disk behind it
                raise _cannot("write", self.path, error) from None
        finally:
            fd, self._fd = self._fd, -1
            if fd != 1:
                os.close(fd)

    def discard(self) -> None:
        """Close and remove the file: what should have been written never began."""
        fd, self._fd = self._fd, -1
        if fd > 1:
            os.close(fd)
            remove(self.path)


def open_output(path: str, force: bool = False) -> Output:
    """Open a new file for writing, or standard output for `-`.

    The file belongs to the invoking user and has mode 0600. With `force` a plain file of that
    name is replaced. Raises OutputError.
    """
    if path == "-":
        return _standard_output()
    with invoking_user():
        try:
            if force:
                _make_room(path)
            return Output(path, os.open(path, _NEW, _MODE))
        except OSError as error:
            raise _cannot("create", path, error) from None


def _standard_output() -> Output:
    if sys.stdout.isatty():
        raise OutputError("this is no text for a terminal", "use -o FILE, or a pipe behind -o -")
    sys.stdout.flush()
    return Output("standard output", 1)


def _make_room(path: str) -> None:
    # A new file takes the old one's place: whoever reads that one, or has a hard link to it,
    # keeps it as it is. Devices, pipes and links are left alone.
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "it is there, and is no plain file")
        os.unlink(path)


def _cannot(what: str, path: str, error: OSError) -> OutputError:
    why = error.strerror or str(error)
    if error.errno == errno.EEXIST:
        is_plain = _is_plain(path)
        hint = "--force replaces it" if is_plain else "choose another name"
        return OutputError(f"{path} exists{'' if is_plain else ' and is no plain file'}", hint)
    return OutputError(f"cannot {what} {path}: {why}", _hint(error, path))


def _is_plain(path: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISREG(os.lstat(path).st_mode)
    return False


def _hint(error: OSError, path: str) -> str:
    folder = os.path.dirname(path) or "."
    if error.errno in (errno.EACCES, errno.EPERM) and (user := invoking_ids()):
        name = _user_name(user[0])
        return f"under sudo files are written as {name}: choose a folder where {name} may write"
    if error.errno == errno.ENOENT and os.path.isdir(folder):
        return f"no file can be made in {folder}: choose another folder"
    return {
        errno.EIO: "what was written before is whole; the disk failed, and dmesg says how",
        errno.ENOSPC: "what was written before is whole; free some space",
        errno.EDQUOT: "what was written before is whole; raise the quota",
        errno.ENOENT: f"there is no folder {folder}: make it first",
        errno.EACCES: f"choose a folder where you may write, not {folder}",
        errno.EROFS: "choose a folder on a disk that can be written",
    }.get(error.errno or 0, "")


def remove(path: str) -> None:
    """Remove a file as the invoking user; one that is not there is no error."""
    with invoking_user(), contextlib.suppress(OSError):
        os.unlink(path)


def existing(folder: str, pattern: str) -> list[str]:
    """Return the paths in a folder that match, sorted, as the invoking user sees them."""
    with invoking_user():
        return sorted(str(found) for found in Path(folder).glob(pattern))


# -- who writes ------------------------------------------------------------------


def invoking_ids() -> tuple[int, int] | None:
    """Return user and group of whoever called sudo; None when root acts for itself."""
    words = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() != 0 or not all(word.isdecimal() for word in words):
        return None
    uid, gid = map(int, words)
    return (uid, gid) if uid else None


@contextlib.contextmanager
def invoking_user() -> Iterator[None]:
    """Reach the file system as the user behind sudo would, in this thread alone.

    setfsuid(2) and setfsgid(2) change one thread, and with a user other than root it loses the
    capabilities that override permissions (capabilities(7)); the reader beside it stays root.
    """
    ids = invoking_ids()
    if ids is None:
        # No root any more, perhaps, and still able to read what is others'.
        with capabilities.without(_PAST_MODES) if os.geteuid() else contextlib.nullcontext():
            yield
        return
    libc, groups = ctypes.CDLL(None, use_errno=True), os.getgroups()
    try:
        _set_groups(libc, os.getgrouplist(_user_name(ids[0]), ids[1]))
        libc.setfsgid(ids[1])
        libc.setfsuid(ids[0])
        if libc.setfsuid(-1) != ids[0]:  # -1 changes nothing and tells what is set
            raise OutputError(f"cannot write as user {ids[0]}", "run it without sudo, as root")
        yield
    finally:
        libc.setfsuid(0)
        libc.setfsgid(os.getegid())
        _set_groups(libc, groups)


def _set_groups(libc: ctypes.CDLL, groups: list[int]) -> None:
    if _SETGROUPS is not None:
        numbers = (ctypes.c_uint32 * len(groups))(*groups)
        libc.syscall(_SETGROUPS, len(groups), numbers)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
