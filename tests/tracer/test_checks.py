"""What a host lacks gets its price, and the exit code follows from it."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from fakehost import FakeHost
from porttrace.tracer import checks as module
from porttrace.tracer import features
from porttrace.tracer.capabilities import bits
from porttrace.tracer.checks import Check, checks, verdict
from porttrace.tracer.privileges import KEPT


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(features, "find_bcc", lambda: Path("/usr/lib/python3/dist-packages/bcc"))
    monkeypatch.setattr(features, "load_trial", lambda: 0)
    return FakeHost(tmp_path)


def named(host: FakeHost) -> dict[str, Check]:
    return {check.name: check for check in checks(host.root)}


def test_a_whole_host_lacks_nothing(host: FakeHost) -> None:
    found = [check for check in checks(host.root) if check.remedy != ""]
    kernel = [check for check in found if not check.remedy.startswith("sudo apt")]
    assert {check.ok for check in kernel} == {True}
    assert verdict(tuple(kernel)) == 0


def test_every_fault_names_its_price_and_its_remedy(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    for path in ("sys/kernel/tracing/events/sock", "sys/kernel/btf"):
        host.hide(path)
    faults = [check for check in checks(host.root) if check.ok is False]
    assert {"state changes", "socket errors", "BTF", "gcc", "seccomp"} <= {
        check.name for check in faults
    }
    assert all(check.cost and check.remedy for check in faults)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("sys/kernel/tracing/events/syscalls", 4),
        ("sys/kernel/tracing/events/sock", 4),
        ("sys/kernel/tracing/events/tcp", 0),
        ("sys/kernel/tracing", 0),  # live tracing mounts it
        ("sys/kernel/btf", 0),
    ],
)
def test_only_what_tracing_rests_on_decides(host: FakeHost, path: str, code: int) -> None:
    host.hide(path)
    assert verdict(checks(host.root)) == code


def test_want_of_root_alone_is_told_from_want_of_more(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    host.capabilities(0)
    assert verdict(checks(host.root)) == 3
    host.write("sys/kernel/security/lockdown", "none integrity [confidentiality]")
    assert verdict(checks(host.root)) == 4


def test_a_user_is_not_told_that_hidden_things_are_missing(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    host.capabilities(0)
    host.hide("sys/kernel/tracing")
    host.write("proc/kallsyms", "0000000000000000 T _text\n")
    found = named(host)
    assert [found[name].ok for name in ("tracefs", "kernel symbols", "bpf(2)")] == [None] * 3
    assert "connect calls" not in found


def test_a_refused_bpf_call_is_a_fault_despite_capabilities(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "load_trial", lambda: errno.EPERM)
    host.write(".dockerenv", "")
    check = named(host)["bpf(2)"]
    assert check.ok is False
    assert "Operation not permitted; in a container (docker)" in check.detail
    assert "--privileged" in check.remedy
    assert verdict(checks(host.root)) == 3
    monkeypatch.setattr(features, "load_trial", lambda: errno.ENOSYS)
    assert verdict(checks(host.root)) == 4


def test_another_clock_is_a_fault_that_no_right_mends(host: FakeHost) -> None:
    assert named(host)["clock"].ok
    (host.root / "proc/self/ns/time").symlink_to("time:[4026534411]")
    host.write("proc/self/timens_offsets", "monotonic  86400  0\nboottime  0  0\n")
    check = named(host)["clock"]
    assert check.ok is False and check.detail == "86400 s ahead of the kernel's"
    assert verdict(checks(host.root)) == 4


@pytest.mark.parametrize("name", KEPT)
def test_an_optional_capability_has_its_price_and_does_not_decide(
    host: FakeHost, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    essential = {"CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH"}
    host.capabilities(bits((essential | set(KEPT)) - {name}))
    found = named(host)
    assert {each: found[each].ok for each in KEPT} == {each: each != name for each in KEPT}
    check = found[name]
    assert check.detail == KEPT[name] and check.cost and name in check.remedy
    assert not check.essential and check.word == "limited"
    # it is essential for whoever is not root: then that is another line
    assert verdict(checks(host.root)) == (3 if name in essential else 0)


def test_root_without_a_capability_is_not_sent_to_sudo(host: FakeHost) -> None:
    host.capabilities(bits(set(KEPT) - {"CAP_SYS_PTRACE"}))
    check = named(host)["CAP_SYS_PTRACE"]
    assert check.ok is False and "sudo" not in check.remedy and check.permission


def test_verdict_counts_essential_faults_only() -> None:
    fault = Check("x", False, "")
    assert verdict((fault,)) == 0
    assert verdict((replace(fault, essential=True),)) == 4
    assert verdict((replace(fault, essential=True, permission=True),)) == 3
    assert verdict((replace(fault, ok=None, essential=True),)) == 0
