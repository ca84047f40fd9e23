"""The shelf gives back what was put there by us, and nothing else."""

import os
from pathlib import Path

import pytest

from porttrace.tracer import shelf as module
from porttrace.tracer.shelf import SYSTEM, Shelf, users_shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "deep" / "shelf")


def only_file(shelf: Shelf) -> Path:
    (file,) = shelf.folder.iterdir()
    return file


def test_what_is_put_is_found_by_what_it_was_made_of(shelf: Shelf) -> None:
    shelf.put(["text", ["-DX"]], b"compiled")
    assert shelf.find(["text", ["-DX"]]) == b"compiled"
    assert shelf.find(["text", ["-DY"]]) is None
    assert only_file(shelf).stat().st_mode & 0o777 == 0o600
    assert shelf.folder.stat().st_mode & 0o777 == 0o700


def test_nothing_is_found_where_nothing_is(shelf: Shelf) -> None:
    assert shelf.find("x") is None


def test_every_byte_counts(shelf: Shelf) -> None:
    shelf.put("x", b"compiled")
    file = only_file(shelf)
    good = file.read_bytes()
    for at in range(len(good)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x80]) + good[at + 1 :])
        assert shelf.find("x") is None
        file.write_bytes(good[:at])
        assert shelf.find("x") is None
    file.write_bytes(good)
    assert shelf.find("x") == b"compiled"


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_what_others_may_write_is_not_taken(shelf: Shelf, mode: int) -> None:
    shelf.put("x", b"1")
    only_file(shelf).chmod(mode)
    assert shelf.find("x") is None


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_is_not_used(shelf: Shelf, mode: int) -> None:
    shelf.put("x", b"1")
    shelf.folder.chmod(mode)
    assert shelf.find("x") is None
    shelf.put("y", b"1")
    assert len(list(shelf.folder.iterdir())) == 1


def test_links_and_pipes_are_not_followed(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("x", b"1")
    file = only_file(shelf)
    file.rename(tmp_path / "moved")
    file.symlink_to(tmp_path / "moved")
    assert shelf.find("x") is None
    shelf.folder.rename(tmp_path / "other")
    shelf.folder.symlink_to(tmp_path / "other")
    shelf.put("y", b"1")
    assert shelf.find("y") is None and not (tmp_path / "other" / "y").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_not_taken(shelf: Shelf) -> None:
    shelf.put("x", b"1")
    os.chown(only_file(shelf), 65534, 65534)
    assert shelf.find("x") is None
    os.chown(only_file(shelf), 0, 0)
    assert shelf.find("x") == b"1"
    os.chown(shelf.folder, 65534, 65534)
    assert shelf.find("x") is None


def test_what_was_not_used_for_long_goes(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", 3)
    for number in range(3):
        shelf.put(number, b"x")
        for file in shelf.folder.iterdir():  # as if a day had gone by
            os.utime(file, ns=(0, file.stat().st_mtime_ns - 86_400 * 10**9))
    assert shelf.find(0)  # used just now
    shelf.put(3, b"x")
    assert [number for number in range(4) if shelf.find(number)] == [0, 2, 3]


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shelf = Shelf(tmp_path / "file" / "shelf")
    shelf.put("x", b"1")
    assert shelf.find("x") is None


def test_root_has_one_place_whatever_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, "/home/somebody")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert users_shelf() == SYSTEM
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    assert users_shelf() == SYSTEM  # in no list of users
