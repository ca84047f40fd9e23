"""Seccomp and ptrace: modes, filters, who answers, who traces."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakeproc import FakeProc, kinds
from porttrace.tracer import processes
from porttrace.tracer.census import entry
from porttrace.tracer.census.holders import walk
from porttrace.tracer.facts import Fact, Process, Suspect

TARGET = Process(7, comm="web")


@pytest.fixture
def host(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def look(host: FakeProc) -> list[Fact]:
    return [*entry.look(TARGET, walk(host.files), host.files)]


def suspects(host: FakeProc) -> list[Suspect]:
    return [fact for fact in look(host) if isinstance(fact, Suspect)]


def test_a_plain_process_has_none(host: FakeProc) -> None:
    host.add(7, "web", Seccomp=0, TracerPid=0)
    assert look(host) == []


def test_a_process_that_is_gone_has_none(host: FakeProc) -> None:
    assert look(host) == []


def test_a_filter_and_who_answers_for_it(host: FakeProc) -> None:
    host.add(7, "web", ppid=5, Seccomp=2, Seccomp_filters=3, TracerPid=0)
    host.add(5, "guard", ppid=2, fd="anon_inode:seccomp notify")
    host.add(2, "other", ppid=1, fd="anon_inode:[eventpoll]")
    host.add(3, "elsewhere", ppid=1, fd="anon_inode:seccomp notify")
    near, far = suspects(host)
    assert (near.kind, near.place, near.pid) == ("seccomp-notify", "gate", 5)
    assert "guard (pid 5, an ancestor of it)" in near.what
    assert near.what.endswith("web (pid 7) has 3 seccomp filters")
    assert near.source == "/proc/5/fd, /proc/7/status"
    assert (far.pid, "ancestor" in far.what) == (3, False)


def test_a_filter_without_anybody_behind_it(host: FakeProc) -> None:
    host.add(7, "web", Seccomp=2)
    (fact,) = suspects(host)
    assert (fact.kind, fact.pid) == ("seccomp-filter", 0)
    assert "has a seccomp filter;" in fact.what


def test_a_filter_on_another_thread_only(host: FakeProc) -> None:
    host.add(7, "web", Seccomp=0, TracerPid=0)
    host.write("/proc/7/task/7/status", "Seccomp:\t0\nTracerPid:\t0\n")
    host.write("/proc/7/task/8/status", "Seccomp:\t2\nTracerPid:\t9\n")
    host.add(9, "strace")
    assert kinds(look(host)) == ["seccomp-filter", "ptrace"]


def test_strict_mode_and_a_kernel_without_seccomp(host: FakeProc) -> None:
    host.add(7, "web", Seccomp=1)
    assert kinds(look(host)) == ["seccomp-strict"]
    host.write("/proc/7/status", "Name:\tweb\nPPid:\t1\n")
    assert kinds(look(host)) == ["not looked"]


def test_a_holder_without_a_filter_on_the_target_is_none_of_our_business(host: FakeProc) -> None:
    host.add(7, "web", Seccomp=0)
    host.add(5, "guard", fd="anon_inode:seccomp notify")
    assert look(host) == []
    assert walk(host.files).notify == {5}


def test_a_tracer(host: FakeProc) -> None:
    host.add(7, "web", Seccomp=0, TracerPid=9)
    host.add(9, "strace")
    (fact,) = suspects(host)
    assert (fact.kind, fact.place, fact.pid) == ("ptrace", "gate", 9)
    assert "strace (pid 9) traces web (pid 7)" in fact.what


def test_a_family_in_a_circle_ends(host: FakeProc) -> None:
    host.add(7, "web", ppid=8, Seccomp=2)
    host.add(8, "loop", ppid=7)
    assert kinds(look(host)) == ["seccomp-filter"]


def test_names_do_not_forge_facts(host: FakeProc) -> None:
    host.add(7, "x\x0bTracerPid:\t9\x85Seccomp:\t2", Seccomp=0)
    assert look(host) == []


def test_the_walk_over_descriptors_ends_in_time(host: FakeProc) -> None:
    host.add(5, "guard", fd="anon_inode:seccomp notify")
    host.add(6, "other")
    found = walk(host.files, budget_s=-1)
    assert (found.notify, found.unread) == (set(), 2)


def test_who_holds_programs(host: FakeProc) -> None:
    host.add(5, "agent", fd="anon_inode:bpf-prog")
    host.write("/proc/5/fdinfo/9", "pos:\t0\nprog_type:\t26\nprog_id:\t44\n")
    host.add(6, "other", fd="anon_inode:bpf-map")
    host.write("/proc/6/fdinfo/9", "map_id:\t3\nowner_prog_type:\t6\n")
    host.add(8, "prober", fd="anon_inode:[perf_event]")
    found = walk(host.files)
    assert found.programs == {44: {5}}
    assert found.perf_events == [(8, 9)]


def test_a_real_tracer() -> None:
    """A child that asked to be traced by its parent: us."""
    code = "import ctypes, time; print(ctypes.CDLL(None).ptrace(0, 0, 0, 0)); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        if child.stdout.readline().strip() != "0":
            pytest.skip("ptrace is not permitted here")
        process = processes.read_process(child.pid)
        assert kinds([*entry.look(process, walk())]).count("ptrace") == 1
    finally:
        child.kill()
        deadline = time.monotonic() + 5
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        child.stdout.close()
