"""Runs porttrace as a user would, and reads what it printed: for tests with a real kernel."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PORTTRACE = [sys.executable, "-m", "porttrace.cli"]


@dataclass(frozen=True)
class Traced:
    """One run of porttrace: exit code, the objects it printed, its notes."""

    code: int
    objects: list[dict[str, Any]]
    notes: str = field(repr=False)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the objects of one type: attempt, pending, finding, report."""
        return [each for each in self.objects if each["type"] == kind]

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return self.of("attempt")

    @property
    def report(self) -> dict[str, Any]:
        """The report, which must be the last line and the only one."""
        assert self.objects and self.objects[-1]["type"] == "report", self.notes
        assert len(self.of("report")) == 1
        return self.objects[-1]

    def is_trusted(self) -> bool:
        """Tell whether nothing was lost.

        An interrupt may come in the middle of a program, and the kernel then leaves out those at
        the interrupt. On a busy machine, or an emulated one, a few are all right.
        """
        trust = self.report["trust"]
        few = 0 < trust["lost_events"] <= trust["events"] // 50 and not trust["attempts_unknown"]
        complete: bool = trust["complete"]
        return complete or few

    def findings(self, rule: str) -> list[dict[str, Any]]:
        """Return the findings of the final report that `rule` made."""
        return [each for each in self.report["findings"] if each["rule"] == rule]


def run(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run porttrace with these arguments and return what it printed."""
    return subprocess.run(
        [*PORTTRACE, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def trace(command: Sequence[str], *options: str, timeout_s: float = 60) -> Traced:
    """Trace a command from its first connect to its end."""
    return read(run("--json", *options, "--", *command, timeout_s=timeout_s))


def trace_whole(command: Sequence[str], *options: str, timeout_s: float = 60) -> Traced:
    """Trace as `trace` does, up to three times, until the kernel left out next to nothing.

    For tests of what a table holds, not of what is lost: an emulated processor takes most of
    its interrupts in the middle of a program.
    """
    for _ in range(3):
        traced = trace(command, *options, timeout_s=timeout_s)
        if traced.code or traced.is_trusted():
            break
    return traced


def read(done: "subprocess.CompletedProcess[str]") -> Traced:
    """Return what a run of porttrace --json printed; no traceback may be in it."""
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert "Traceback" not in done.stderr, done.stderr
    return Traced(done.returncode, objects, done.stderr)


def need_an_open_checkout() -> None:
    """Skip a test that runs this checkout as another user where he cannot get into it."""
    path = Path(sys.executable).parent
    closed = [each for each in (path, *path.parents) if not each.stat().st_mode & 0o001]
    if closed:
        pytest.skip(f"{closed[-1]} is closed to other users")


class Running:
    """porttrace in the background; `finish` ends it and returns what it printed.

    `before` are the words that it is run by, such as those of unshare.
    """

    def __init__(self, *options: str, before: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*before, *PORTTRACE, "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.pid = self._process.pid
        assert self._process.stderr is not None
        self._first_note = self._process.stderr.readline()  # "Tracing ...": attached

    def finish(self, number: int = signal.SIGINT, timeout_s: float = 20) -> Traced:
        """Send a signal (0: none), wait for the end, and read the output."""
        if number:
            self._process.send_signal(number)
        out, err = self._process.communicate(timeout=timeout_s)
        done = subprocess.CompletedProcess(
            [], self._process.returncode, out, self._first_note + err
        )
        return read(done)

    def kill(self) -> None:
        """End it as the kernel would."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def running(*options: str, before: Sequence[str] = ()) -> Iterator[Running]:
    """Trace in the background; ends whatever happens."""
    process = Running(*options, before=before)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process._process.wait()
        for stream in (process._process.stdout, process._process.stderr):
            if stream:
                stream.close()


def wait_until(true: Any, timeout_s: float = 10) -> None:
    """Wait until `true()` holds."""
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
