"""The census of a real kernel: each thing is made, found, and gone again. A plain process has none.

Everything happens in network namespaces and control groups made here.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from porttrace.tracer.census import Census, Found, bpf, btf
from porttrace.tracer.census.holders import walk
from porttrace.tracer.census.programs import snapshot
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.ksyms import KernelSymbols
from porttrace.tracer.namespaces import in_netns_of
from porttrace.tracer.processes import read_process
from tracing import run, wait_until

pytestmark = pytest.mark.kernel

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
# r0 = 1; exit: lets everything pass
PASS = b"\xb7\0\0\0\x01\0\0\0\x95\0\0\0\0\0\0\0"
ALLOW = PASS.replace(b"\x01", b"\0")  # r0 = 0


@contextlib.contextmanager
def process(words: Sequence[str] = SLEEPER, **more: Any) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a process that says when it is up; end it whatever happens."""
    child = subprocess.Popen([*words], stdout=subprocess.PIPE, **more)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"up\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@contextlib.contextmanager
def in_new_netns() -> "Iterator[subprocess.Popen[bytes]]":
    """Run a process in a network namespace of its own."""
    with process(["unshare", "--net", *SLEEPER]) as child:
        yield child


def inside(pid: int, *words: str, text: str | None = None) -> None:
    """Run a command in the network namespace of a process."""
    done = in_netns_of(
        pid,
        lambda: subprocess.run(words, input=text, text=True, capture_output=True, check=False),
    )
    if done.returncode:
        pytest.skip(f"{' '.join(words[:3])} does not work here: {done.stderr.strip()[:200]}")


def needs(*commands: str) -> None:
    for command in commands:
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")


def census(pid: int) -> Found:
    return Census().of(read_process(pid))


def kinds(pid: int) -> list[str]:
    return [each.kind for each in census(pid).suspects]


def load(kind: int, attach_type: int, name: bytes, code: bytes = PASS, function: int = 0) -> int:
    """Load a BPF program and return its descriptor."""
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = struct.pack(
        "<IIQQIIQII16sII36xI", kind, len(code) // 8, ctypes.addressof(instructions),
        ctypes.addressof(licence), 0, 0, 0, 0, 0, name, 0, attach_type,
        function,
    )  # fmt: skip
    return bpf.call(5, attr)[0]


# -- the control ---------------------------------------------------------------------------


def test_a_plain_process_is_accused_of_nothing() -> None:
    with in_new_netns() as child:
        census(child.pid)  # what is imported and loaded at first is not meant
        started = time.monotonic()
        found = census(child.pid)
        took_s = time.monotonic() - started
    assert found.suspects == ()
    assert took_s < 5, "1 s is meant, on a real machine that does nothing else"


def test_what_cannot_be_read_here_is_said() -> None:
    with process() as child:
        told = {each.what: each.reason for each in census(child.pid).not_looked}
    for what, path in (
        ("security modules", "/sys/kernel/security/lsm"),
        ("kernel modules", "/proc/modules"),
    ):
        assert (what in told) is not os.access(path, os.R_OK)
        if what in told:
            assert path in told[what]


# -- entry -----------------------------------------------------------------------------------


def test_a_preloaded_library(tmp_path: Path) -> None:
    needs("cc")
    for name, code in (("holds", "int connect(void) { return 0; }"), ("other", "int x;")):
        source = tmp_path / f"{name}.c"
        source.write_text(code)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", tmp_path / f"{name}.so", source], check=True
        )
    environment = {**os.environ, "LD_PRELOAD": f"{tmp_path}/holds.so:{tmp_path}/other.so"}
    with process(env=environment) as child:
        facts = {each.kind: each for each in census(child.pid).suspects}
    assert f"{tmp_path}/holds.so is preloaded" in facts["preload"].what
    assert f"{tmp_path}/other.so is preloaded" in facts["preload-other"].what


def test_an_audit_library(tmp_path: Path) -> None:
    needs("cc")
    source = tmp_path / "watch.c"
    source.write_text("unsigned la_version(unsigned v) { return v; }")
    library = tmp_path / "watch.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    with process(env={**os.environ, "LD_AUDIT": str(library)}) as child:
        assert "audit-library" in kinds(child.pid)


def test_strace() -> None:
    needs("strace")
    with process() as child:
        tracer = subprocess.Popen(
            ["strace", "-qq", "-o", os.devnull, "-p", str(child.pid)], stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: "ptrace" in kinds(child.pid))
            (fact,) = (each for each in census(child.pid).suspects if each.kind == "ptrace")
            assert fact.pid == tracer.pid
            assert fact.what.startswith(f"strace (pid {tracer.pid}: strace -qq")
        finally:
            tracer.terminate()
            tracer.wait()


# -- netfilter and devices ---------------------------------------------------------------------


def test_a_rule_that_counts_connections_in_the_namespace_of_the_process() -> None:
    needs("nft")
    rules = """table inet guard {
        chain deep { tcp flags syn ct count over 1 reject with tcp reset
        }
        chain out {
            type filter hook output priority 0
            policy accept
            udp dport 53 drop
            tcp dport 9100 jump deep comment "drop"
        }
    }"""
    with in_new_netns() as child, process() as other:
        inside(child.pid, "nft", "-f", "-", text=rules)
        facts = census(child.pid).suspects
        assert [each.kind for each in facts] == ["netfilter-connlimit"]
        assert facts[0].place == "egress"
        assert "inet guard deep (output) counts connections" in facts[0].what
        assert "ct count over 1 reject" in facts[0].what
        assert not any("inet guard" in each.what for each in census(other.pid).suspects)


QUEUE_READER = """
import socket, struct, sys, time
# NFQNL_MSG_CONFIG with NFQA_CFG_CMD: bind queue 3 (linux/netfilter/nfnetlink_queue.h)
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.bind((int(sys.argv[1]), 0))
body = struct.pack('>BBH', 0, 0, 3) + struct.pack('<HH', 8, 1) + struct.pack('>BBH', 1, 0, 2)
s.send(struct.pack('<IHHII', 16 + len(body), 3 << 8 | 2, 5, 1, 0) + body)
answer = s.recv(4096)
assert struct.unpack_from('<i', answer, 16)[0] == 0, answer
print('up', flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("port", [0, 999_777])
def test_a_queue_and_who_reads_it(port: int) -> None:
    """Whatever number its socket has: a pid, or another."""
    needs("iptables", "unshare")
    queue = ["-p", "tcp", "--dport", "5", "-j", "NFQUEUE", "--queue-num", "3"]
    reader = [sys.executable, "-c", QUEUE_READER, str(port)]
    with in_new_netns() as child:
        inside(child.pid, "iptables", "-A", "OUTPUT", *queue)
        enter = ["nsenter", f"--net=/proc/{child.pid}/ns/net"]
        with process([*enter, *reader]) as guard:
            facts = {each.kind: each for each in census(child.pid).suspects}
    assert set(facts) == {"nfqueue", "netfilter-queue"}
    assert facts["nfqueue"].pid == guard.pid
    assert f"(pid {guard.pid}" in facts["nfqueue"].what
    assert "reads netfilter queue 3" in facts["nfqueue"].what


def test_the_old_iptables() -> None:
    needs("iptables-legacy", "iptables-legacy-save")
    limit = ["-m", "connlimit", "--connlimit-above", "2", "-j", "REJECT"]
    with in_new_netns() as child:
        inside(child.pid, "iptables-legacy", "-A", "OUTPUT", "-p", "tcp", "--syn", *limit)
        assert "netfilter-connlimit" in kinds(child.pid)


def test_a_shaper_on_a_device() -> None:
    needs("ip", "tc")
    with in_new_netns() as child:
        inside(child.pid, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
        shape = ["tbf", "rate", "1mbit", "burst", "10kb", "latency", "50ms"]
        inside(child.pid, "tc", "qdisc", "add", "dev", "v0", "root", *shape)
        (fact,) = census(child.pid).suspects
    assert (fact.kind, fact.place) == ("qdisc", "egress")
    assert "tbf of v0" in fact.what


def test_a_policer_on_a_device() -> None:
    needs("ip", "tc")
    with in_new_netns() as child:
        inside(child.pid, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
        inside(child.pid, "tc", "qdisc", "add", "dev", "v0", "clsact")
        police = ["matchall", "action", "police", "rate", "1mbit", "burst", "10k", "drop"]
        inside(child.pid, "tc", "filter", "add", "dev", "v0", "egress", *police)
        (fact,) = census(child.pid).suspects
    assert (fact.kind, fact.place) == ("police", "egress")
    assert "a filter of v0 (matchall, egress) polices" in fact.what


# -- BPF -----------------------------------------------------------------------------------------


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with one below it."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    trees = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    if not trees:
        pytest.skip("no control groups of v2 are mounted")
    upper = Path(trees[0]) / f"porttrace-test-{os.getpid()}"
    (upper / "below").mkdir(parents=True)
    yield upper
    for folder in (upper / "below", upper):
        wait_until(lambda folder=folder: not (folder / "cgroup.procs").read_text())
        folder.rmdir()


HOLDER = """
import os, sys, time
print('up', flush=True)
time.sleep(60)
"""


def test_a_program_on_a_control_group_above(group: Path) -> None:
    program = load(18, 10, b"guard_connect")  # cgroup_sock_addr, on inet4_connect
    place = os.open(group, os.O_RDONLY)
    try:
        with process() as child, process([sys.executable, "-c", HOLDER], pass_fds=[program]) as own:
            (group / "below" / "cgroup.procs").write_text(str(child.pid))
            assert kinds(child.pid) == []
            bpf.call(8, struct.pack("<IIII", place, program, 10, 0))  # BPF_PROG_ATTACH
            # ours is left out as long as we hold it
            assert kinds(child.pid) == []
            os.close(program)
            (fact,) = census(child.pid).suspects
            assert (fact.kind, fact.place, fact.pid) == ("bpf-cgroup", "connect", own.pid)
            assert "the BPF program guard_connect (id " in fact.what
            assert f"(pid {own.pid})) is on the hook connect4 of {group}" in fact.what
            (group.parent / "cgroup.procs").write_text(str(child.pid))
            assert kinds(child.pid) == []
    finally:
        os.close(place)


def test_a_program_on_a_device() -> None:
    needs("ip")
    with in_new_netns() as child:
        try:
            program = load(3, 47, b"tc_guard")  # sched_cls, tcx egress
            # BPF_LINK_CREATE on lo; the link lives in a process that is not ours
            attr = struct.pack("<IIII", program, 1, 47, 0)
            link = in_netns_of(child.pid, lambda: bpf.call(28, attr)[0])
        except (OSError, PorttraceError) as error:
            pytest.skip(f"this kernel has no tcx: {error}")
        with process([sys.executable, "-c", HOLDER], pass_fds=[link]) as holder:
            os.close(program)
            os.close(link)
            (fact,) = census(child.pid).suspects
    assert (fact.kind, fact.place, fact.pid) == ("bpf-tc", "egress", holder.pid)
    assert "tc_guard" in fact.what and "on lo (tcx, egress)" in fact.what


def number_of(function: str) -> int:
    """Return the number of a kernel function among the kernel's types."""
    if not btf.VMLINUX.exists():
        pytest.skip("this kernel does not describe its types")
    known = btf.names(range(1, 1 << 20), btf.VMLINUX.read_bytes())
    return next(number for number, name in known.items() if name == function)


@pytest.mark.parametrize(
    ("kind", "attach_type", "function", "expected"),
    [
        (26, 24, "tcp_v4_connect", ("bpf-probe", "is on the kernel's tcp_v4_connect")),
        (29, 27, "bpf_lsm_socket_connect", ("bpf-lsm", "is on the security hook socket_connect")),
    ],
)
def test_a_program_on_a_function_of_the_kernel(
    kind: int, attach_type: int, function: str, expected: tuple[str, str]
) -> None:
    try:
        program = load(kind, attach_type, b"guard", ALLOW, number_of(function))
        link = bpf.call(17, struct.pack("<QI", 0, program))[0]  # BPF_RAW_TRACEPOINT_OPEN
    except OSError as error:
        pytest.skip(f"this kernel does not let programs onto its functions: {error}")
    with process() as child, process([sys.executable, "-c", HOLDER], pass_fds=[link]) as holder:
        os.close(program)
        os.close(link)
        found = census(child.pid)
    facts = found.suspects
    told = {each.kind: each for each in facts}
    if expected[0] not in told:
        assert any("are attached to" in each.what for each in found.not_looked)
        pytest.skip("this kernel does not say what a program is attached to, and that is said")
    assert told[expected[0]].what.endswith(f"(pid {holder.pid})) {expected[1]}")
    assert {each.place for each in facts} == {"connect"}


def test_a_program_on_a_kprobe() -> None:
    perf = -1
    with contextlib.suppress(OSError):
        number = int(Path("/sys/bus/event_source/devices/kprobe/type").read_text())
        function = ctypes.create_string_buffer(b"tcp_v4_connect")
        # struct perf_event_attr: type, size, ..., config1 is the function
        attr = struct.pack("<II48xQ48x", number, 112, ctypes.addressof(function))
        call = {"x86_64": 298, "aarch64": 241}[platform.machine()]
        perf = ctypes.CDLL(None).syscall(call, attr, -1, 0, -1, 0)
    if perf < 0:
        pytest.skip("this kernel has no kprobes")
    program = load(2, 0, b"watcher", ALLOW)
    fcntl.ioctl(perf, 0x40042408, program)  # PERF_EVENT_IOC_SET_BPF
    with process() as child, process([sys.executable, "-c", HOLDER], pass_fds=[perf]) as holder:
        os.close(program)
        os.close(perf)
        facts = census(child.pid).suspects
    (fact,) = (each for each in facts if each.kind == "bpf-probe")
    assert (fact.place, fact.pid) == ("connect", holder.pid)
    assert fact.what.startswith("the BPF program watcher (id ")
    assert fact.what.endswith("is a kprobe on the kernel's tcp_v4_connect")


def told_to(file: Path, line: str) -> None:
    """Append a line to a file that cannot be sought in, as the shell's >> does."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def test_a_kprobe_of_tracefs() -> None:
    events = Path("/sys/kernel/tracing/kprobe_events")
    if not events.exists():
        pytest.skip("this kernel has no kprobes")
    name = f"porttrace_test_{os.getpid()}"
    told_to(events, f"p:{name}/on_connect tcp_v4_connect\n")
    switch = Path(f"/sys/kernel/tracing/events/{name}/on_connect/enable")
    try:
        with process() as child:
            facts = [each for each in census(child.pid).suspects if each.kind == "kernel-probe"]
            assert facts[0].what == (
                f"the kprobe event {name}/on_connect is on the kernel's tcp_v4_connect"
            )
    finally:
        switch.write_text("0")
        told_to(events, f"-:{name}/on_connect\n")


def test_programs_and_links_are_read_as_the_kernel_lists_them() -> None:
    program = load(8, 0, b"listed")
    try:
        found = snapshot(walk())
        assert found.missing == ()
        mine = [each for each in found.programs.values() if each.name == "listed"]
        assert [each.type for each in mine] == ["cgroup_skb"]
        assert found.is_own(mine[0].number)
    finally:
        os.close(program)


def symbols() -> Iterator[tuple[int, str, str]]:
    """Yield address, name and module ("" for none) of each function of the kernel."""
    with open("/proc/kallsyms") as file:
        for line in file:
            address, kind, name, *module = line.split()
            if kind in "tT":
                yield int(address, 16), name, module[0] if module else ""


def test_a_function_of_a_module_is_told_with_its_module() -> None:
    known = KernelSymbols()
    plain = next(at for at, name, _ in symbols() if name == "tcp_v4_connect")
    assert known.name(plain + 1) == "tcp_v4_connect"
    own = ((at, name, in_) for at, name, in_ in symbols() if in_ not in ("", "[bpf]"))
    at, name, module = next(own, (0, "", ""))
    if not at:
        pytest.skip("no module is loaded into this kernel")
    assert known.name(at + 1).endswith(f" {module}"), name


# -- the command, and traces -----------------------------------------------------------------------


def test_the_command_on_a_process_in_its_namespace() -> None:
    needs("nft")
    rules = (
        "table inet guard {\n chain out {\n type filter hook output priority 0\n"
        "tcp dport 9100 ct count over 1 drop\n}\n}"
    )
    with in_new_netns() as child:
        inside(child.pid, "nft", "-f", "-", text=rules)
        text = run("suspects", "--pid", str(child.pid))
        listed = run("suspects", "--json", "--pid", str(child.pid))
    assert (text.returncode, text.stderr) == (0, "")
    assert max(map(len, text.stdout.splitlines())) <= 80
    assert "  egress (the SYN on its way out):\n    - a rule of inet guard out" in text.stdout
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    (fact,) = (row for row in rows if row["type"] == "suspect")
    assert (fact["target"], fact["kind"]) == (child.pid, "netfilter-connlimit")
    assert all(row["type"] == "not_looked" for row in rows[1:])


def test_a_recording_keeps_the_census_of_its_target(tmp_path: Path) -> None:
    from porttrace.analysis.recording import load as load_trace

    needs("nft")
    rules = (
        "table inet guard {\n chain out {\n type filter hook output priority 0\n"
        "tcp dport 9100 ct count over 1 drop\n}\n}"
    )
    path = tmp_path / "a.ptrace"
    with in_new_netns() as child:
        inside(child.pid, "nft", "-f", "-", text=rules)
        done = run("record", "-o", str(path), "-d", "1s", "--pid", str(child.pid))
        assert done.returncode == 0, done.stderr
    trace = load_trace(path).trace
    assert [each.kind for each in trace.suspects[child.pid]] == ["netfilter-connlimit"]
    assert {each.what for each in trace.not_looked} >= (
        set() if os.access("/proc/modules", os.R_OK) else {"kernel modules"}
    )
