"""`porttrace top` on a terminal and off it: it shows, obeys, and leaves the terminal as it was."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent
# A trace of one attempt that does not end, of a process with a hostile name.
FAKE = f"""
import importlib, sys, time
sys.path.insert(0, {str(TESTS)!r})
from builders import events
from fakelive import FakeLive, Story
from porttrace.cli import main
top = importlib.import_module("porttrace.cli.top")
top.features.require = lambda: None
top.features.compile_flags = lambda: ()
now_ns = time.monotonic_ns()
story = events()
story.connect(pid=7, at=now_ns, comm=b"we\\x1b[2J[b]").syn_sent()
story.connect(pid=8, at=now_ns - 10**9, comm=b"older").syn_sent()
top.LiveTrace = lambda options, *_: FakeLive(options, Story([story.array()]), now_ns)
sys.exit(main(["top", "-i", "100ms", *sys.argv[1:]]))
"""
ON, OFF, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Terminal:
    """A program on a terminal of its own; `seen` is all that it wrote there."""

    def __init__(self, *words: str, term: str = "xterm") -> None:
        self.seen = b""
        self.pid, self._master = pty.fork()
        if not self.pid:
            os.environ["TERM"] = term
            os.environ.pop("COLUMNS", None)
            os.environ.pop("LINES", None)
            os.execv(sys.executable, [sys.executable, "-c", FAKE, *words])
        self.resize(80, 24)
        self.modes = termios.tcgetattr(self._master)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, wanted: bytes, timeout_s: float = 60) -> None:
        """Read until it is there, from now on."""
        since, end_s = len(self.seen), time.monotonic() + timeout_s
        while wanted not in self.seen[since:]:
            left_s = end_s - time.monotonic()
            assert left_s > 0 and self.read(left_s), (wanted, self.seen[since:][-2000:])

    def read(self, timeout_s: float) -> bool:
        """Read what there is; False when nobody writes any more."""
        if not select.select([self._master], [], [], timeout_s)[0]:
            return True
        with contextlib.suppress(OSError):
            self.seen += (got := os.read(self._master, 65536))
            return bool(got)
        return False

    def until_shown(self, *wanted: bytes, timeout_s: float = 60) -> None:
        """Read until a screen has these in this order."""
        end_s = time.monotonic() + timeout_s
        while True:
            self.until(b"uit")
            found = [self.last_screen().find(each) for each in wanted]
            if -1 not in found and found == sorted(found):
                return
            assert time.monotonic() < end_s, (wanted, self.last_screen())

    def last_screen(self) -> bytes:
        return self.seen[self.seen.rindex(b"porttrace top") :]

    def last_screen_lines(self) -> int:
        return self.last_screen().count(b"\n") + 1 if b"porttrace top" in self.seen else 0

    def ended(self) -> int:
        """Read to the end and return the exit status."""
        while self.read(60):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def hang_up(self) -> int:
        os.close(self._master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            os.close(self._master)


@contextlib.contextmanager
def on_terminal(*words: str, **how: Any) -> Iterator[Terminal]:
    terminal = Terminal(*words, **how)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize("end", ["q", "\x03"], ids=["q", "Ctrl-C"])
def test_it_ends_at_once_and_leaves_a_clean_terminal(end: str) -> None:
    with on_terminal() as terminal:
        terminal.until(b"VERDICT")
        terminal.until(b"uit")
        assert ON in terminal.seen
        # while it shows, keys come one at a time and are not echoed
        assert not termios.tcgetattr(terminal._master)[3] & (termios.ICANON | termios.ECHO)
        pressed_s = time.monotonic()
        terminal.press(end)
        assert terminal.ended() == 0
        assert time.monotonic() - pressed_s < 5
        assert terminal.seen.rstrip().endswith((OFF, CURSOR))
        assert OFF in terminal.seen and CURSOR in terminal.seen
        assert b"Traceback" not in terminal.seen
        assert termios.tcgetattr(terminal._master) == terminal.modes


def test_names_and_order() -> None:
    hostile = b"we\\x1b[2J[b]"[:11]  # what is no text is written out, what is markup stays
    with on_terminal() as terminal:
        terminal.until_shown(b"older", hostile)  # the longest wait first
        terminal.press("p")
        terminal.until_shown(hostile, b"older")
        terminal.press("\x1b[A\x1bOPr")  # an arrow is not the letter in it
        terminal.until_shown(b"older", hostile)
        terminal.press("q")
        assert terminal.ended() == 0


def test_a_terminal_that_is_lost_ends_it() -> None:
    with on_terminal() as terminal:
        terminal.until(b"uit")
        assert terminal.hang_up() == 0


def test_it_stands_still_and_goes_on() -> None:
    with on_terminal() as terminal:
        terminal.until(b"uit")
        terminal.press("\x1a")  # Ctrl-Z
        _, status = os.waitpid(terminal.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        terminal.until(OFF)
        assert termios.tcgetattr(terminal._master) == terminal.modes
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.until(ON)
        terminal.until(b"uit")
        terminal.press("q")
        assert terminal.ended() == 0


def test_on_a_terminal_that_can_only_print() -> None:
    with on_terminal("--once", term="dumb") as terminal:
        assert terminal.ended() == 0
        assert b"older" in terminal.seen
        assert b"\x1b" not in terminal.seen


def piped(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", FAKE, *words], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False, timeout=110, env={**os.environ, "FORCE_COLOR": "1"},
    )  # fmt: skip


def test_in_a_pipe_it_prints_tables() -> None:
    done = piped("-d", "500ms")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("porttrace top") >= 2
    assert done.stdout.replace("\n", "").isprintable()
    assert "rich" not in done.stderr


def test_once_and_json() -> None:
    done = piped("--once", "--json", "--sort", "pid")
    (line,) = done.stdout.splitlines()
    value = json.loads(line)
    assert [row["pid"] for row in value["processes"]] == [7, 8]
    assert value["processes"][0]["comm"] == "we\x1b[2J[b]"
    assert value["processes"][1]["in_flight"] == 1
    assert value["processes"][1]["worst_s"] >= 1


def test_rich_is_imported_for_a_screen_only() -> None:
    code = FAKE.replace("sys.exit(main", "code = (main").rstrip().removesuffix(")") + (
        "); print('rich' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--once"], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "False"
