"""The census states facts: who holds a filter, who traces, what is preloaded."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from porttrace.tracer import processes
from porttrace.tracer import suspects as module
from porttrace.tracer.facts import Process
from porttrace.tracer.suspects import notify_holders, suspects


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_PROC", tmp_path)
    monkeypatch.setattr(module, "read_process", lambda pid: processes.read_process(pid, tmp_path))
    return tmp_path


def add(proc: Path, pid: int, comm: str, ppid: int = 1, *, fd: str = "", **status: int) -> None:
    base = proc / str(pid)
    (base / "fd").mkdir(parents=True)
    (base / "comm").write_text(f"{comm}\n")
    lines = [f"Name:\t{comm}", f"PPid:\t{ppid}", *(f"{k}:\t{v}" for k, v in status.items())]
    (base / "status").write_text("\n".join(lines) + "\n")
    if fd:
        (base / "fd" / "9").symlink_to(fd)


TARGET = Process(7, comm="web", preloads=())


def test_a_plain_process_has_none(proc: Path) -> None:
    add(proc, 7, "web", Seccomp=0, TracerPid=0)
    assert suspects(TARGET) == ()


def test_a_process_that_is_gone_has_none(proc: Path) -> None:
    assert suspects(TARGET) == ()


def test_a_filter_and_who_answers_for_it(proc: Path) -> None:
    add(proc, 7, "web", ppid=5, Seccomp=2, TracerPid=0)
    add(proc, 5, "guard", ppid=2, fd="anon_inode:seccomp notify")
    add(proc, 2, "other", ppid=1, fd="anon_inode:[eventpoll]")
    add(proc, 3, "elsewhere", ppid=1, fd="anon_inode:seccomp notify")
    near, far = suspects(TARGET)
    assert (near.kind, near.place, near.pid) == ("seccomp-notify", "gate", 5)
    assert "guard (pid 5, an ancestor of it)" in near.what
    assert near.source == "/proc/5/fd, /proc/7/status"
    assert (far.pid, "ancestor" in far.what) == (3, False)


def test_a_filter_without_anybody_behind_it(proc: Path) -> None:
    add(proc, 7, "web", Seccomp=2)
    (fact,) = suspects(TARGET)
    assert (fact.kind, fact.pid) == ("seccomp-filter", 0)


def test_a_holder_without_a_filter_on_the_target_is_none_of_our_business(proc: Path) -> None:
    add(proc, 7, "web", Seccomp=0)
    add(proc, 5, "guard", fd="anon_inode:seccomp notify")
    assert suspects(TARGET) == ()
    assert notify_holders() == {5}


def test_a_tracer(proc: Path) -> None:
    add(proc, 7, "web", TracerPid=9)
    add(proc, 9, "strace")
    (fact,) = suspects(TARGET)
    assert (fact.kind, fact.place, fact.pid) == ("ptrace", "gate", 9)
    assert "strace (pid 9) traces web (pid 7)" in fact.what


def test_preloaded_libraries(proc: Path) -> None:
    add(proc, 7, "web")
    facts = suspects(Process(7, comm="web", preloads=("/opt/a.so", "/opt/b.so")))
    assert [fact.kind for fact in facts] == ["preload"] * 2
    assert facts[0].place == "user"
    assert "/opt/a.so is preloaded into web (pid 7)" in facts[0].what


def test_a_family_in_a_circle_ends(proc: Path) -> None:
    add(proc, 7, "web", ppid=8, Seccomp=2)
    add(proc, 8, "loop", ppid=7)
    assert [fact.kind for fact in suspects(TARGET)] == ["seccomp-filter"]


def test_names_do_not_forge_facts(proc: Path) -> None:
    add(proc, 7, "x\x0bTracerPid:\t9\x85Seccomp:\t2")
    assert suspects(TARGET) == ()


def test_a_real_tracer() -> None:
    """A child that asked to be traced by its parent: us."""
    code = "import ctypes, time; print(ctypes.CDLL(None).ptrace(0, 0, 0, 0)); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        if child.stdout.readline().strip() != "0":
            pytest.skip("ptrace is not permitted here")
        kinds = [fact.kind for fact in suspects(processes.read_process(child.pid))]
        assert kinds.count("ptrace") == 1
    finally:
        child.kill()
        deadline = time.monotonic() + 5
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        child.stdout.close()
