"""Trials in which somebody ends a trace: by a signal, a closed pipe, a terminal that goes away.

Each returns a figure for its line, and raises FaultError; bench/faults.py runs them.
"""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from trialkit import PORTTRACE, Bench, attached, begun, over, require

from porttrace.analysis import load

_LIVE = ((), ("--json",))
_ALL = (*_LIVE, ("record",))
_IN_TIME_S = 2.0  # so long may the end take; tests of a busy machine allow more


@contextlib.contextmanager
def _tracing(
    bench: Bench, commands: tuple[tuple[str, ...], ...], path: Path, out: int, own: bool = False
) -> "Iterator[subprocess.Popen[bytes]]":
    # One of the commands, recording 1,000 connects a second; `out` is a terminal of its `own`.
    command = bench.chance.choice(commands)

    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the trials may run under nohup
        if own:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*PORTTRACE, *command, "-o", str(path), "--", *bench.short(1_000_000, 1000)],
        stdin=out if own else subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        preexec_fn=prepare,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _whole(
    path: Path, process: "subprocess.Popen[bytes]", since_s: float, most_s: float, how: str
) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    took_s, code = time.monotonic() - since_s, process.poll()
    require(code is not None, f"{how}: it goes on")
    found = load(path)
    require(found.complete, f"{how}, exit code {code}: {found.why_incomplete}")
    require(code == 0, f"{how}: exit code {code}")
    require(took_s <= most_s, f"{how}: the end took {took_s:.1f} s")
    return f"{how}: {took_s:.2f} s, {len(found.trace.attempts):,} attempts read"


def _until_it_runs(ours: int) -> None:
    text = b""
    while b"Recording " not in text and b"refused" not in text:
        got = os.read(ours, 1 << 16)
        require(got, f"it ended: {text[-500:]!r}")
        text += got


# -- signals ---------------------------------------------------------------------------------

_SIGNALS = ("INT", "TERM", "HUP", "INT INT", "TERM HUP", "HUP HUP")


def signals(bench: Bench, most_s: float = _IN_TIME_S) -> str:
    """One or two signals at a random moment: the recording is whole."""
    path, which = bench.path(), bench.chance.choice(_SIGNALS)
    ours, its = os.pipe()
    with open(ours, "rb"), _tracing(bench, _ALL, path, its) as process:
        os.close(its)
        _until_it_runs(ours)
        drain = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL)
        time.sleep(bench.chance.uniform(0, 1))
        since_s = time.monotonic()
        for name in which.split():
            process.send_signal(signal.Signals[f"SIG{name}"])
            time.sleep(bench.chance.uniform(0, 0.05))
        told = _whole(path, process, since_s, most_s, which)
        drain.wait(30)
    return told


def double_interrupt(bench: Bench) -> str:
    """Ctrl-C twice in a moment, in a storm: the recording is whole all the same."""
    path, pause_s = bench.path(), bench.chance.choice((0.0, 0.001, 0.02, 0.2))
    with subprocess.Popen(bench.storm(50_000_000)) as target:
        try:
            with begun("record", "-o", str(path), "--pid", str(target.pid)) as process:
                attached(process)
                time.sleep(bench.chance.uniform(0.1, 0.5))
                process.send_signal(signal.SIGINT)
                time.sleep(pause_s)
                process.send_signal(signal.SIGINT)
                target.kill()  # there is a whole CPU again
                over(process, 20)
        finally:
            target.kill()
    found = load(path)
    require(found.complete, found.why_incomplete)
    return f"{pause_s} s apart, {len(found.trace.attempts):,} attempts read"


# -- who hears it goes -----------------------------------------------------------------------


def reader_gone(bench: Bench, most_s: float = _IN_TIME_S) -> str:
    """Who reads our output goes: the trace ends, its recording is whole."""
    ours, its = os.pipe()
    return _gone(bench, ours, its, _LIVE, most_s, "pipe")


def terminal_lost(bench: Bench, most_s: float = _IN_TIME_S) -> str:
    """The terminal goes away (SIGHUP, and EIO for what is written): the recording is whole.

    Where it is not the terminal of its session no signal comes: the error alone has to tell.
    """
    ours, its = pty.openpty()
    if bench.chance.random() < 0.5:
        return _gone(bench, ours, its, _LIVE, most_s, "terminal, no SIGHUP")
    return _gone(bench, ours, its, _ALL, most_s, "terminal", own=True)


def _gone(
    bench: Bench, ours: int, its: int, commands: tuple[tuple[str, ...], ...], most_s: float,
    how: str, own: bool = False,
) -> str:  # fmt: skip
    path = bench.path()
    try:
        with _tracing(bench, commands, path, its, own) as process:
            os.close(its)
            _until_it_runs(ours)
            time.sleep(bench.chance.uniform(0, 0.3))
            since_s = time.monotonic()
            os.close(ours)
            ours = -1
            return _whole(path, process, since_s, most_s, how)
    finally:
        if ours >= 0:
            os.close(ours)


def terminal_resized(bench: Bench) -> str:
    """The terminal is made as narrow as it gets, and wide again, while lines come."""
    path = bench.path()
    ours, its = pty.openpty()
    text, sizes = b"", 0
    with open(ours, "rb"), _tracing(bench, _LIVE, path, its, own=True) as process:
        os.close(its)
        until_s = time.monotonic() + 3
        with contextlib.suppress(OSError):  # EIO: all that had it open are gone
            while data := os.read(ours, 1 << 16):
                text += data
                size = bench.chance.choice((0, 1, 24, 500)), bench.chance.choice((0, 1, 3, 80, 999))
                fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
                sizes += 1
                if time.monotonic() > until_s:
                    process.send_signal(signal.SIGINT)
        code = process.wait(30)
    require(code == 0 and b"Traceback" not in text, text[-2000:])
    require(b"Trust:" in text or b'"trust"' in text, text[-2000:])
    require(load(path).complete, "the recording is not whole")
    return f"{sizes} sizes"


TRIALS: tuple[Callable[..., str], ...] = (
    signals, double_interrupt, reader_gone, terminal_lost, terminal_resized,
)  # fmt: skip
