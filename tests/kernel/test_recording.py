"""Recordings of a real kernel: as true as the live trace, whatever happens to them."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from porttrace.analysis import load
from porttrace.analysis.model import Outcome
from porttrace.analysis.render.report import attempt_json, finding_json
from porttrace.lab.site import LIVE, Site, open_site
from porttrace.tracer.errors import PorttraceError
from tracing import PORTTRACE, read, run, wait_until

pytestmark = pytest.mark.kernel
UID = GID = 65534

BURST = """
import socket, sys, threading
def connects():
    for _ in range(5000):
        one = socket.socket()
        one.connect_ex(("127.0.0.1", 9))
        one.close()
threads = [threading.Thread(target=connects) for _ in range(4)]
[each.start() for each in threads]
[each.join() for each in threads]
"""
STEADY = """
import socket, time
while True:
    one = socket.socket()
    one.connect_ex(("127.0.0.1", 9))
    one.close()
    time.sleep(0.001)
"""


def record(path: Path, *arguments: str, **environ: str) -> "subprocess.Popen[str]":
    """Begin a recording; returns once it is attached."""
    process = subprocess.Popen(
        [*PORTTRACE, "record", "-o", str(path), *arguments],
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        env={**os.environ, **environ},
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("Recording "), line + process.stderr.read()
    return process


def finish(process: "subprocess.Popen[str]", number: int = 0) -> tuple[int, str]:
    if number:
        process.send_signal(number)
    _, notes = process.communicate(timeout=30)
    assert "Traceback" not in notes, notes
    return process.returncode, notes


# -- as true as the live trace -----------------------------------------------------------


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("serialized-logins", ("--dead-time", "2s", "--pages", "5")),
        ("two-threads", ("--dead-time", "2s")),
        ("preloaded-logins", ("--dead-time", "2s", "--pages", "5")),
        ("sequential", ("--dead-time", "2s")),
        ("dead-parallel", ("--dead-time", "1s")),
        ("burst", ()),
    ],
)
def test_a_recording_gives_the_report_of_its_live_trace(
    tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    path = tmp_path / "a.ptrace"
    traced = read(run("lab", "scenario", name, *options, "--json", "-o", str(path), timeout_s=100))
    # Whatever the verdict of the story is on a busy host, both must say the same.
    found = load(path)
    assert found.complete and found.why_incomplete == ""
    assert plain([finding_json(each) for each in found.findings]) == traced.report["findings"]
    trust = traced.report["trust"]
    assert (found.trust.events, found.trust.lost_events) == (trust["events"], trust["lost_events"])
    by_id = {each["attempt_id"]: each for each in traced.attempts}
    reasons = found.trace.host.drop_reasons
    rows = [plain(attempt_json(row, reasons=reasons)) for row in found.trace.rows]
    assert len(rows) == len(traced.attempts)
    for row in rows:
        told = {key: value for key, value in by_id[row["attempt_id"]].items() if key != "type"}
        if trust["lost_events"]:
            row["complete"] = told["complete"]  # the line was printed before the loss was known
        assert {key: row[key] for key in row} == {key: told[key] for key in row}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


def test_a_full_speed_burst_loses_nothing(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    words = ("burst", "--dead", LIVE, "--live", LIVE, "--threads", "50", "--connects", "40")
    process = record(path, "--", *site.argv("controls", *words))
    code, notes = finish(process)
    assert code == 0, notes
    found = load(path)
    assert "none lost" in notes and found.trust.lost_events == 0
    assert len(found.trace.attempts) == 50 * 40
    assert set(found.trace.attempts["outcome"].tolist()) == {Outcome.established}


def test_every_connect_of_a_loop_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    code, notes = finish(record(path, "--", sys.executable, "-c", BURST))
    assert code == 0, notes
    found = load(path)
    assert found.complete and found.trust.complete
    assert len(found.trace.attempts) == 20_000
    assert set(found.trace.attempts["outcome"].tolist()) == {Outcome.refused}


def test_recording_keeps_pandas_out(tmp_path: Path) -> None:
    code = (
        "import sys; from porttrace.cli import main; "
        f"status = main(['record', '-o', {str(tmp_path / 'a')!r}, '--', 'true']); "
        "print(status, 'pandas' in sys.modules, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 False True\n"


def test_a_recorded_story_has_its_suspects_and_held_threads(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    story = [*PORTTRACE, "lab", "run", "gate", "--", sys.executable, "-c", BURST]
    code, notes = finish(record(path, "-d", "2", "--", *story))
    assert code == 0, notes
    assert load(path).complete


# -- whatever happens ------------------------------------------------------------------------


def test_kill_9_keeps_every_whole_batch(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    client = subprocess.Popen([sys.executable, "-c", STEADY])
    process = record(path, "--pid", str(client.pid))
    try:
        time.sleep(1.5)
        assert finish(process, signal.SIGKILL)[0] == -signal.SIGKILL
    finally:
        client.kill()
        client.wait()
    found = load(path)
    assert not found.complete and not found.trust.complete
    assert "killed" in found.why_incomplete
    assert any("incomplete" in note for note in found.trust.notes)
    assert len(found.trace.attempts) > 100
    # all but the last batch of 0.2 s, and what was not final yet
    assert (found.trace.end_ns - found.trace.start_ns) / 1e9 > 1.0


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_complete(tmp_path: Path, number: int) -> None:
    path = tmp_path / "a.ptrace"
    code, notes = finish(record(path, "-P", "9"), number)
    assert code == 0 and "Recorded " in notes and str(path) in notes
    assert load(path).complete


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_it_with_a_valid_file(small_disk: Path) -> None:
    path = small_disk / "a.ptrace"
    client = subprocess.Popen([sys.executable, "-c", STEADY])
    try:
        code, notes = finish(record(path, "--pid", str(client.pid)))
    finally:
        client.kill()
        client.wait()
    assert code == 1
    assert f"error: cannot write {path}: No space left on device" in notes
    assert "hint: " in notes
    found = load(path)
    assert not found.complete and len(found.trace.attempts) > 10


def test_a_live_trace_goes_on_without_its_disk(small_disk: Path) -> None:
    path = small_disk / "a.ptrace"
    (small_disk / "full").write_bytes(bytes(60_000))
    done = run("--json", "-o", str(path), "--", sys.executable, "-c", BURST)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["type"] == "report" and last["attempts"]["total"] == 20_000


def test_parts_can_be_read_alone(tmp_path: Path) -> None:
    client = subprocess.Popen([sys.executable, "-c", STEADY])
    process = record(
        tmp_path / "a.ptrace", "--rotate", "1s", "--keep", "3", "--pid", str(client.pid)
    )
    try:
        wait_until(lambda: (tmp_path / "a-0005.ptrace").exists(), 20)
        code, notes = finish(process, signal.SIGTERM)
    finally:
        client.kill()
        client.wait()
    assert code == 0, notes
    parts = [load(path) for path in sorted(tmp_path.iterdir())]
    assert len(parts) == 3 and all(part.complete for part in parts)
    assert all(client.pid in part.trace.processes for part in parts)
    ended = [row["syn_ns"] for part in parts for row in part.trace.rows if row["end_ns"]]
    assert len(set(ended)) == len(ended) > 500


# -- whose file it is ----------------------------------------------------------------------------


@pytest.fixture
def his(tmp_path: Path) -> Path:
    """A folder of the user who called sudo."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    folder = tmp_path / "his"
    folder.mkdir()
    os.chown(folder, UID, GID)
    return folder


def under_sudo(path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PORTTRACE, "record", "-o", str(path), *arguments, "--", "true"],
        capture_output=True, text=True, check=False, timeout=30,
        env={**os.environ, "SUDO_UID": str(UID), "SUDO_GID": str(GID)},
    )  # fmt: skip


def test_under_sudo_the_file_is_the_users(his: Path) -> None:
    done = under_sudo(his / "a.ptrace")
    assert done.returncode == 0, done.stderr
    status = (his / "a.ptrace").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (UID, GID, 0o600)
    assert load(his / "a.ptrace").complete


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_planted_links_are_refused(his: Path, tmp_path: Path, force: tuple[str, ...]) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    (victim / "a.ptrace").write_bytes(b"old")
    (his / "a.ptrace").symlink_to(victim / "a.ptrace")
    (his / "folder").symlink_to(victim)
    for path in (his / "a.ptrace", his / "folder" / "a.ptrace", his / "folder" / "b.ptrace"):
        done = under_sudo(path, *force)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ") and "hint: " in done.stderr
    assert (victim / "a.ptrace").read_bytes() == b"old"
    assert [each.name for each in victim.iterdir()] == ["a.ptrace"]


def test_what_is_no_recording_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    path.write_text("no")
    with pytest.raises(PorttraceError):
        load(path)
