"""BTF names, and which BPF programs are in the way; the kernel's answers are told by hand."""

import os
import struct
from pathlib import Path

import pytest

from fakeproc import FakeProc, kinds
from porttrace.tracer.census import bpf, btf, programs
from porttrace.tracer.census.bpf import Link, Program
from porttrace.tracer.census.holders import Holders
from porttrace.tracer.census.programs import Snapshot
from porttrace.tracer.facts import NotLooked, Process, Suspect

STRINGS = b"\0int\0tcp_v4_connect\0pair\0bpf_lsm_socket_connect\0"


def made_btf() -> bytes:
    """Return BTF of four types: int, struct pair of two members, and two functions."""

    def at(name: bytes) -> int:
        return STRINGS.index(name + b"\0")

    types = struct.pack("<IIII", at(b"int"), 1 << 24, 4, 32)
    types += struct.pack("<III", at(b"pair"), 4 << 24 | 2, 8) + bytes(24)
    types += struct.pack("<III", at(b"tcp_v4_connect"), 12 << 24, 0)
    types += struct.pack("<III", at(b"bpf_lsm_socket_connect"), 12 << 24, 0)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(STRINGS))
    return header + types + STRINGS


def test_names_of_types() -> None:
    data = made_btf()
    assert btf.names({3, 4}, data) == {3: "tcp_v4_connect", 4: "bpf_lsm_socket_connect"}
    assert btf.names({1, 2, 9}, data) == {1: "int", 2: "pair"}
    assert btf.names(set(), data) == {}
    assert btf.names({1}, b"no BTF at all, but long enough") == btf.names({1}, b"") == {}
    assert btf.names({4}, data[:60]) == {}


@pytest.mark.skipif(not btf.VMLINUX.exists(), reason="this kernel does not describe its types")
def test_names_of_the_running_kernel() -> None:
    found = btf.names(range(1, 1 << 20), btf.VMLINUX.read_bytes())
    assert "tcp_v4_connect" in found.values()


@pytest.fixture
def host(tmp_path: Path) -> FakeProc:
    host = FakeProc(tmp_path)
    host.write("/sys/kernel/btf/vmlinux", "")
    (tmp_path / "sys/kernel/btf/vmlinux").write_bytes(made_btf())
    host.add(5, "agent")
    return host


def snapshot(host: FakeProc, *known: Program, links: tuple[Link, ...] = ()) -> Snapshot:
    holders = Holders(programs={each.number: {5} for each in known})
    return Snapshot(holders, host.files, {each.number: each for each in known}, links)


def look(found: Snapshot, monkeypatch: pytest.MonkeyPatch) -> list[Suspect | NotLooked]:
    monkeypatch.setattr(bpf, "is_vmlinux", lambda number: number == 1)
    return [*programs.in_kernel(found)]


def test_programs_on_hooks_and_functions(host: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    on_function, on_hook = Program(10, "tracing", "t", 1, 3), Program(11, "lsm", "l", 1, 4)
    elsewhere, not_attached = Program(12, "tracing", "e", 1, 1), Program(13, "lsm", "n", 1, 4)
    links = tuple(Link(n, "tracing", n) for n in (10, 11, 12))
    found = look(snapshot(host, on_function, on_hook, elsewhere, not_attached, links=links),
                 monkeypatch)  # fmt: skip
    assert kinds(found) == ["bpf-probe", "bpf-lsm"]
    assert found[0] == Suspect(
        "bpf-probe",
        "connect",
        "the BPF program t (id 10; held by agent (pid 5)) is on the kernel's tcp_v4_connect",
        "bpf(2), program 10",
        5,
    )
    assert found[1].what.endswith("is on the security hook socket_connect")


def test_a_program_on_something_else_than_the_kernel(
    host: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    # number 3 of another object is another function
    found = snapshot(host, Program(10, "tracing", "t", 2, 3), links=(Link(1, "tracing", 10),))
    (fact,) = look(found, monkeypatch)
    assert isinstance(fact, NotLooked)
    assert "BPF programs 10" in fact.what


def test_kprobes(host: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [Program(n, "kprobe", f"k{n}") for n in (20, 21, 22, 23)]
    links = (
        Link(1, "perf event", 20, function="security_socket_connect"),
        Link(2, "perf event", 21, function="vfs_read"),
        Link(3, "kprobe_multi", 22, addresses=(0xFFFF0010, 0xFFFF0020)),
    )
    host.write(
        "/proc/kallsyms", "00000000ffff0010 T ip_output\n00000000ffff0030 T tcp_connect\nx\n"
    )
    found = snapshot(host, *known, links=links)
    found.holders.perf_events[:] = [(5, 9), (os.getpid(), 9)]
    monkeypatch.setattr(bpf, "probe_of", lambda pid, fd: bpf.Probe(23, pid == 5, "tcp_v6_connect"))
    facts = [fact for fact in look(found, monkeypatch) if isinstance(fact, Suspect)]
    assert [(fact.place, fact.what.rpartition(" ")[2]) for fact in facts] == [
        ("connect", "security_socket_connect"),
        ("egress", "ip_output"),
        ("connect", "tcp_v6_connect"),
    ]
    assert found.holder(23) == 5


def test_netfilter_programs(host: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tuple(Link(n, "netfilter", 30, (2, hook, 0)) for n, hook in enumerate((3, 1, 2)))
    facts = look(snapshot(host, Program(30, "netfilter", "nf"), links=links), monkeypatch)
    assert [fact.place for fact in facts if isinstance(fact, Suspect)] == ["egress", "ingress"]


@pytest.mark.parametrize(
    "cmdline", ["/usr/bin/python3\0-m\0porttrace.cli\0--pid\x001", "/opt/bin/porttrace\0-p\x001"]
)
def test_our_own_programs_are_left_out(
    host: FakeProc, monkeypatch: pytest.MonkeyPatch, cmdline: str
) -> None:
    found = snapshot(host, Program(10, "tracing", "t", 1, 3), links=(Link(1, "tracing", 10),))
    assert look(found, monkeypatch)
    host.write("/proc/5/cmdline", cmdline)
    assert look(found, monkeypatch) == []
    found.holders.programs[10] = {os.getpid()}
    assert look(found, monkeypatch) == []


def test_a_group_that_is_in_no_tree(host: FakeProc) -> None:
    for text, why in (("0::/nowhere/at/all\n", "is not in a tree"), ("4:memory:/x\n", "has none")):
        host.write("/proc/7/cgroup", text)
        (fact,) = programs.on_cgroups(Process(7), snapshot(host))
        assert isinstance(fact, NotLooked)
        assert why in fact.reason


def test_rights_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(bpf, "call", refuse)
    found = programs.snapshot(Holders())
    assert [(each.what, each.reason) for each in found.missing] == [
        ("BPF programs", "bpf(2): operation not permitted"),
        ("BPF links", "bpf(2): operation not permitted"),
    ]
