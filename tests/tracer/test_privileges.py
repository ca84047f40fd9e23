"""What a trace will keep, as it is decided; the kernel tests see it dropped."""

import os
from pathlib import Path

import pytest

from porttrace.tracer import capabilities
from porttrace.tracer.capabilities import Sets, bits
from porttrace.tracer.privileges import KEPT, Privileges, lacking, lesser

ALL = (1 << 41) - 1
SOMEBODY = 54321  # has no name


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As root, with every capability, not under sudo."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(capabilities, "held", lambda: Sets(ALL, ALL, 0))
    monkeypatch.delenv("SUDO_UID", raising=False)
    return monkeypatch


def test_root_becomes_nobody(root: pytest.MonkeyPatch) -> None:
    assert lesser() == Privileges((65534, 65534, ()), bits(KEPT))


def test_root_stays_where_its_files_are(root: pytest.MonkeyPatch, tmp_path: Path) -> None:
    his, mine = tmp_path / "his", tmp_path / "mine"
    his.mkdir()
    mine.mkdir()
    if os.getuid() == 0:
        os.chown(his, SOMEBODY, SOMEBODY)
        assert lesser(str(mine)) == Privileges((0, 0, ()), bits(KEPT))
    more = bits((*KEPT, "CAP_DAC_OVERRIDE"))
    assert lesser(str(his)) == Privileges((0, 0, ()), more)


def test_under_sudo_it_is_who_called_it(root: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root.setenv("SUDO_UID", str(SOMEBODY))
    root.setenv("SUDO_GID", "54322")
    wanted = Privileges((SOMEBODY, 54322, (54322,)), bits(KEPT))
    assert lesser() == lesser(str(tmp_path)) == wanted


def test_a_command_of_root_can_be_ended(root: pytest.MonkeyPatch) -> None:
    assert lesser(has_command=True).keep == bits((*KEPT, "CAP_KILL"))
    assert lesser("/", has_command=True).keep == bits(KEPT)  # still root


def test_without_root_the_user_stays(root: pytest.MonkeyPatch) -> None:
    root.setattr(os, "geteuid", lambda: 1000)
    some = bits(("CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH"))
    root.setattr(capabilities, "held", lambda: Sets(some, some, some))
    assert lesser(has_command=True) == Privileges(None, bits((*KEPT, "CAP_BPF")))
    said = " ".join(lacking())
    assert "CAP_SYS_ADMIN" in said and "CAP_SYS_PTRACE" in said and "CAP_NET_ADMIN" in said
    assert "CAP_DAC_READ_SEARCH" not in said


def test_with_all_of_it_nothing_is_lacking(root: pytest.MonkeyPatch) -> None:
    assert lacking() == []
