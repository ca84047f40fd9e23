"""The live trace ends as it should, says what waits, and announces each finding once."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from builders import S, events, packed
from fakelive import FakeLive, Story
from porttrace.analysis import load
from porttrace.analysis.model import Attempts, Binds, Finding, Trace
from porttrace.cli import main
from porttrace.cli.session import Session
from porttrace.tracer import processes
from porttrace.tracer.facts import Held
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.output import Output, OutputError

# by name, since the package may hold the command under the module's name
module = importlib.import_module("porttrace.cli.live")


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeLive]]:
    """Live traces that were begun, each of a story with one finished attempt."""
    begun: list[FakeLive] = []

    def begin(options: TraceOptions, available: tuple[str, ...], *_: object) -> FakeLive:
        table = events().connect(at=2 * S, comm=b"we\x1bb").syn_sent().established().array()
        begun.append(FakeLive(options, Story([table]), start_ns=S))
        return begun[-1]

    monkeypatch.setattr(module.features, "require", lambda: None)
    monkeypatch.setattr(module.features, "compile_flags", lambda: ())
    monkeypatch.setattr(module, "LiveTrace", begin)
    yield begun
    assert all(live.closed for live in begun)


def test_a_trace_of_some_time(lives: list[FakeLive], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-d", "30ms"]) == 0
    out, err = capsys.readouterr()
    said, note = err.splitlines()
    assert said == "Tracing all processes. It ends after 0.03 s or by Ctrl-C with a summary."
    assert note.startswith("note: without a target, holds before the kernel's connect")
    assert out.count("192.0.2.2:80") == 1
    assert "we\\x1bb" in out
    assert "Nothing wrong found in 1 attempt" in out
    assert lives[0].options == TraceOptions()


def test_json_ends_with_the_report(
    lives: list[FakeLive], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--json", "-d", "30ms", "-P", "80"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["type"] for each in objects] == ["attempt", "report"]
    assert objects[1]["trace"]["filter"] == "remote port 80"


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_a_commands_status_is_passed_on(
    lives: list[FakeLive], capfd: pytest.CaptureFixture[str], script: str, status: int
) -> None:
    assert main(["--json", "--", "sh", "-c", f"echo hello; {script}"]) == status
    out, err = capfd.readouterr()
    assert "hello" in err
    assert [json.loads(line)["type"] for line in out.splitlines()][-1] == "report"
    (live,) = lives
    assert live.options.follow_children
    assert f"(pid {min(live.options.pids)}) and its children" in err


def test_a_command_that_is_not_there(
    lives: list[FakeLive], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert main(["--", "no-such-command-here"]) == 127
    assert "error: cannot run 'no-such-command-here'" in capsys.readouterr().err


def test_the_command_ends_with_the_trace(lives: list[FakeLive]) -> None:
    begin = time.monotonic()
    assert main(["-d", "30ms", "--", "sleep", "60"]) == 0
    assert time.monotonic() - begin < 5
    assert not processes.exists(min(lives[0].options.pids))


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_a_summary(
    lives: list[FakeLive], capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    def send() -> None:
        while not lives or lives[0].reads < 3:
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=send)
    thread.start()
    assert main(["-d", "10s"]) == 0
    thread.join()
    assert "Trust: " in capsys.readouterr().out
    assert signal.getsignal(number) == before


def test_it_ends_with_the_last_target(lives: list[FakeLive]) -> None:
    target = subprocess.Popen(["sleep", "0.05"])
    begin = time.monotonic()
    assert main(["-d", "10s", "-p", str(target.pid)]) == 0
    assert time.monotonic() - begin < 5
    target.wait()


def test_a_target_that_is_not_there(
    lives: list[FakeLive], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-p", str(2**22 + 1)]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: there is no process 4194305"
    assert second.startswith("hint: ")
    assert not lives


def test_a_thread_as_a_target(lives: list[FakeLive], capsys: pytest.CaptureFixture[str]) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert main(["-p", str(thread.native_id)]) == 1
    finally:
        stop.set()
        thread.join()
    assert f"use --pid {os.getpid()}" in capsys.readouterr().err


def test_a_command_does_not_outlive_a_trace_that_cannot_begin(
    lives: list[FakeLive], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LiveTrace", lambda *_: 1 // 0)
    assert main(["--", sys.executable, "-c", "print('ran')"]) == 1
    assert capsys.readouterr().out == ""


# -- the loop


class Told:
    """A printer that remembers."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, float]] = []
        self.findings: list[tuple[str, float]] = []
        self.withdrawn_rules: list[str] = []

    def begin(self, note: str) -> None: ...
    def attempts(self, rows: Attempts) -> None: ...
    def binds(self, rows: Binds, looked: object) -> None: ...
    def end(self, trace: Trace, findings: Sequence[Finding]) -> None: ...

    def pending(self, rows: Attempts, now_ns: int, stacks: object) -> None:
        self.waiting += [(int(row["tid"]), now_ns / S) for row in rows]

    def finding(self, finding: Finding) -> None:
        self.findings.append((finding.scope, finding.confidence))

    def withdrawn(self, finding: Finding) -> None:
        self.withdrawn_rules.append(finding.rule)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time that the loop and its session see."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "monotonic_ns", lambda: int(now[0] * S))
    return lambda seconds: now.__setitem__(0, seconds)


def loop_of(story: Story) -> tuple[Any, Told, FakeLive]:
    live, told = FakeLive(TraceOptions(), story), Told()
    return module._Loop(Session(cast(LiveTrace, live)), told), told, live


def test_what_waits_is_shown_when_it_crosses_a_step(clock: Callable[[float], None]) -> None:
    waits = events().connect(tid=8, at=10 * S).syn_sent().in_progress()
    loop, told, live = loop_of(Story([waits.array()]))
    for tenth in range(100, 450):
        clock(tenth / 10)
        loop.turn(live)
    assert [round(at) for _, at in told.waiting] == [11, 13, 20, 40]


def test_a_held_attempt_is_not_shown_anew_when_it_moves_on(
    clock: Callable[[float], None],
) -> None:
    held = Held(7, 8, "gate", 10 * S, "web", packed("192.0.2.2"), 80, ())
    loop, told, live = loop_of(Story(held=[held]))
    for tenth in range(100, 125):
        clock(tenth / 10)
        loop.turn(live)
    assert len(told.waiting) == 1
    live.story.held = []
    live._left = [
        events().connect(tid=8, at=125 * S // 10, held_ns=25 * S // 10).syn_sent().array()
    ]
    for tenth in range(125, 155):
        clock(tenth / 10)
        loop.turn(live)
    assert [round(at) for _, at in told.waiting] == [11, 13]


def test_each_finding_is_announced_once_and_again_when_it_is_firm(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    likely = Finding("serialized-connects", "critical", 0.6, {"pid": 7}, "x", scope="process")
    other = replace(likely, scope="host", confidence=0.9)
    firm = replace(likely, confidence=0.85)
    found = [likely, likely, other, firm, replace(firm, confidence=0.7), firm]
    loop, told, live = loop_of(Story())
    monkeypatch.setattr(loop._session, "diagnose", lambda: (found.pop(0),) if found else ())
    for second in range(20):
        clock(10 + 2 * second)
        loop.turn(live)
    assert told.findings == [("process", 0.6), ("host", 0.9), ("process", 0.85)]


def test_what_no_longer_holds_is_taken_back(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    likely = Finding("sequential-connects", "info", 0.6, {"pid": 7}, "x", scope="process")
    other = replace(likely, rule="paced-connects")
    rounds = [(likely,), (), (likely,), (), (), (other,), ()]
    loop, told, live = loop_of(Story())
    monkeypatch.setattr(loop._session, "diagnose", lambda: rounds.pop(0) if rounds else (other,))
    for second in range(3):
        clock(10 + 2 * second)
        loop.turn(live)
    assert told.withdrawn_rules == []  # it was away for one round only
    for second in range(3, 10):
        clock(10 + 2 * second)
        loop.turn(live)
    assert told.withdrawn_rules == ["sequential-connects"]
    loop.last_turn(live)  # in whose trace there is nothing
    assert told.withdrawn_rules == ["sequential-connects", "paced-connects"]


# -- recording beside it


def test_it_is_recorded_too(
    lives: list[FakeLive], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ptrace"
    assert main(["--json", "-d", "60ms", "-o", str(path)]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = load(path)
    assert found.complete
    assert report["attempts"]["total"] == len(found.trace.attempts) == 1
    assert report["trust"]["events"] == found.trace.events


def test_recorded_where_something_is(
    lives: list[FakeLive], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(b"old")
    assert main(["-d", "60ms", "-o", str(path)]) == 1
    assert "--force" in capsys.readouterr().err and not lives
    assert main(["-d", "60ms", "-o", str(path), "--force"]) == 0
    assert load(path).complete


def test_standard_output_is_taken(
    lives: list[FakeLive], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-d", "60ms", "-o", "-"]) == 2
    assert "record -o -" in capsys.readouterr().err


def test_a_disk_that_fails_does_not_take_the_summary(
    lives: list[FakeLive],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise OutputError("cannot write it: No space left on device", "free some space")

    monkeypatch.setattr(Output, "write", fails)
    assert main(["-d", "60ms", "-o", str(tmp_path / "a")]) == 1
    out, err = capsys.readouterr()
    assert "Trust: " in out
    assert "error: cannot write it: No space left on device\nhint: free some space" in err
