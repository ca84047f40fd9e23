"""`record` writes what a live trace gives, looks now and then, and ends as it should."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from builders import MS, S, events
from fakelive import FakeLive, Story
from porttrace.analysis import load
from porttrace.cli import main
from porttrace.tracer.event import Events
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.parts import Rotation
from recordings import HELD

# by name, since the package may hold the command under the module's name
module = importlib.import_module("porttrace.cli.record")


def table() -> Events:
    story = events()
    story.connect(pid=7, tid=8, at=3 * S, held_ns=S).syn_sent().established()
    story.connect(pid=6, tid=6, at=4 * S).syn_sent().refused()
    return story.array()


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeLive]]:
    """Live traces that were begun, each of a story with two attempts and a held thread."""
    begun: list[FakeLive] = []

    def begin(options: TraceOptions, available: tuple[str, ...], *_: object) -> FakeLive:
        begun.append(FakeLive(options, Story([table()], held=[HELD]), start_ns=S))
        return begun[-1]

    monkeypatch.setattr(module.features, "require", lambda: None)
    monkeypatch.setattr(module.features, "compile_flags", lambda: ())
    monkeypatch.setattr(module, "LiveTrace", begin)
    yield begun
    assert all(live.closed for live in begun)


def test_what_is_recorded(
    lives: list[FakeLive], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ptrace"
    assert main(["record", "-o", str(path), "-d", "50ms", "-P", "80"]) == 0
    out, err = capsys.readouterr()
    first, last = err.splitlines()
    assert out == ""
    assert first == "Recording remote port 80. It ends after 0.05 s or by Ctrl-C."
    assert last.startswith(f"Recorded {len(table())} events (none lost) in ")
    assert last.endswith(f" MB in {path}")
    found = load(path)
    assert found.complete and found.header.filter == "remote port 80"
    assert found.events.tobytes() == table().tobytes()
    # the held thread, and the two attempts
    assert sorted(found.trace.attempts["pid"].tolist()) == [6, 7, 9]
    # who was held, and who is held now, was looked into
    assert set(found.trace.suspects) == {7, 9}
    assert sorted(lives[0].asked) == [7, 9]


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_a_commands_status_is_passed_on(
    lives: list[FakeLive], tmp_path: Path, script: str, status: int
) -> None:
    path = tmp_path / "a.ptrace"
    assert main(["record", "-o", str(path), "--", "sh", "-c", script]) == status
    assert load(path).complete


def test_standard_output_is_the_recording(
    lives: list[FakeLive], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "a"
    with path.open("wb") as handle:
        keep = os.dup(1)
        os.dup2(handle.fileno(), 1)
        try:
            assert main(["record", "-o", "-", "--", "echo", "hello"]) == 0
        finally:
            os.dup2(keep, 1)
            os.close(keep)
    assert load(path).events.tobytes() == table().tobytes()
    assert "hello" in capfd.readouterr().err


def test_parts(lives: list[FakeLive], tmp_path: Path) -> None:
    arguments = ["--rotate", "1K", "--keep", "2", "-d", "300ms"]
    assert main(["record", "-o", str(tmp_path / "a.ptrace"), *arguments]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names and names[0].startswith("a-000")
    assert all(load(tmp_path / name).complete for name in names)


def test_nothing_is_overwritten_and_nothing_begun(
    lives: list[FakeLive], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    assert main(["record", "-o", str(path), "-d", "1"]) == 1
    assert "--force" in capsys.readouterr().err
    assert not lives and path.read_bytes() == b"old"
    assert main(["record", "-o", str(path), "-d", "50ms", "--force"]) == 0
    assert load(path).complete


def test_a_trace_that_cannot_begin_leaves_no_file(
    lives: list[FakeLive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LiveTrace", lambda *_: 1 // 0)
    assert main(["record", "-o", str(tmp_path / "a"), "-d", "1"]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-o", "x", "--keep", "3"],
        ["-o", "-", "--rotate", "1M"],
        ["-o", "x", "--rotate", "100"],
        ["-o", "x", "--rotate", "0M"],
        ["-o", "x", "--rotate", "1..5m"],
        ["-o", "x", "--rotate", "1ms"],
    ],
)
def test_wrong_usage(
    lives: list[FakeLive], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", *arguments]) == 2
    assert "Usage: porttrace record" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "rotation"),
    [
        ("100K", Rotation(size=102_400)),
        ("2G", Rotation(size=2 << 30)),
        ("10m", Rotation(seconds=600)),
        ("1.5h", Rotation(seconds=5400)),
    ],
)
def test_sizes_and_times(text: str, rotation: Rotation) -> None:
    assert module.Rotate().convert(text, None, click.Context(module.record)) == rotation


def test_who_was_held_before_the_call() -> None:
    story = events()
    story.connect(pid=1, at=5 * S, held_ns=S).syn_sent()
    story.connect(pid=2, at=5 * S, held_ns=9 * MS).syn_sent()
    story.connect(pid=3, at=5 * S, slept_ns=S).syn_sent()
    story.without_call(pid=4, at=5 * S).syn_sent()
    assert module.held_pids(story.array()) == {1, 3}


def test_recording_does_without_pandas() -> None:
    code = "import sys, porttrace.cli.record; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
