"""What is read from files: libraries, security modules, kernel modules, probes."""

from pathlib import Path

import pytest

from fakeproc import FakeProc, kinds
from porttrace.tracer.census import libraries, modules, queues, security, tracing
from porttrace.tracer.facts import Fact, NotLooked, Process, Suspect

TARGET = Process(7, comm="web")
LSM = "/sys/kernel/security/lsm"


@pytest.fixture
def host(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def told(facts: list[Fact]) -> str:
    return "\n".join(fact.what for fact in facts)


# -- libraries and proxies -------------------------------------------------------------


def test_preloaded_libraries(host: FakeProc) -> None:
    host.write("/proc/7/environ", "LD_PRELOAD=/opt/a.so:/opt/c.so\0")
    host.write("/proc/7/maps", "".join(f"0-1 r-xp 0 0:0 1 /opt/{n}.so\n" for n in "ac"))
    found = [*libraries.look(Process(7, comm="web", preloads=("/opt/a.so",)), host.files)]
    assert kinds(found) == ["preload", "preload-other"]
    assert "/opt/a.so is preloaded into web (pid 7) and defines its own connect()" in told(found)
    assert "/opt/c.so is preloaded into web (pid 7) and defines no connect()" in told(found)


def test_audit_libraries_that_are_loaded(host: FakeProc) -> None:
    host.write("/proc/7/environ", "A=1\0LD_AUDIT=/opt/watch.so:/opt/absent.so\0")
    host.write("/proc/7/maps", "0-1 r-xp 0 0:0 1 /opt/watch.so\n")
    (fact,) = libraries.look(TARGET, host.files)
    assert isinstance(fact, Suspect)
    assert (fact.kind, fact.place) == ("audit-library", "user")
    assert fact.what.startswith("/opt/watch.so audits")


def test_proxies_by_name_and_never_with_their_password(host: FakeProc) -> None:
    host.write("/proc/7/environ", "https_proxy=http://u:secret@p\0NO_PROXY=x\0HTTP_PROXY=\0")
    (fact,) = libraries.look(TARGET, host.files)
    assert isinstance(fact, Suspect)
    assert (fact.kind, fact.place) == ("proxy", "network")
    assert fact.what.startswith("https_proxy in the environment")
    assert "secret" not in repr(fact)


def test_an_environment_that_cannot_be_read_is_said(host: FakeProc) -> None:
    (fact,) = libraries.look(TARGET, host.files)
    assert fact == NotLooked(
        "environment (LD_AUDIT, proxies)", "/proc/7/environ: no such file or directory"
    )


# -- security modules --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("unconfined\n", []),
        ("docker-default (enforce)\n", ["lsm"]),
        ("", []),
    ],
)
def test_apparmor(host: FakeProc, label: str, expected: list[str]) -> None:
    host.write(LSM, "lockdown,capability,landlock,yama,apparmor,bpf\n")
    host.write("/proc/7/attr/current", label)
    found = [*security.look(TARGET, host.files)]
    assert kinds(found) == ["not looked", *expected]  # nobody can see landlock rules
    if expected:
        assert "confines web (pid 7) as docker-default (enforce)" in told(found)
        assert "not queue" in told(found)


def test_selinux_matters_where_it_enforces(host: FakeProc) -> None:
    host.write(LSM, "capability,selinux")
    host.write("/proc/7/attr/current", "system_u:system_r:httpd_t:s0\0")
    host.write("/sys/fs/selinux/enforce", "0")
    assert [*security.look(TARGET, host.files)] == []
    host.write("/sys/fs/selinux/enforce", "1")
    (fact,) = security.look(TARGET, host.files)
    assert "httpd_t:s0:" in fact.what
    host.write("/proc/7/attr/current", "unconfined_u:unconfined_r:unconfined_t:s0\0")
    assert [*security.look(TARGET, host.files)] == []


def test_each_of_several_modules_has_its_own_label(host: FakeProc) -> None:
    host.write(LSM, "smack,apparmor")
    host.write("/proc/7/attr/current", "other")
    host.write("/proc/7/attr/apparmor/current", "guarded (complain)\n")
    found = [*security.look(TARGET, host.files)]
    assert "apparmor confines web (pid 7) as guarded (complain)" in told(found)


def test_a_module_that_linux_does_not_know(host: FakeProc) -> None:
    host.write(LSM, "capability,vendorguard,yama")
    (fact,) = security.look(TARGET, host.files)
    assert isinstance(fact, Suspect)
    assert (fact.kind, fact.place) == ("lsm-foreign", "connect")
    assert "vendorguard" in fact.what


def test_no_list_of_security_modules(host: FakeProc) -> None:
    (fact,) = security.look(TARGET, host.files)
    assert isinstance(fact, NotLooked)
    assert LSM in fact.reason


# -- kernel modules ----------------------------------------------------------------------

LOADED = "nf_tables 299008 12 - Live 0x0000000000000000\n"
FOREIGN = "vguard 40960 1 - Live 0x0000000000000000 (OE)\n"


def test_modules_of_others(host: FakeProc) -> None:
    host.write("/proc/modules", LOADED + FOREIGN + "nvidia 1 0 - Live 0x0 (PO)\n")
    host.write("/proc/sys/kernel/tainted", "12289\n")
    found = [*modules.look(host.files)]
    assert kinds(found) == ["module", "module"]
    assert "vguard is loaded: built outside of the kernel's tree, unsigned" in told(found)
    assert "nvidia is loaded: built outside of the kernel's tree, proprietary" in told(found)


def test_a_module_that_was_there(host: FakeProc) -> None:
    host.write("/proc/modules", LOADED)
    host.write("/proc/sys/kernel/tainted", "0\n")
    assert [*modules.look(host.files)] == []
    host.write("/proc/sys/kernel/tainted", str(1 << 12))
    assert kinds([*modules.look(host.files)]) == ["module-gone"]


def test_too_many_modules_are_counted(host: FakeProc) -> None:
    lines = [f"m{n} 1 0 - Live 0x0 (OE)\n" for n in range(23)]
    host.write("/proc/modules", "".join(lines))
    found = [*modules.look(host.files)]
    assert kinds(found) == ["module"] * 20 + ["not looked"]
    assert found[-1].what.startswith("3 more")


def test_live_patches_in_force(host: FakeProc) -> None:
    host.write("/proc/modules", LOADED)
    host.write("/sys/kernel/livepatch/fix_a/enabled", "1\n")
    host.write("/sys/kernel/livepatch/fix_b/enabled", "0\n")
    found = [*modules.look(host.files)]
    assert kinds(found) == ["livepatch"]
    assert "fix_a" in told(found)


def test_a_kernel_without_modules(host: FakeProc) -> None:
    assert kinds([*modules.look(host.files)]) == ["not looked"]


# -- probes ------------------------------------------------------------------------------

EVENTS = """p:kprobes/mine tcp_v4_connect arg1=%di
r16:kprobes/back security_socket_connect
p:kprobes/other vfs_read
p:kprobes/p_tcp_v6_connect_bcc_12 tcp_v6_connect
"""
ENABLED = """tcp_v4_connect (2) R I \ttramp: 0xffffffffc0 (klp+0x1)
tcp_v6_connect (1) R
inet_stream_connect.isra.0 (1)
vfs_read (1)
"""
FTRACE = "ftrace has a user (a tracer, BPF, a live patch or a module) on the kernel's"
KPROBES = """ffffffff81  k  tcp_connect+0x0    [FTRACE]
ffffffff82  r  vfs_open+0x0    [DISABLED]
"""


def probes(host: FakeProc, own: tuple[str, ...] = ()) -> list[str]:
    return [fact.what for fact in tracing.look(own, host.files) if isinstance(fact, Suspect)]


def test_probes_on_the_way_of_a_connect(host: FakeProc) -> None:
    assert kinds([*tracing.look((), host.files)]) == ["not looked"] * 3
    host.write("/sys/kernel/tracing/kprobe_events", EVENTS)
    host.write("/sys/kernel/debug/tracing/enabled_functions", ENABLED)
    host.write("/sys/kernel/debug/kprobes/list", KPROBES)
    assert probes(host) == [
        "the kprobe event kprobes/mine is on the kernel's tcp_v4_connect",
        "the kprobe event kprobes/back is on the return of the kernel's security_socket_connect",
        f"{FTRACE} tcp_v6_connect",
        f"{FTRACE} inet_stream_connect.isra.0",
        "a kprobe is on the kernel's tcp_connect",
    ]


def test_our_own_probes_do_not_count(host: FakeProc) -> None:
    own = ("tcp_v4_connect", "tcp_v6_connect")
    host.write("/sys/kernel/tracing/enabled_functions", ENABLED)
    host.write("/sys/kernel/debug/kprobes/list", "ff k tcp_v4_connect+0x0\nff r tcp_v4_connect+0x0")
    found = probes(host, own)
    assert not any("tcp_v6_connect" in each for each in found)
    assert sum("tcp_v4_connect" in each for each in found) == 1  # one of its two users


# -- queues ------------------------------------------------------------------------------

QUEUE = "/proc/7/net/netfilter/nfnetlink_queue"


def test_queues_and_what_waits_in_them(host: FakeProc) -> None:
    host.write(QUEUE, "    3  31337     5 2 65531     2     1       40  1\n")
    (fact,) = queues.look(7, host.files)
    assert isinstance(fact, Suspect)
    assert (fact.kind, fact.place, fact.pid) == ("nfqueue", "egress", 0)
    assert "somebody (port 31337) reads netfilter queue 3" in fact.what
    assert "5 wait there now, 3 were dropped" in fact.what


def test_connection_tracking_that_is_nearly_full(host: FakeProc) -> None:
    host.write(QUEUE, "")
    for count, expected in (("899", []), ("900", ["conntrack"])):
        host.write("/proc/sys/net/netfilter/nf_conntrack_count", count)
        host.write("/proc/sys/net/netfilter/nf_conntrack_max", "1000")
        assert kinds([*queues.look(7, host.files)]) == expected


def test_a_kernel_without_queues(host: FakeProc) -> None:
    assert kinds([*queues.look(7, host.files)]) == ["not looked"]
