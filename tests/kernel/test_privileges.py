"""What a trace lets go of once it is attached, seen from outside, and what it keeps and why."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from porttrace.tracer.capabilities import bits, names
from porttrace.tracer.privileges import KEPT
from tracing import PORTTRACE, need_an_open_checkout, run, wait_until

pytestmark = pytest.mark.kernel

NOBODY, SOMEBODY = 65534, 54321
PORT = 8389
LOOKS = str(Path(__file__).with_name("looks_workload.py"))
RULES = """
add table inet t
add chain inet t c { type filter hook output priority 0; }
add rule inet t c tcp dport 4444 drop
"""
SERVER = f"""
import os, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["nft", "-f", "-"], input={RULES!r}, text=True, check=True)
server = socket.create_server(("127.0.0.1", {PORT}))
os.setresgid({SOMEBODY}, {SOMEBODY}, {SOMEBODY})
os.setresuid({SOMEBODY}, {SOMEBODY}, {SOMEBODY})
print("ready", flush=True)
sys.stdin.read()
"""
ONE_CONNECT = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"

CONNECTS = """
import socket, time
for _ in range(200):
    with socket.socket() as one:
        one.connect_ex(("127.0.0.1", 9))
    time.sleep(0.1)
"""


def statuses(pid: int) -> list[dict[str, str]]:
    """Return what the kernel says of each thread of a process."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = (line.split(":", 1) for line in path.read_text().splitlines())
        found.append({key: value.strip() for key, value in lines})
    return found


def begin(*arguments: str, before: Sequence[str] = (), **environ: str) -> "subprocess.Popen[str]":
    """Start porttrace; it is attached when this returns, and has dropped what it drops."""
    process = subprocess.Popen(
        [*before, *PORTTRACE, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, text=True, env={**os.environ, **environ},
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith(("Recording ", "Tracing ")), line + process.stderr.read()
    return process


def ended(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    _, notes = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in notes, notes


# -- seen from outside -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "environ", "uid", "more"),
    [
        (("-P", "9"), {}, NOBODY, ()),
        (("record", "-o", "{}/a.ptrace", "-P", "9"), {}, 0, ()),
        (("-P", "9"), {"SUDO_UID": str(SOMEBODY), "SUDO_GID": str(SOMEBODY)}, SOMEBODY, ()),
        (("-P", "9", "--", "sleep", "60"), {}, NOBODY, ("CAP_KILL",)),
    ],
)
def test_no_thread_has_more_than_it_needs(
    arguments: tuple[str, ...], environ: dict[str, str], uid: int, more: tuple[str, ...],
    tmp_path: Path,
) -> None:  # fmt: skip
    process = begin(*(each.format(tmp_path) for each in arguments), **environ)
    try:
        threads = statuses(process.pid)
    finally:
        ended(process)
    kept = bits((*KEPT, *more))
    for each in threads:
        permitted = int(each["CapPrm"], 16)
        assert permitted == int(each["CapEff"], 16)
        if permitted:  # one of ours; those of libraries have nothing at all
            assert permitted == kept, names(permitted)
            assert each["Uid"].split() == [str(uid)] * 4 and each["NoNewPrivs"] == "1"
            assert int(each["CapBnd"], 16) == kept
        else:
            assert each["Uid"].split() == [str(uid or NOBODY)] * 4
    assert sum(int(each["CapPrm"], 16) == kept for each in threads) >= 3


def test_keep_root_keeps_all() -> None:
    process = begin("-P", "9", "--keep-root")
    try:
        threads = statuses(process.pid)
    finally:
        ended(process)
    mine = statuses(os.getpid())[0]
    assert len(threads) >= 3
    for each in threads:
        assert each["CapEff"] == mine["CapEff"] and each["NoNewPrivs"] == mine["NoNewPrivs"]
        assert each["Uid"] == mine["Uid"]


def test_a_command_has_what_it_would_have_without_us(tmp_path: Path) -> None:
    script = f"cat /proc/self/status > {tmp_path}/a"
    assert run("--", "sh", "-c", script).returncode == 0
    lines = (line.split(":", 1) for line in (tmp_path / "a").read_text().splitlines())
    his, mine = {key: value.strip() for key, value in lines}, statuses(os.getpid())[0]
    for key in ("Uid", "Groups", "CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs"):
        assert his[key] == mine[key], key


def test_parts_go_on_in_a_folder_that_is_another_users(tmp_path: Path) -> None:
    # As root, without sudo, in somebody's folder: he may not write to it as nobody could.
    folder = tmp_path / "his"
    folder.mkdir(mode=0o755)
    os.chown(folder, SOMEBODY, SOMEBODY)
    process = begin("record", "-o", str(folder / "a.ptrace"), "--rotate", "1s", "--keep", "2",
                    "-P", "9")  # fmt: skip
    # A part begins with what is to be written into it: a host that does nothing begins none.
    load = subprocess.Popen([sys.executable, "-c", CONNECTS])
    try:
        wait_until(lambda: (folder / "a-0003.ptrace").exists(), 20)
    finally:
        load.kill()
        load.wait()
        ended(process)
    assert not (folder / "a-0001.ptrace").exists()


# -- capabilities in place of root ---------------------------------------------------------

LEAST = ("CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH")
RECOMMENDED = (*LEAST, *(name for name in KEPT if name not in LEAST))


def as_nobody(names: Iterable[str]) -> list[str]:
    """Return what runs a command as nobody with these capabilities alone."""
    short = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names)
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
            f"--inh-caps={short}", f"--ambient-caps={short}", "--"]  # fmt: skip


PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


def traced_by(names: Iterable[str]) -> str:
    command = [*as_nobody(names), *PORTTRACE, "--", "/usr/bin/python3", "-c", ONE_CONNECT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "Outcomes: 1 refused" in done.stdout
    return done.stdout


def test_with_capabilities_in_place_of_root_all_of_it_works() -> None:
    text = traced_by(RECOMMENDED)
    assert "wire probe on" in text and "CAP_" not in text


@pytest.fixture
def paranoid() -> Iterator[None]:
    """Debian's kernels may be more paranoid than Linux itself, which CAP_PERFMON is enough for."""
    before = PARANOID.read_text()
    PARANOID.write_text("2")
    yield
    PARANOID.write_text(before)


@pytest.mark.usefixtures("paranoid")
def test_with_the_least_there_are_events_and_the_rest_is_named() -> None:
    text = traced_by(LEAST)
    for name in set(RECOMMENDED) - set(LEAST):
        assert name in text, name


@pytest.mark.parametrize("name", LEAST)
def test_an_essential_one_that_is_missing_is_named(name: str) -> None:
    command = [*as_nobody(set(LEAST) - {name}), *PORTTRACE, "--json", "-P", "9", "-d", "1"]
    # This checkout may be closed to nobody: Python must still find it.
    if name == "CAP_DAC_READ_SEARCH":
        need_an_open_checkout()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 3 and done.stdout == ""
    assert f"{name} missing" in done.stderr and "sudo " in done.stderr
    assert f"(gives {name})" in done.stderr and "Traceback" not in done.stderr


def test_capabilities_that_are_not_needed_any_more_are_dropped() -> None:
    process = begin("-P", "9", before=as_nobody(RECOMMENDED))
    try:
        sets = {int(each["CapEff"], 16) for each in statuses(process.pid)}
    finally:
        ended(process)
    # Threads that libraries began keep theirs: only root can take them away.
    assert bits(KEPT) in sets and sets <= {bits(KEPT), bits(RECOMMENDED)}


# -- what is kept, and whether all of it is needed -----------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """A server of another user, in a network namespace of its own that has packet filters."""
    if not shutil.which("nft"):
        pytest.skip("there is no nft")
    command = ["unshare", "--net", "/usr/bin/python3", "-c", SERVER]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.stdin.close()


def looked(rights: str, pid: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, LOOKS, rights, str(pid), str(PORT)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def with_all(server: int) -> dict[str, Any]:
    found = looked("all", server)
    # That there is something to see, so that what follows can fail.
    assert found["process"]["exe"] and found["programs"] is True and found["sample"] is True
    assert found["holders"] == [["listener", server, "python3"]] and found["wire"] == [True, []]
    assert any("dport 4444" in each or "drop" in each for each in found["census"][0])
    return found


def test_with_what_is_kept_as_much_is_seen_as_with_all(
    server: int, with_all: dict[str, Any]
) -> None:
    found = looked("kept", server)
    assert found.pop("uid") == NOBODY
    assert found == {key: value for key, value in with_all.items() if key != "uid"}


@pytest.mark.parametrize("name", KEPT)
def test_without_any_of_it_less_is_seen(name: str, server: int, with_all: dict[str, Any]) -> None:
    found = looked(f"without={name}", server)
    lost = {key for key in with_all if key != "uid" and found[key] != with_all[key]}
    print(name, "is needed for", sorted(lost))
    assert lost
    # Events and the kernel's own counts need nothing once they are open.
    assert not lost & {"reads", "losses"}
