"""Whoever hears us goes, the pipe's reader or a terminal: a trace ends, whole, with code 0."""

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from porttrace.analysis import load

TESTS = Path(__file__).parent.parent
# A trace of two attempts, for as long as nobody ends it.
FAKE = f"""
import importlib, os, sys
sys.path.insert(0, {str(TESTS)!r})
from builders import S, events
from fakelive import FakeLive, Story
from porttrace.cli import main
module = importlib.import_module("porttrace.cli." + sys.argv[1])
module.features.require = lambda: None
module.features.compile_flags = lambda: ()
rounds = [events().connect(at=at * S).syn_sent().refused().array() for at in (2, 9)]
class Slow(FakeLive):
    def read(self, timeout_ms=50):
        import time
        time.sleep(0.05)
        return super().read(timeout_ms)
module.LiveTrace = lambda options, *_: Slow(options, Story(rounds), S)
sys.exit(main(sys.argv[1:]))
"""


@dataclass
class Heard:
    """A program of which we hear standard output; `go` closes our end."""

    process: "subprocess.Popen[bytes]"
    fd: int

    def until(self, wanted: bytes) -> None:
        text = b""
        while wanted not in text:
            got = os.read(self.fd, 65536)
            assert got, text
            text += got

    def go(self) -> float:
        """Hear no more; return the seconds that it went on for after that."""
        os.close(self.fd)
        self.fd = -1
        since_s = time.monotonic()
        self.process.wait(60)
        return time.monotonic() - since_s


def _controlling() -> None:
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def heard(kind: str, *words: str) -> Iterator[Heard]:
    """Run it on a pipe, on a terminal, or on one that is not its own: no signal comes from it."""
    ours, its = os.pipe() if kind == "pipe" else pty.openpty()
    err = open(its, "wb", closefd=False) if kind != "pipe" else subprocess.PIPE  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-c", FAKE, *words], stdin=subprocess.DEVNULL, stdout=its, stderr=err,
        start_new_session=True, preexec_fn=_controlling if kind == "terminal" else None,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(its)
    both = Heard(process, ours)
    try:
        yield both
    finally:
        process.kill()
        process.wait()
        if both.fd >= 0:
            os.close(both.fd)
        if process.stderr:
            process.stderr.close()


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
@pytest.mark.parametrize("kind", ["pipe", "terminal", "other-terminal"])
def test_a_live_trace_ends_and_its_recording_is_whole(
    tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    path = tmp_path / "a.ptrace"
    with heard(kind, "live", *options, "-o", str(path)) as trace:
        trace.until(b"192.0.2.2")
        took_s = trace.go()
        if trace.process.stderr:
            notes = trace.process.stderr.read().decode()
            assert "rror" not in notes and "Traceback" not in notes
    assert trace.process.returncode == 0
    found = load(path)
    assert found.complete, found.why_incomplete
    assert len(found.trace.attempts) == 2
    assert took_s < 10


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["screen", "json"])
@pytest.mark.parametrize("kind", ["pipe", "terminal", "other-terminal"])
def test_top_ends(kind: str, options: tuple[str, ...]) -> None:
    with heard(kind, "top", *options, "-i", "0.3s") as trace:
        trace.until(b'"findings"' if options else b"porttrace top")
        took_s = trace.go()
    assert trace.process.returncode == 0
    assert took_s < 10


def test_a_recording_goes_on_without_its_terminal_until_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    with heard("other-terminal", "record", "-o", str(path)) as trace:
        trace.until(b"Recording ")
        os.close(trace.fd)
        trace.fd = -1
        with pytest.raises(subprocess.TimeoutExpired):
            trace.process.wait(0.5)
        trace.process.send_signal(signal.SIGTERM)
        assert trace.process.wait(60) == 0
    assert load(path).complete


@pytest.mark.usefixtures("hangups")
def test_a_recording_ends_with_its_own_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    with heard("terminal", "record", "-o", str(path)) as trace:
        trace.until(b"Recording ")
        trace.go()
    assert trace.process.returncode == 0
    assert load(path).complete


@pytest.mark.usefixtures("hangups")
def test_nohup_is_heeded(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with heard("terminal", "record", "-o", str(path)) as trace:
        trace.until(b"Recording ")
        os.close(trace.fd)
        trace.fd = -1
        with pytest.raises(subprocess.TimeoutExpired):
            trace.process.wait(0.5)
        trace.process.send_signal(signal.SIGINT)
        assert trace.process.wait(60) == 0
    assert load(path).complete


@pytest.mark.parametrize(
    ("words", "code"), [(["report", "/nowhere.ptrace"], 1), (["--no-such-option"], 2)]
)
def test_an_error_keeps_its_exit_code_where_nobody_hears_it(words: list[str], code: int) -> None:
    ours, its = pty.openpty()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "porttrace.cli", *words],
        stdin=subprocess.DEVNULL, stdout=its, stderr=its, check=False, timeout=60,
    )  # fmt: skip
    os.close(its)
    assert done.returncode == code


def test_a_disk_that_fails_is_not_taken_for_a_lost_terminal() -> None:
    # What is written to no address fails with EIO, too.
    with open("/proc/self/mem", "wb") as nowhere:
        done = subprocess.run(
            [sys.executable, "-m", "porttrace.cli", "--help"],
            stdout=nowhere, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert "Input/output error" in done.stderr


def test_notes_do_not_go_to_standard_output_where_there_is_no_standard_error() -> None:
    words = f"exec {sys.executable} -m porttrace.cli report /nowhere.ptrace 2>&-"
    done = subprocess.run(["sh", "-c", words], stdout=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")
