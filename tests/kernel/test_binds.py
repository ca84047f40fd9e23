"""Calls of bind(2) and listen(2), each as it was asked for and answered, against their own word."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tracing import PORTTRACE, Traced, read, run

pytestmark = pytest.mark.kernel
WORKLOAD = ["/usr/bin/python3", str(Path(__file__).with_name("binds_workload.py"))]
ASKED = ("call", "protocol", "addr", "port_asked", "port_got", "errno", "backlog")

Row = dict[str, Any]


def traced(command: list[str], *options: str) -> tuple[Traced, list[Row]]:
    """Return a trace of a command that says what it did, and what it said.

    Up to three times, until the kernel left out nothing: on a busy machine it sometimes skips a
    program, which the trace then tells.
    """
    for _ in range(3):
        done = run("--json", *options, "--", *command, timeout_s=240)
        said = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        seen = read(done)
        if not seen.report["trust"]["lost_events"]:
            break
    return seen, said


def in_order(seen: Traced) -> list[Row]:
    """Return the binds in order of time: lines of failed ones wait for who holds the port."""
    return sorted(seen.of("bind"), key=lambda row: int(row["time_ns"]))


def told(row: Row) -> Row:
    """Return what the trace says of a call in the workload's own words."""
    on = sorted(name for name, is_on in row["options"].items() if is_on)
    return {**{name: row[name] for name in ASKED}, "options": on}


@pytest.fixture(scope="module")
def workload() -> tuple[Traced, list[Row]]:
    return traced(WORKLOAD)


def test_every_call_is_told_as_it_was(workload: tuple[Traced, list[Row]]) -> None:
    seen, said = workload
    assert len(said) == 30
    assert {row["errno"] for row in said} >= {0, 98, 22, 99}
    for row, truth in zip(map(told, in_order(seen)), said, strict=True):
        assert row == truth
    assert seen.report["trust"]["complete"]


def test_who_called(workload: tuple[Traced, list[Row]]) -> None:
    for row in workload[0].of("bind"):
        assert (row["comm"], row["uid"], row["container"]) == ("python3", 0, "")
        assert row["pid"] == row["tid"] > 0 and row["netns"] > 0
        assert 0 < row["call_ns"] < row["time_ns"]


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--binds=fixed", lambda row: row["port_asked"] or row["errno"] or row["call"] == "listen"),
        ("--binds=failed", lambda row: row["errno"]),
        ("--no-binds", lambda row: False),
        ("-6", lambda row: ":" in row["addr"]),
        ("--port=80", lambda row: False),
    ],
)
def test_filters(option: str, wanted: Any) -> None:
    seen, said = traced(WORKLOAD, option)
    assert [*map(told, in_order(seen))] == [row for row in said if wanted(row)]


SERVER = """
import socket, sys
given = socket.socket(socket.AF_INET6)
given.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
print("made", flush=True)
sys.stdin.readline()
given.bind(("::1", 0))
given.listen(5)
print(given.getsockname()[1], flush=True)
sys.stdin.readline()
"""


def test_a_socket_older_than_the_trace_is_asked() -> None:
    words = ["/usr/bin/python3", "-c", SERVER]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin and server.stdout
    assert server.stdout.readline() == "made\n"
    trace = subprocess.Popen(
        [*PORTTRACE, "--json", "-p", str(server.pid)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert trace.stderr and "Tracing" in trace.stderr.readline()
    server.stdin.write("go\n")
    server.stdin.flush()
    port = int(server.stdout.readline())
    time.sleep(0.5)
    server.communicate("end\n")
    out, err = trace.communicate(timeout=30)
    rows = read(subprocess.CompletedProcess([], trace.returncode, out, err)).of("bind")
    assert [(row["call"], row["protocol"], row["port_got"]) for row in rows] == [
        ("bind", "tcp", port),
        ("listen", "tcp", port),
    ]
    assert all(row["options"]["reuseaddr"] and not row["options"]["reuseport"] for row in rows)


def test_a_recording_has_the_same(tmp_path: Path) -> None:
    file = str(tmp_path / "binds.ptrace")
    for _ in range(3):  # as in `traced`
        done = run("record", "--force", "-o", file, "--", *WORKLOAD, timeout_s=240)
        assert done.returncode == 0, done.stderr
        if "none lost" in done.stderr:
            break
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    rows = [json.loads(line) for line in run("show", file, "binds", "--json").stdout.splitlines()]
    names = [name for name in ASKED if name != "backlog"]
    assert [[row[name] for name in names] for row in rows] == [
        [row[name] for name in names] for row in said
    ]
    text = run("show", file, "binds", "--outcome", "EADDRINUSE").stdout
    assert text.count("EADDRINUSE") == sum(row["errno"] == 98 for row in said) > 0
