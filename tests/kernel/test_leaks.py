"""The maps of the kernel program cannot leak, and say how full they were."""

import errno
import socket
import threading

import pytest

from porttrace.tracer import features
from porttrace.tracer.event import EventType
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.options import TraceOptions

pytestmark = pytest.mark.kernel


def refused(count: int, port: int) -> None:
    for _ in range(count):
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@pytest.fixture
def refusing_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_1200_refused_connects_leave_a_1024_entry_map_empty(refusing_port: int) -> None:
    # Another process connects: a tracer never traces itself.
    import subprocess
    import sys

    code = (
        "import socket, sys\n"
        "for _ in range(1200):\n"
        "    with socket.socket() as s: s.connect_ex(('127.0.0.1', int(sys.argv[1])))\n"
    )
    options = TraceOptions(remote_ports=frozenset((refusing_port,)), max_attempts=1024)
    with LiveTrace(options, features.compile_flags()) as live:
        subprocess.run([sys.executable, "-c", code, str(refusing_port)], check=True)
        events = live.finish().events
        counters = live.counters()
        left = list(live.probe.entries("attempts"))
        in_flight = list(live.probe.entries("in_flight"))
        calls = list(live.probe.entries("calls"))
    assert (events["type"] == EventType.END).sum() == 1200
    assert left == [] and in_flight == [] and calls == []
    assert counters.attempts_full == 0 and counters.attempts_now == 0
    assert 1 <= counters.attempts_peak <= 8


def test_a_full_map_is_counted_and_pairs_nothing_wrongly(refusing_port: int) -> None:
    # GIVEN a map of 64 places and 200 sockets in SYN_SENT at once (made by a child)
    import subprocess
    import sys

    from porttrace.lab.site import open_site

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
    import subprocess
    import sys

    code = (
        "import threading, time\n"
        "time.sleep(0.7)\n"
        "for _ in range(50):\n"
        "    ts = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(10)]\n"
        "    [t.start() for t in ts]; [t.join() for t in ts]\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    options = TraceOptions(pids=frozenset((child.pid,)))
    with LiveTrace(options, features.compile_flags()) as live:
        while child.poll() is None:
            live.read()
        live.finish()
        assert list(live.probe.entries("threads")) == []
        assert list(live.probe.entries("targets")) == []
    assert threading.active_count() >= 1
