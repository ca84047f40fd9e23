"""The command line of a throttle: statuses pass through, and mistakes are explained."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from porttrace.lab import run
from porttrace.lab.errors import LabError
from porttrace.lab.throttle import Throttle


def throttled(kind: str, *command: str) -> subprocess.CompletedProcess[str]:
    argv = Throttle(kind).argv(list(command))
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


@pytest.fixture(params=["gate", "preload"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "gate":
        pytest.importorskip("seccomp", reason="python3-seccomp is not installed")
    return str(request.param)


def test_output_and_status_pass_through(kind: str) -> None:
    done = throttled(kind, "sh", "-c", "echo out; exit 3")
    assert (done.stdout, done.returncode) == ("out\n", 3)


def test_a_killed_command_gives_128_and_the_signal(kind: str) -> None:
    assert throttled(kind, "sh", "-c", "kill -9 $$").returncode == 137


def test_a_missing_command_gives_127(kind: str) -> None:
    done = throttled(kind, "no-such-program")
    assert done.returncode == 127
    assert "error: cannot run 'no-such-program': No such file or directory" in done.stderr
    assert "hint: " in done.stderr and "Traceback" not in done.stderr


def test_a_file_that_is_no_program_gives_126(kind: str) -> None:
    assert throttled(kind, os.devnull).returncode == 126


def test_options_behind_the_dashes_are_the_commands(kind: str) -> None:
    done = throttled(
        kind, sys.executable, "-c", "import sys; print(sys.argv)", "--slots", "--", "x"
    )
    assert done.stdout == "['-c', '--slots', '--', 'x']\n"


def test_no_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["gate", "--slots", "1"]) == 2
    assert "there is no command" in capsys.readouterr().err


def test_without_libseccomp_the_hint_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "seccomp", None)
    with pytest.raises(LabError) as caught:
        run.run_throttled(Throttle("gate"), ["true"])
    assert "python3-seccomp" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("moon",), "no throttle named 'moon'"),
        (("preload", 1, "host"), "cannot count by 'host'"),
        (("gate", -1), "cannot have -1 slots"),
        (("egress-hold", 1, "thread"), "cannot count by 'thread'"),
        (("rate", 1, "host", 0.0), "cannot let 0.0 attempts go in a second"),
        (("deny", 1, "host", 1.0, "rudely"), "cannot answer by 'rudely'"),
    ],
)
def test_an_impossible_throttle_is_refused(values: tuple[str], words: str) -> None:
    with pytest.raises(LabError, match=words):
        Throttle(*values)
