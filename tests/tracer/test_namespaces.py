"""Network namespaces are found and entered; whether our pids are the host's is told."""

import os
from pathlib import Path

import pytest

from porttrace.tracer import namespaces
from porttrace.tracer.errors import TargetError, UnsupportedError


def test_our_own_network_namespace_by_pid_and_path() -> None:
    own = os.stat("/proc/self/ns/net").st_ino
    assert namespaces.find_netns(str(os.getpid())) == own
    assert namespaces.find_netns("/proc/self/ns/net") == own
    assert os.getpid() in namespaces.pids_in_netns(own)
    assert namespaces.pids_in_netns(own + 1) == frozenset()


@pytest.mark.parametrize(
    "word",
    ["no-such-name", "4194305", "/proc/self/ns/pid", "/etc/hostname", "", "../../etc", "a\0b", "²"],
)
def test_what_is_no_network_namespace(word: str) -> None:
    with pytest.raises(TargetError, match="there is no network namespace"):
        namespaces.find_netns(word)


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TargetError):
        namespaces.find_netns(str(tmp_path / "pipe"))


@pytest.mark.parametrize(
    ("link", "sees"), [("pid:[4026531836]", True), ("pid:[4026532180]", False), ("x", None)]
)
def test_whose_pids_proc_shows(tmp_path: Path, link: str, sees: bool | None) -> None:
    place = tmp_path / "proc/self/ns"
    place.mkdir(parents=True)
    (place / "pid").symlink_to(link)
    assert namespaces.sees_host_pids(tmp_path) is sees
    if sees is not False:
        namespaces.require_host_pids(tmp_path)
        return
    with pytest.raises(UnsupportedError, match="pid namespace of its own") as caught:
        namespaces.require_host_pids(tmp_path)
    assert caught.value.exit_code == 4
    assert "--pid=host" in caught.value.hint


def test_where_that_cannot_be_told_nothing_is_refused(tmp_path: Path) -> None:
    assert namespaces.sees_host_pids(tmp_path) is None
    namespaces.require_host_pids(tmp_path)


def test_a_namespace_that_cannot_be_entered() -> None:
    with pytest.raises(TargetError, match="/proc/4194305/ns/net: No such file") as raised:
        namespaces.in_netns_of(2**22 + 1, lambda: 1)
    assert "still there" in raised.value.hint


def test_our_own_namespace_takes_no_rights() -> None:
    for pid in (0, os.getpid()):
        assert namespaces.in_netns_of(pid, lambda: 42) == 42


def test_what_fails_inside_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        @staticmethod
        def setns(*_: object) -> int:
            return 0

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: Libc)
    with pytest.raises(ZeroDivisionError):
        namespaces.inside(0, lambda: 1 // 0)
