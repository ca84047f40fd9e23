"""Output files: nothing is overwritten unasked, and nobody's link leads root anywhere."""

import errno
import io
import os
import pty
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from porttrace.tracer.output import (
    Output,
    OutputError,
    existing,
    invoking_ids,
    invoking_user,
    open_output,
    remove,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to write as another user")


def write(path: Path, data: bytes = b"new", force: bool = False) -> None:
    output = open_output(str(path), force)
    output.write(data)
    output.close()


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    before = os.umask(0)
    try:
        write(path)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists") as caught:
        write(path)
    assert "--force" in caught.value.hint
    assert path.read_bytes() == b"old"
    write(path, force=True)
    assert path.read_bytes() == b"new"


def test_force_leaves_hard_links_of_the_old_file_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "other"
    other.write_bytes(b"old")
    other.chmod(0o644)
    os.link(other, path)
    write(path, force=True)
    assert other.read_bytes() == b"old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_only_plain_files_are_replaced(tmp_path: Path, kind: str, force: bool) -> None:
    path, victim = tmp_path / "a", tmp_path / "victim"
    victim.write_bytes(b"old")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nothing")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OutputError, match="no plain file"):
        write(path, force=force)
    assert victim.read_bytes() == b"old"
    assert not (tmp_path / "nothing").exists()
    assert path.is_symlink() or path.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file") as caught:
        write(tmp_path / "no" / "a")
    assert f"there is no folder {tmp_path}/no" in caught.value.hint


def test_what_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    output = open_output(str(path))
    output.write(b"whole")
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) <= 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:3])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        output.write(b"more than fits"[:6])
    assert "whole" in caught.value.hint
    monkeypatch.undo()
    assert path.read_bytes() == b"whole"
    output.close()
    assert output.size == 5


def test_a_file_that_never_began_is_removed(tmp_path: Path) -> None:
    output = open_output(str(tmp_path / "a"))
    output.discard()
    output.close()
    assert not (tmp_path / "a").exists()


def test_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with pytest.raises(OutputError, match="terminal"):
            open_output("-")
    os.close(ours)


def test_a_pipe_and_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert open_output("-").path == "standard output"
    reads, writes = os.pipe()
    output = Output("a pipe", writes)
    output.write(b"abc")
    assert os.read(reads, 9) == b"abc"
    os.close(reads)
    with pytest.raises(BrokenPipeError):
        output.write(b"x")
    output.close()


def test_files_of_a_name_and_their_removal(tmp_path: Path) -> None:
    for name in ("a-0001.x", "a-0002.x", "b-0001.x"):
        (tmp_path / name).touch()
    found = existing(str(tmp_path), "a-[0-9]*.x")
    assert found == [str(tmp_path / "a-0001.x"), str(tmp_path / "a-0002.x")]
    remove(found[0])
    remove(found[0])
    assert not Path(found[0]).exists()


# -- under sudo ------------------------------------------------------------------------

UID, GID = 65534, 65534


@pytest.fixture
def sudo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if a user without any rights had called sudo."""
    monkeypatch.setenv("SUDO_UID", str(UID))
    monkeypatch.setenv("SUDO_GID", str(GID))
    groups = os.getgroups()
    yield
    assert (os.geteuid(), os.getgroups()) == (0, groups)


@pytest.fixture
def his(tmp_path: Path) -> Path:
    """A folder of that user, reachable for him."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    folder = tmp_path / "his"
    folder.mkdir()
    os.chown(folder, UID, GID)
    return folder


@pytest.mark.parametrize(
    ("uid", "gid"), [("", ""), ("0", "0"), ("x", "1"), ("-5", "1"), ("1000", "")]
)
def test_when_nobody_called_sudo(monkeypatch: pytest.MonkeyPatch, uid: str, gid: str) -> None:
    monkeypatch.setenv("SUDO_UID", uid)
    monkeypatch.setenv("SUDO_GID", gid)
    assert invoking_ids() is None


@as_root
def test_the_file_is_his(sudo: None, his: Path) -> None:
    write(his / "a")
    status = (his / "a").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (UID, GID, 0o600)


@as_root
def test_a_linked_folder_leads_nowhere(sudo: None, his: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o755)
    (secret / "a").write_bytes(b"old")
    (his / "link").symlink_to(secret)
    for name in ("a", "b"):
        for force in (False, True):
            with pytest.raises(OutputError):
                write(his / "link" / name, force=force)
    assert (secret / "a").read_bytes() == b"old"
    assert not (secret / "b").exists()


@as_root
def test_groups_of_root_do_not_help(sudo: None, tmp_path: Path, his: Path) -> None:
    folder = tmp_path / "of-the-group"
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(OutputError, match="Permission denied") as caught:
        write(folder / "a")
    assert "under sudo files are written as" in caught.value.hint


@as_root
def test_other_threads_stay_root(sudo: None, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "a").write_bytes(b"x")
    seen: list[bytes] = []
    inside = threading.Event()

    def read() -> None:
        inside.wait()
        seen.append((closed / "a").read_bytes())

    thread = threading.Thread(target=read)
    thread.start()
    with invoking_user():
        inside.set()
        thread.join()
        with pytest.raises(PermissionError):
            (closed / "a").read_bytes()
    assert seen == [b"x"]
    assert (closed / "a").read_bytes() == b"x"
