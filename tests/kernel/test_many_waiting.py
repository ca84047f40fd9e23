"""Hundreds of threads that wait inside the kernel do not use up what returns are seen by."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from porttrace.lab.site import Site, open_site
from porttrace.tracer.hooks import MODES
from porttrace.tracer.modes import why_not
from tracing import run, trace

pytestmark = pytest.mark.kernel
THREADS, WAIT_S = 500, 10
BLOCKED = """
import socket, sys, threading
def one():
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO,
                        int({wait}).to_bytes(8, "little") + bytes(8))
        assert sock.connect_ex(("192.0.2.66", 9100)) == 115
threads = [threading.Thread(target=one) for _ in range({threads})]
for each in threads: each.start()
for each in threads: each.join()
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.mark.parametrize("mode", MODES)
def test_no_return_of_a_blocked_connect_is_missed(site: Site, mode: str) -> None:
    if why_not(mode):
        return  # test_modes.py shows that it is refused
    # GIVEN 500 threads that stand in connect(2) for 10 s, and then give up
    code = BLOCKED.format(wait=WAIT_S, threads=THREADS)
    command = site.hosts.in_client(["/usr/bin/python3", "-c", code])
    traced = trace(command, "--mode", mode, timeout_s=200)
    # THEN each has its return, in order, and none was missed
    assert traced.code == 0, traced.notes
    assert len(traced.attempts) == THREADS
    for row in traced.attempts:
        assert row["return_ns"] - row["syn_ns"] >= (WAIT_S - 1) * 1e9, row
        if mode != "tracepoint":
            assert row["call_ns"] <= row["kernel_ns"] <= row["syn_ns"] <= row["kernel_return_ns"]
    assert not [note for note in traced.notes.splitlines() if "were not seen" in note]
    assert traced.is_trusted(), traced.report["trust"]


@pytest.mark.parametrize("mode", MODES)
def test_no_return_of_a_blocked_accept_is_missed(mode: str, tmp_path: Path) -> None:
    if why_not(mode):
        return
    # GIVEN many threads that wait in accept(2), more than a kretprobe has places by itself
    path = str(tmp_path / "accepts.ptrace")
    code = ACCEPTORS.format(threads=THREADS)
    done = run("record", "-o", path, "--mode", mode, "--", "/usr/bin/python3", "-c", code,
               timeout_s=200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    # WHEN each has got a connection
    shown = run("show", path, "accepts", "--json")
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    # THEN each accept was seen, with its peer and when the connection was there
    if mode == "tracepoint":
        assert rows == [] and "does not see accept(2)" in shown.stderr
        return
    assert len(rows) == len({row["peer"] for row in rows}) == THREADS
    assert len({row["listener"] for row in rows}) == 1
    for row in rows:
        assert 0 <= row["queued_ns"] <= row["waited_ns"], row
    assert "were not seen" not in run("report", path).stdout


ACCEPTORS = """
import socket, threading, time
server = socket.create_server(("127.0.0.1", 0), backlog={threads})
threads = [threading.Thread(target=server.accept) for _ in range({threads})]
for each in threads: each.start()
time.sleep(2)
kept = [socket.create_connection(server.getsockname()) for _ in threads]
for each in threads: each.join()
"""
