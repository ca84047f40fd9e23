"""The maps of the kernel program cannot leak, and say how full they were."""

import socket
import subprocess
import sys

import numpy as np
import pytest

from porttrace.analysis.assemble import losses_of
from porttrace.lab.site import open_site
from porttrace.tracer import features, perfbuffer
from porttrace.tracer.event import EventType
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.perfbuffer import online_cpus
from porttrace.tracer.probe import ANY_CPU

pytestmark = pytest.mark.kernel


REFUSED = (
    "import socket, sys\n"
    "for _ in range(int(sys.argv[2])):\n"
    "    with socket.socket() as s: s.connect_ex(('127.0.0.1', int(sys.argv[1])))\n"
)


def refused(count: int, port: int) -> None:
    # In a process of its own: a tracer never traces itself.
    subprocess.run([sys.executable, "-c", REFUSED, str(port), str(count)], check=True)


@pytest.fixture
def refusing_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_1200_refused_connects_leave_a_1024_entry_map_empty(refusing_port: int) -> None:
    options = TraceOptions(remote_ports=frozenset((refusing_port,)), max_attempts=1024)
    with LiveTrace(options, features.compile_flags()) as live:
        refused(1200, refusing_port)
        events = live.finish().events
        counters = live.counters()
        left = list(live.probe.entries("attempts"))
        in_flight = list(live.probe.entries("in_flight"))
        calls = list(live.probe.entries("calls"))
    assert (events["type"] == EventType.END).sum() == 1200
    assert left == [] and in_flight == [] and calls == []
    assert counters.attempts_full == 0 and counters.attempts_now == 0
    assert 1 <= counters.attempts_peak <= 8


def test_a_full_map_is_counted_and_pairs_nothing_wrongly() -> None:
    # GIVEN a map of 64 places and 200 sockets in SYN_SENT at once (made by a child)
    code = (
        "import socket, time\n"
        "made = []\n"
        "for _ in range(200):\n"
        "    s = socket.socket(); s.setblocking(False)\n"
        "    s.connect_ex(('192.0.2.66', 9100)); made.append(s)\n"
        "time.sleep(0.3)\n"
        "for s in made: s.close()\n"
    )
    options = TraceOptions(remote_ports=frozenset((9100,)), max_attempts=64)
    with open_site() as site, LiveTrace(options, features.compile_flags()) as live:
        subprocess.run(site.hosts.in_client([sys.executable, "-c", code]), check=True)
        events, counters = live.finish().events, live.counters()
        left = list(live.probe.entries("attempts"))
    starts = events[events["type"] == EventType.START]
    ends = events[events["type"] == EventType.END]
    assert len(starts) == 200
    assert counters.attempts_full + counters.attempts_peak == 200
    assert len(ends) == counters.attempts_peak
    assert left == []
    # every END belongs to a START of the same socket and time
    keys = set(zip(starts["sock"].tolist(), starts["start_ns"].tolist(), strict=True))
    assert set(zip(ends["sock"].tolist(), ends["start_ns"].tolist(), strict=True)) <= keys


def test_threads_that_end_leave_no_entry() -> None:
    code = (
        "import sys, threading, time\n"
        "sys.stdin.read()\n"
        "for _ in range(50):\n"
        "    ts = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(10)]\n"
        "    [t.start() for t in ts]; [t.join() for t in ts]\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    options = TraceOptions(pids=frozenset((child.pid,)))
    with LiveTrace(options, features.compile_flags()) as live:
        assert child.stdin is not None
        child.stdin.close()
        while child.poll() is None:
            live.read()
        live.finish()
        assert list(live.probe.entries("threads")) == []
        assert list(live.probe.entries("targets")) == []


def test_received_and_lost_events_are_exactly_those_that_were_made(refusing_port: int) -> None:
    # GIVEN a buffer of one page per CPU that nobody reads while 500 connects are refused. Only
    # their process is a target: any other on the host may begin or end between two of our counts.
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.stdin.read()\n{REFUSED}",
            str(refusing_port),
            "500",
        ],
        stdin=subprocess.PIPE,
    )
    options = TraceOptions(
        pids=frozenset((child.pid,)), remote_ports=frozenset((refusing_port,)), pages=1
    )
    with LiveTrace(options, features.compile_flags()) as live:
        live._reader.stop()
        child.communicate()
        received = live.probe.read()
        rest, made = live.finish().events, live.counters().events
    read_before = ~np.isin(rest["type"], (EventType.LOSS, EventType.WATCH))  # those are ours
    losses = losses_of(rest)
    full = [loss for loss in losses if loss.cpu != ANY_CPU]
    passed_over = sum(loss.count for loss in losses if loss.cpu == ANY_CPU)
    assert child.returncode == 0 and 0 < len(received) < 100
    # What the kernel passed over (tracer/misses.py) is lost as well, but was never made.
    assert read_before.sum() + len(received) + sum(loss.count for loss in full) == made
    assert made + passed_over >= 1500  # START, END and RETURN of each
    assert all(loss.first_ns < loss.last_ns for loss in full)


@pytest.mark.skipif(len(online_cpus()) < 2, reason="it takes two CPUs")
def test_what_happens_on_a_cpu_that_came_later_is_told_as_its_loss(
    refusing_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a trace that began when there was only one CPU, and a process on another one
    first, *_, last = online_cpus()
    monkeypatch.setattr(perfbuffer, "online_cpus", lambda: [first])
    program = f"import os, sys\nos.sched_setaffinity(0, {{{last}}})\nsys.stdin.read()\n{REFUSED}"
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(refusing_port), "50"], stdin=subprocess.PIPE
    )
    options = TraceOptions(pids=frozenset((child.pid,)), remote_ports=frozenset((refusing_port,)))
    with LiveTrace(options, features.compile_flags()) as live:
        # WHEN it connects
        child.communicate()
        events, made = live.finish().events, live.counters().events
    # THEN all of it is told as lost, on that CPU
    assert child.returncode == 0
    losses = [loss for loss in losses_of(events) if loss.cpu != ANY_CPU]
    received = (~np.isin(events["type"], (EventType.LOSS, EventType.WATCH))).sum()
    assert {loss.cpu for loss in losses} == {last}
    assert received + sum(loss.count for loss in losses) == made >= 100


def test_an_end_that_was_missed_is_not_taken_from_another_socket(refusing_port: int) -> None:
    # GIVEN attempts of a target that are over, of which the kernel program was not told
    program = (
        f"import os, socket, sys\nos.sched_setaffinity(0, {{{online_cpus()[0]}}})\n"
        "sys.stdin.read()\nmade = [socket.socket() for _ in range(int(sys.argv[2]))]\n"
        "for s in made: s.connect_ex(('127.0.0.1', int(sys.argv[1])))\n"
    )
    words = [sys.executable, "-c", program, str(refusing_port)]
    child = subprocess.Popen([*words, "200"], stdin=subprocess.PIPE)
    other = subprocess.Popen([*words, "900"], stdin=subprocess.PIPE)
    options = TraceOptions(pids=frozenset((child.pid,)), remote_ports=frozenset((refusing_port,)))
    with LiveTrace(options, features.compile_flags()) as live:
        live._reader.stop()
        child.communicate()
        ends = live.probe.read()
        socks = set(ends["sock"][ends["type"] == EventType.END].tolist())
        table = live.probe._bpf["attempts"]
        for sock in socks:
            missed = table.Leaf()
            missed.start_ns, missed.pid = 1, child.pid
            table[table.Key(sock)] = missed
        # WHEN somebody who is not traced has sockets at the same addresses
        other.communicate()
        events = live.probe.read()
        left = {key.value for key, _ in live.probe.entries("attempts")}
    # THEN what happens to those is not told as the end of these
    assert socks and left < socks, "no address was used again"
    assert not (events["type"] == EventType.END).any()
