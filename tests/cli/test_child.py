"""A command waits for its release, and its end is passed on as a shell would."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from porttrace.cli.child import Child
from porttrace.tracer.errors import TargetError


def finished(child: Child) -> int:
    deadline = time.monotonic() + 10
    while not child.ended():
        assert time.monotonic() < deadline, "the command does not end"
        time.sleep(0.002)
    assert child.status is not None
    return child.status


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


def test_nothing_runs_before_the_release(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    child = Child(["touch", str(mark)])
    time.sleep(0.02)
    assert not child.ended()
    assert not mark.exists()
    child.release()
    assert finished(child) == 0
    assert mark.exists()


def test_the_pid_is_that_of_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(["sh", "-c", "echo $$"])
    child.release()
    assert finished(child) == 0
    assert capfd.readouterr().out == f"{child.pid}\n"


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 5", 5),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ],
)
def test_exit_statuses(script: str, status: int) -> None:
    child = Child(["sh", "-c", script])
    child.release()
    assert finished(child) == status
    assert child.ended()


def test_the_environment_is_passed_on() -> None:
    child = Child(["sh", "-c", "exit $WANTED"], {"WANTED": "9", "PATH": os.environ["PATH"]})
    child.release()
    assert finished(child) == 9


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [("no-such-command-here", 127, "No such file"), ("/etc/passwd", 126, "Permission denied")],
)
def test_what_cannot_be_run(name: str, status: int, reason: str) -> None:
    child = Child([name, "argument"], {"PATH": "/usr/bin:/bin"})
    with pytest.raises(TargetError, match=f"cannot run '{name}': {reason}") as raised:
        child.release()
    assert raised.value.exit_code == status
    assert "-- COMMAND" in raised.value.hint
    assert child.ended()
    assert child.status == status
    child.give_up()


def test_an_argument_that_no_program_can_have() -> None:
    child = Child(["true", "nul\0byte"])
    child.release()
    assert finished(child) == 127


def test_giving_up_runs_nothing(tmp_path: Path) -> None:
    child = Child(["touch", str(tmp_path / "ran")])
    child.give_up()
    assert child.status == 0
    assert not (tmp_path / "ran").exists()
    child.give_up()


def test_giving_up_too_late_does_nothing() -> None:
    child = Child(["sleep", "60"])
    child.release()
    child.give_up()
    assert not child.ended()
    child.send(signal.SIGTERM)
    assert finished(child) == 143


def test_a_signal_after_the_end_is_no_error() -> None:
    child = Child(["true"])
    child.release()
    assert finished(child) == 0
    child.send(signal.SIGTERM)


def test_a_command_killed_before_its_release() -> None:
    child = Child(["true"])
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.release()
    assert finished(child) == 137


@pytest.mark.parametrize("to_stderr", [True, False])
def test_where_its_output_goes(capfd: pytest.CaptureFixture[str], to_stderr: bool) -> None:
    child = Child(["sh", "-c", "echo data; echo note >&2"], output_to_stderr=to_stderr)
    child.release()
    assert finished(child) == 0
    expected = ("", "data\nnote\n") if to_stderr else ("data\n", "note\n")
    assert capfd.readouterr() == expected


def test_a_closed_pipe_kills_it_as_it_would_from_a_shell() -> None:
    # Python ignores SIGPIPE, and what is ignored stays so through exec
    child = Child(["sh", "-c", "kill -PIPE $$; exit 3"])
    child.release()
    assert finished(child) == 128 + signal.SIGPIPE
