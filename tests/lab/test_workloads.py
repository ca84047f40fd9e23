"""The workloads tell the truth about themselves: checked over loopback, without any throttle."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from porttrace.lab.workloads import controls, habits, storm, truth, two_threads
from porttrace.lab.workloads.truth import Destination


@pytest.fixture
def live() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refused() -> Iterator[str]:
    with socket.socket() as bound:  # bound but not listening: nobody else can take the port
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_an_attempt_has_its_true_times_and_result(live: str, refused: str) -> None:
    attempt, sock = truth.connect(Destination.parse(live), 1)
    assert attempt.result == "connected" and sock is not None
    assert 0 < attempt.end_ns - attempt.start_ns < 1_000_000_000
    truth.drop(sock)
    attempt, sock = truth.connect(Destination.parse(refused), 1)
    assert (attempt.result, sock) == ("ECONNREFUSED", None)


def test_a_nonblocking_attempt_learns_its_outcome(live: str, refused: str) -> None:
    assert truth.start_connect(Destination.parse(live), 1)().result == "connected"
    assert truth.start_connect(Destination.parse(refused), 1)().result == "ECONNREFUSED"


@pytest.mark.parametrize("text", ["192.0.2.2:80", "[2001:db8::2]:80"])
def test_a_destination_is_written_as_it_is_read(text: str) -> None:
    assert str(Destination.parse(text)) == text


def test_a_destination_without_port_is_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="ADDRESS:PORT"):
        Destination.parse("192.0.2.2")


def test_two_threads_report_two_attempts(
    live: str, refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert two_threads.main(["--dead", refused, "--live", live, "--delay", "0"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["thread"]: row["result"] for row in rows} == {
        "dead": "ECONNREFUSED",
        "live": "connected",
    }


def test_with_a_truth_file_people_get_words(
    live: str, refused: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "truth"
    arguments = ["--dead", refused, "--live", live, "--delay", "0", "--truth", str(path)]
    two_threads.main(arguments)
    assert "live: connect to 127.0.0.1:" in capsys.readouterr().out
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("mode", ["sequential", "lock", "burst"])
def test_controls_make_the_attempts_asked_for(
    mode: str, live: str, refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    amount = ["--threads", "4", "--connects", "2", "--dead-time", "0.1"]
    controls.main([mode, "--live", live, "--dead", refused, *amount])
    assert len(capsys.readouterr().out.splitlines()) == 8


@pytest.mark.parametrize(
    ("mode", "attempts"), [("dead-together", 8), ("pool", 8), ("asyncio", 8), ("steady", 8)]
)
def test_habits_make_the_attempts_asked_for(
    mode: str, attempts: int, live: str, refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    amount = ["--threads", "4", "--connects", "2", "--dead-time", "0.1", "--pause", "0.01"]
    habits.main([mode, "--live", live, "--dead", refused, *amount])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == attempts
    results = {row["result"] for row in rows}
    assert results <= {"connected", "ECONNREFUSED"} and ("dead" in mode) <= (
        "connected" not in results
    )


def test_an_attempt_tells_its_process_and_port(live: str) -> None:
    attempt, sock = truth.connect(Destination.parse(live), 1)
    assert sock is not None
    assert (attempt.pid, attempt.uid) == (os.getpid(), os.getuid())
    assert attempt.sport == sock.getsockname()[1]
    truth.drop(sock)


def test_more_threads_of_the_seed_case(
    live: str, refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--delay", "0", "--dead-threads", "2", "--live-threads", "3"]
    two_threads.main(["--dead", refused, "--live", live, *more])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(row["thread"] for row in rows) == ["dead", "dead-1", "live", "live-1", "live-2"]


def test_a_storm_of_processes_shares_one_file(live: str, refused: str, tmp_path: Path) -> None:
    path = tmp_path / "truth"
    amount = ["--processes", "3", "--threads", "4", "--connects", "5", "--pause", "0"]
    ends = ["--live", live, "--dead", refused, "--dead-share", "1", "--dead-processes", "1"]
    # A process of its own: a fork of pytest's would warn about its threads.
    words = [sys.executable, "-m", "porttrace.lab.workloads.storm", *ends, *amount]
    subprocess.run([*words, "--truth", str(path)], check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 60 and len({row["pid"] for row in rows}) == 3
    assert len({row["pid"] for row in rows if row["result"] == "ECONNREFUSED"}) == 1


def test_a_storm_is_repeatable(live: str, refused: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--threads", "2", "--connects", "10", "--pause", "0", "--seed", "7"]

    def results() -> list[str]:
        storm.main(["--live", live, "--dead", refused, *options])
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return sorted(row["thread"] + row["result"] for row in rows)

    first = results()
    assert first == results()
    assert {"storm-0connected", "storm-1ECONNREFUSED"} <= set(first)
