"""What is held is shown while it is held, and by what: gate, connect, and seeds."""

import re
import subprocess
import sys
import time

import numpy as np
import pytest

from porttrace.lab.site import DEAD, LIVE, open_site
from porttrace.lab.throttle import Throttle
from porttrace.tracer import features, sockets
from porttrace.tracer.event import EventType
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.options import TraceOptions
from tracing import Traced, running, trace, wait_until

pytestmark = pytest.mark.kernel

# connect(2) on an address in a page that nobody fills for a second: userfaultfd holds
# the caller inside the call, before SYN_SENT.
HELD_IN_CONNECT = r"""
import ctypes, fcntl, mmap, os, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
uffd = libc.syscall(323, os.O_CLOEXEC)
fcntl.ioctl(uffd, 0xC018AA3F, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
page = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
fcntl.ioctl(uffd, 0xC020AA00, bytearray(struct.pack("QQQQ", address, 4096, 1, 0)))
source = mmap.mmap(-1, 4096)
source[:16] = struct.pack("=HH4s8x", 2, socket.htons(80), socket.inet_aton("192.0.2.2"))
origin = ctypes.addressof(ctypes.c_char.from_buffer(source))
def fill():
    time.sleep(4)
    fcntl.ioctl(uffd, 0xC028AA03, bytearray(struct.pack("QQQQq", address, origin, 4096, 0, 0)))
threading.Thread(target=fill).start()
sock = socket.socket()
sys.exit(libc.connect(sock.fileno(), ctypes.c_void_p(address), 16))
"""


def two_threads_at_the_gate() -> Traced:
    with open_site() as site:
        gate = Throttle("gate", 1, "process")
        words = ("--dead", DEAD, "--live", LIVE, "--dead-time", "2.5", "--truth", "/dev/null")
        return trace(site.argv("two_threads", *words, throttle=gate))


@pytest.fixture(scope="module")
def gated() -> Traced:
    return two_threads_at_the_gate()


def test_a_connect_held_at_the_gate_is_pending_while_it_is_held(gated: Traced) -> None:
    held = [row for row in gated.of("pending") if row["dport"] == 80]
    assert "seccomp_do_user_notification" in " ".join(held[0]["stack"])
    assert held and held[0]["gate_ns"] and not held[0]["syn_ns"]
    waited_s = (held[0]["now_ns"] - held[0]["gate_ns"]) / 1e9
    assert 1.0 <= waited_s < 1.6
    finished = next(row for row in gated.attempts if row["dport"] == 80)
    assert held[0]["now_ns"] < finished["call_ns"]
    assert held[0]["tid"] == finished["tid"] and held[0]["gate_ns"] == finished["gate_ns"]


def test_its_stack_names_the_seccomp_function() -> None:
    # GIVEN the gate, traced from inside Python so that the stacks can be looked at
    with open_site() as site:
        gate = Throttle("gate", 1, "process")
        words = ("--dead", DEAD, "--live", LIVE, "--dead-time", "2.5", "--truth", "/dev/null")
        argv = site.argv("two_threads", *words, throttle=gate)
        child = subprocess.Popen(["sh", "-c", 'sleep 3; exec "$@"', "sh", *argv])
        options = TraceOptions(pids=frozenset((child.pid,)), follow_children=True)
        with LiveTrace(options, features.compile_flags()) as live:
            held = []
            while child.poll() is None:
                live.read()
                held += live.held()
    # THEN the held thread stands at the gate, on its way to the live port
    at_gate = [each for each in held if each.dport == 80]
    assert {each.place for each in at_gate} == {"gate"}
    assert any(re.match("seccomp_do_user_notification", f) for f in at_gate[0].frames)
    assert at_gate[0].daddr[12:] == bytes((192, 0, 2, 2))


def test_the_gate_is_named_without_root_as_well() -> None:
    # GIVEN a trace that has let go of what it does not need, as every live one does
    with open_site() as site:
        gate = Throttle("gate", 1, "process")
        words = ("--dead", DEAD, "--live", LIVE, "--dead-time", "1.5", "--truth", "/dev/null")
        traced = trace(site.argv("two_threads", *words, throttle=gate))
    # THEN the functions on the stack of the hold are known, which make it one at the gate
    (row,) = (each for each in traced.attempts if each["dport"] == 80)
    assert row["gate_ns"] is not None
    (finding,) = traced.findings("serialized-connects")
    assert finding["evidence"]["stack"][0].startswith("seccomp_do_user_notification")


def test_without_registers_the_last_sleep_is_the_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a kernel without the helper for registers: every sleep is a candidate
    monkeypatch.setattr("porttrace.tracer.program._REGISTERS", "-DNO_REGISTERS")
    with open_site() as site:
        gate = Throttle("gate", 1, "process")
        words = ("--dead", DEAD, "--live", LIVE, "--dead-time", "2.5", "--truth", "/dev/null")
        argv = site.argv("two_threads", *words, throttle=gate)
        child = subprocess.Popen(["sh", "-c", 'sleep 3; exec "$@"', "sh", *argv])
        options = TraceOptions(pids=frozenset((child.pid,)), follow_children=True)
        # WHEN a thread that has slept before is held at the gate
        with LiveTrace(options, features.compile_flags()) as live:
            rounds = []
            while child.poll() is None:
                rounds.append(live.read().events)
            rounds.append(live.finish().events)
    # THEN its hold is that of the gate, not that of its first sleep
    events = np.concatenate(rounds)
    (start,) = events[(events["type"] == EventType.START) & (events["dport"] == 80)]
    assert start["gate_ns"] > 0
    assert 1.5 <= (int(start["call_ns"]) - int(start["gate_ns"])) / 1e9 < 2.5


def test_a_connect_held_inside_the_kernel_stands_at_connect() -> None:
    with open_site() as site:
        traced = trace(site.hosts.in_client([sys.executable, "-c", HELD_IN_CONNECT]))
    assert traced.code == 0, traced.notes
    (row,) = traced.attempts
    assert 3.5 <= (row["syn_ns"] - row["call_ns"]) / 1e9 < 6
    assert row["gate_ns"] is None
    assert row["outcome"] == "established" and row["dport"] == 80
    assert {each["syn_ns"] for each in traced.of("pending")} == {None}


def test_attempts_under_way_at_the_start_are_seeded() -> None:
    code = (
        "import socket, sys, time\n"
        "s = socket.socket(); s.setblocking(False); s.connect_ex(('192.0.2.66', 9100))\n"
        "t = socket.socket(); t.setblocking(False); t.connect_ex(('192.0.2.66', 9101))\n"
        "sys.stdin.read(); time.sleep(2); s.close(); time.sleep(1)\n"
    )
    with open_site() as site:
        command = site.hosts.in_client([sys.executable, "-c", code])
        child = subprocess.Popen(command, stdin=subprocess.PIPE)
        wait_until(lambda: len(sockets.connecting(child.pid)) == 2)
        with running("--pid", str(child.pid)) as tracer:
            assert child.stdin
            child.stdin.close()
            traced = tracer.finish(0)
        child.wait()
    rows = sorted(traced.attempts, key=lambda row: row["dport"])
    assert [row["origin"] for row in rows] == ["seeded", "seeded"]
    assert [(row["dport"], row["outcome"]) for row in rows] == [(9100, "cancelled"),
                                                               (9101, "cancelled")]  # fmt: skip
    assert [(row["pid"], bool(row["sport"])) for row in rows] == [(child.pid, True)] * 2
    assert rows[0]["end_ns"] < rows[1]["end_ns"]
    assert all(row["retransmits"] >= 1 for row in rows)
    assert traced.is_trusted(), traced.report["trust"]


def test_an_attempt_that_the_trace_outlives_not_is_pending() -> None:
    code = "import socket, time; s = socket.socket(); s.settimeout(4)\ns.connect(('192.0.2.66', 1))"
    with open_site() as site:
        begin = time.monotonic()
        traced = trace(site.hosts.in_client([sys.executable, "-c", code]), "-d", "1.6")
    assert time.monotonic() - begin < 10
    (row,) = traced.attempts
    assert row["outcome"] == "pending" and row["end_ns"] is None
    assert traced.report["attempts"]["by_outcome"] == {"pending": 1}
    assert [each["dport"] for each in traced.of("pending")] == [1]
