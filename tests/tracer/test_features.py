"""Features are found, and their absence is told, in the order of the way to mend it."""

import os
import sys
from pathlib import Path

import pytest

from fakehost import FakeHost
from porttrace.tracer import features
from porttrace.tracer.errors import NotPermittedError, PorttraceError, UnsupportedError
from porttrace.tracer.sysctls import sysctl


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(features, "find_bcc", lambda: Path("/usr/lib/python3/dist-packages/bcc"))
    return FakeHost(tmp_path)


def refused(host: FakeHost) -> PorttraceError:
    with pytest.raises(PorttraceError) as raised:
        features.require(host.root)
    return raised.value


# -- permission


def test_capabilities_are_read_by_bit(host: FakeHost) -> None:
    host.capabilities(1 << 39 | 1 << 12)
    assert features.effective_capabilities(host.root) == {"CAP_BPF", "CAP_NET_ADMIN"}


@pytest.mark.parametrize(
    ("euid", "bits", "missing"),
    [
        (0, 1 << 39 | 1 << 38, ()),
        (0, 1 << 21, ()),  # CAP_SYS_ADMIN was split into the other two
        (0, 1 << 39, ("CAP_PERFMON",)),
        (1000, 0, ("CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH")),
        (1000, 1 << 39 | 1 << 38 | 1 << 2, ()),
    ],
)
def test_missing_capabilities(
    host: FakeHost,
    monkeypatch: pytest.MonkeyPatch,
    euid: int,
    bits: int,
    missing: tuple[str, ...],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    host.capabilities(bits)
    assert features.missing_capabilities(host.root) == missing


def test_no_status_file_is_no_capability(host: FakeHost) -> None:
    host.hide("proc/self/status")
    assert features.effective_capabilities(host.root) == frozenset()


@pytest.mark.parametrize("mode", ["none", "integrity", "confidentiality"])
def test_lockdown_is_the_bracketed_word(host: FakeHost, mode: str) -> None:
    words = [f"[{word}]" if word == mode else word for word in ("none", "integrity", mode)]
    host.write("sys/kernel/security/lockdown", " ".join(words))
    assert features.lockdown(host.root) == mode


def test_without_the_lockdown_module_nothing_is_locked(host: FakeHost) -> None:
    host.hide("sys/kernel/security/lockdown")
    assert features.lockdown(host.root) == "none"


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", "", "podman"),
        ("run/systemd/container", "lxc\n", "lxc"),
    ],
)
def test_containers_leave_a_mark(host: FakeHost, path: str, text: str, kind: str) -> None:
    assert features.container(host.root) == ""
    host.write(path, text)
    assert features.container(host.root) == kind


def test_sudo_line_quotes_what_was_typed() -> None:
    argv = ["/opt/my tools/porttrace", "--pid", "7", "--", "curl", "a b"]
    assert features.sudo_line(argv) == "sudo '/opt/my tools/porttrace' --pid 7 -- curl 'a b'"


def test_sudo_line_names_the_interpreter_of_a_script() -> None:
    assert features.sudo_line(["cli/__main__.py", "top"]) == (
        f"sudo {sys.executable} cli/__main__.py top"
    )


# -- the kernel


def test_tracefs_is_found_in_its_old_place_too(host: FakeHost) -> None:
    assert features.find_tracefs(host.root) == host.root / "sys/kernel/tracing"
    old = host.root / "sys/kernel/debug"
    old.mkdir()
    (host.root / "sys/kernel/tracing").rename(old / "tracing")
    assert features.find_tracefs(host.root) == old / "tracing"


def test_a_tracefs_that_cannot_be_mounted_is_told_with_the_command(host: FakeHost) -> None:
    host.hide("sys/kernel/tracing")
    with pytest.raises(UnsupportedError, match="No such file or directory") as raised:
        features.mount_tracefs(host.root)
    assert raised.value.hint == f"sudo mount -t tracefs nodev {host.root}/sys/kernel/tracing"


def test_tracepoints_go_by_either_separator(host: FakeHost) -> None:
    assert features.has_tracepoint("sched:sched_switch", host.root)
    assert features.has_tracepoint("sched/sched_switch", host.root)
    assert not features.has_tracepoint("sched:no_such_thing", host.root)


@pytest.mark.parametrize(
    ("field", "there"),
    [
        ("group_dead", True),
        ("comm", True),
        ("where", True),
        ("dead", False),
        ("group", False),
        ("offset", False),
        ("prio", False),
    ],
)
def test_fields_go_by_their_whole_name(host: FakeHost, field: str, there: bool) -> None:
    assert features.has_field("sched:sched_process_exit", field, host.root) is there


def test_compile_flags_follow_the_kernel(host: FakeHost) -> None:
    assert features.compile_flags(host.root) == ("-DHAVE_GROUP_DEAD", "-DHAVE_ERROR_REPORT")
    host.hide("sys/kernel/tracing/events/sock/inet_sk_error_report")
    host.hide("sys/kernel/tracing/events/sched/sched_process_exit")
    assert features.compile_flags(host.root) == ()


def test_btf_and_sysctls(host: FakeHost) -> None:
    assert features.has_btf(host.root)
    assert sysctl("kernel.kptr_restrict", host.root) == "1"
    host.hide("sys/kernel/btf")
    assert not features.has_btf(host.root)
    assert sysctl("kernel.no_such_thing", host.root) is None


@pytest.mark.parametrize(
    "text", ["0000000000000000 T _text\n" * 3, "", "not a symbol\n", "\n"], ids=repr
)
def test_hidden_symbols_are_told(host: FakeHost, text: str) -> None:
    assert features.shows_symbols(host.root)
    host.write("proc/kallsyms", text)
    assert not features.shows_symbols(host.root)


# -- bcc


def package(folder: Path, *files: str) -> Path:
    (folder / "bcc").mkdir(parents=True)
    for name in ("__init__.py", *files):
        (folder / "bcc" / name).write_text("raise AssertionError('imported')")
    return folder / "bcc"


def test_the_real_bcc_is_found_and_not_imported(tmp_path: Path) -> None:
    real = package(tmp_path, "libbcc.py", "table.py")
    assert features.find_bcc([str(tmp_path)]) == real
    assert "bcc.libbcc" not in sys.modules


def test_a_foreign_bcc_is_told_with_its_place(tmp_path: Path) -> None:
    foreign = package(tmp_path / "venv", "compiler.py")
    package(tmp_path / "system", "libbcc.py", "table.py")
    with pytest.raises(UnsupportedError, match="same name") as raised:
        features.find_bcc([str(tmp_path / "venv"), str(tmp_path / "system")])
    assert str(foreign) in raised.value.message
    assert "pip uninstall bcc" in raised.value.hint


def test_a_foreign_module_bcc_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("")
    with pytest.raises(UnsupportedError, match=r"bcc\.py is not"):
        features.find_bcc([str(tmp_path)])


def test_no_bcc_is_told_with_the_package(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="finds no bcc") as raised:
        features.find_bcc([str(tmp_path)])
    assert "apt install python3-bpfcc" in raised.value.hint
    assert "--system-site-packages" in raised.value.hint


# -- require


def test_nothing_is_in_the_way_of_a_whole_host(host: FakeHost) -> None:
    features.require(host.root)


def test_obstacles_come_in_the_order_of_mending(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.hide("sys/kernel/tracing")
    assert "tracefs" in refused(host).message
    host.write("sys/kernel/security/lockdown", "none integrity [confidentiality]")
    assert "confidentiality" in refused(host).message
    host.capabilities(0)
    assert isinstance(refused(host), NotPermittedError)
    monkeypatch.setattr(features, "find_bcc", no_bcc)
    assert "bcc" in refused(host).message


def no_bcc() -> Path:
    raise UnsupportedError("Python finds no bcc", "install it")


def test_a_user_is_told_the_sudo_line(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["/opt/bin/porttrace", "--pid", "7"])
    host.capabilities(1 << 39)
    error = refused(host)
    assert "CAP_PERFMON and CAP_DAC_READ_SEARCH missing" in error.message
    assert error.hint.startswith("sudo /opt/bin/porttrace --pid 7 ")
    assert "CAP_PERFMON" in error.hint
    assert error.exit_code == 3


def test_root_in_a_container_is_told_of_the_host(host: FakeHost) -> None:
    host.capabilities(0)
    host.write(".dockerenv", "")
    assert "--privileged" in refused(host).hint


@pytest.mark.parametrize("category", ["syscalls", "sock"])
def test_tracepoints_that_all_rests_on_are_required(host: FakeHost, category: str) -> None:
    host.hide(f"sys/kernel/tracing/events/{category}")
    error = refused(host)
    assert isinstance(error, UnsupportedError)
    assert ("CONFIG_FTRACE_SYSCALLS" in error.hint) == (category == "syscalls")


def test_both_ends_of_the_system_call_are_required(host: FakeHost) -> None:
    host.hide("sys/kernel/tracing/events/syscalls/sys_exit_connect")
    assert isinstance(refused(host), UnsupportedError)


# -- this host


@pytest.mark.kernel
def test_this_host_can_trace() -> None:
    features.require()
    assert features.load_trial() == 0
    assert "-DHAVE_ERROR_REPORT" in features.compile_flags()


@pytest.mark.kernel
def test_load_trial_tells_what_the_kernel_refuses() -> None:
    """A child that gave its capabilities up is refused, where unprivileged BPF is off."""
    if sysctl("kernel.unprivileged_bpf_disabled") == "0":
        pytest.skip("every user may load BPF programs here")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os.write(writer, bytes([features.load_trial()]))
        os._exit(0)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"\x01"  # EPERM
    finally:
        os.close(reader)
        os.waitpid(child, 0)
