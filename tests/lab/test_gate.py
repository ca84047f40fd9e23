"""The gate around real programs: it limits as told, and no thread or process is ever stuck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from porttrace.lab.hosts import BLACKHOLE_V6
from porttrace.lab.site import DEAD, LIVE, Record, Site, read_records, run
from porttrace.lab.throttle import Throttle

pytestmark = pytest.mark.kernel

ENDS = ["--dead", DEAD, "--live", LIVE]
DEAD_TIME_S = 0.3
SLACK_S = 0.02


def waits(rows: list[Record], destination: str) -> list[float]:
    """Return the seconds that each attempt to one destination took."""
    mine = [row for row in rows if row["destination"] == destination]
    return [(row["end_ns"] - row["start_ns"]) / 1e9 for row in mine]


def span_s(rows: list[Record]) -> float:
    """Return the seconds from the first start to the last end."""
    first_ns, last_ns = min(r["start_ns"] for r in rows), max(r["end_ns"] for r in rows)
    return float(last_ns - first_ns) / 1e9


def most_dead_at_once(rows: list[Record]) -> int:
    """Count how many dead attempts were let through at once: each lasted its timeout to its end."""
    ends: list[float] = [row["end_ns"] / 1e9 for row in rows if row["destination"] == DEAD]
    starts = [end_s - DEAD_TIME_S + SLACK_S for end_s in ends]
    spans = list(zip(starts, ends, strict=True))
    counts = [sum(start_s <= at_s < end_s for start_s, end_s in spans) for at_s in starts]
    return max(counts)


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("mode", [[], ["--blocking"]])
def test_slots_are_filled_and_never_exceeded(site: Site, slots: int, mode: list[str]) -> None:
    amount = ["--threads", "6", "--connects", "1", "--dead-share", "1", "--dead-time", "0.3"]
    rows = site.truth("storm", *ENDS, *amount, *mode, throttle=Throttle("gate", slots))
    assert most_dead_at_once(rows) == slots
    assert max(waits(rows, DEAD)) >= DEAD_TIME_S * 6 / slots - SLACK_S


def test_a_healthy_attempt_waits_for_the_dead_one_and_no_longer(site: Site) -> None:
    rows = site.truth("two_threads", *ENDS, "--dead-time", "1", throttle=Throttle("gate"))
    assert waits(rows, LIVE)[0] == pytest.approx(0.5, abs=0.1)
    dead, live = (next(r for r in rows if r["thread"] == name) for name in ("dead", "live"))
    assert 0 <= live["end_ns"] - dead["end_ns"] < 50_000_000


def test_over_ipv6_too(site: Site) -> None:
    ends = ["--dead", f"[{BLACKHOLE_V6}]:9100", "--live", "[2001:db8::2]:80", "--dead-time", "1"]
    rows = site.truth("two_threads", *ends, throttle=Throttle("gate"))
    assert waits(rows, "[2001:db8::2]:80")[0] == pytest.approx(0.5, abs=0.1)


def test_by_thread_other_threads_run_freely(site: Site) -> None:
    throttle = Throttle("gate", 1, "thread")
    rows = site.truth("two_threads", *ENDS, "--dead-time", "1", throttle=throttle)
    assert waits(rows, LIVE)[0] < 0.1


def test_by_thread_overlapping_attempts_of_one_thread_queue(site: Site) -> None:
    options = ["--threads", "2", "--connects", "1", "--nonblocking-per-thread", "2"]
    throttle = Throttle("gate", 1, "thread")
    rows = site.truth("storm", *ENDS, *options, "--dead-time", "0.3", throttle=throttle)
    # Both threads at once: each waits for its own two dead attempts, not for the other's.
    # (The kernel ends an attempt at a retransmission, the first of which is after one second.)
    assert waits(rows, LIVE) == pytest.approx([1.0, 1.0], abs=0.3)


def two_processes(scope: str, site: Site) -> list[Record]:
    """Run a dead and a healthy attempt in two processes under one gate."""
    workload = f"{sys.executable} -m porttrace.lab.workloads.storm {' '.join(ENDS)} --threads 1"
    dead = f"{workload} --connects 1 --dead-share 1 --dead-time 1.5"
    live = f"{workload} --connects 1 --dead-share 0"
    script = f"{dead} & sleep 0.7; {live}; wait"
    command = Throttle("gate", 1, scope).argv(["sh", "-c", script])
    return read_records(run(site.hosts.in_client(command)))


def test_children_are_covered_each_process_by_itself(site: Site) -> None:
    assert waits(two_processes("process", site), LIVE)[0] < 0.2


def test_children_are_covered_and_count_together_by_host(site: Site) -> None:
    assert waits(two_processes("host", site), LIVE)[0] > 0.3


def test_a_burst_that_nothing_holds_stays_quick(site: Site) -> None:
    options = ["--threads", "200", "--connects", "3"]
    free = site.truth("controls", "burst", *ENDS, *options)
    watched = site.truth("controls", "burst", *ENDS, *options, throttle=Throttle("gate", 0))
    assert len(watched) == 600
    # Per connect of the whole burst: one thread's wait says more about the scheduler than the gate.
    assert (span_s(watched) - span_s(free)) / len(watched) < 0.005
    assert max(waits(watched, LIVE)) < 2


def test_a_gate_with_slots_to_spare_adds_little(site: Site) -> None:
    options = ["--threads", "200", "--connects", "3"]
    free = site.truth("controls", "burst", *ENDS, *options)
    rows = site.truth("controls", "burst", *ENDS, *options, throttle=Throttle("gate", 1000))
    assert (span_s(rows) - span_s(free)) / len(rows) < 0.005


def test_a_burst_through_one_slot_ends(site: Site) -> None:
    options = ["--threads", "200", "--connects", "1"]
    rows = site.truth("controls", "burst", *ENDS, *options, throttle=Throttle("gate", 1))
    assert len(rows) == 200 and {row["result"] for row in rows} == {"connected"}


UNHELD_PROGRAM = """
import os, socket, sys, tempfile, threading
dead = socket.socket()
dead.setblocking(False)
dead.connect_ex(("192.0.2.66", 9100))
dead.connect_ex(("192.0.2.66", 9100))  # the same attempt again
socket.socket(type=socket.SOCK_DGRAM).connect(("192.0.2.2", 53))
name = os.path.join(tempfile.mkdtemp(), "s")
local = socket.socket(socket.AF_UNIX)
local.bind(name)
local.listen()
socket.socket(socket.AF_UNIX).connect(name)
for number in (-1, 9999):
    try:
        socket.socket(fileno=os.dup(0)).connect(("192.0.2.2", 80))
    except OSError:
        pass
dead.close()
socket.create_connection(("192.0.2.2", 80), timeout=5)
print("done")
"""


def test_what_is_no_tcp_attempt_goes_on_at_once(site: Site) -> None:
    command = Throttle("gate").argv([sys.executable, "-c", UNHELD_PROGRAM])
    start_s = time.monotonic()
    assert run(site.hosts.in_client(command)) == "done\n"
    assert time.monotonic() - start_s < 2


def start_held(site: Site) -> tuple[subprocess.Popen[bytes], int]:
    """Start the seed case with a long dead time; return it and its pid once a thread is held."""
    options = [*ENDS, "--dead-time", "30", "--delay", "0.1"]
    supervisor = subprocess.Popen(site.argv("two_threads", *options, throttle=Throttle("gate")))
    time.sleep(1)
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text()
    return supervisor, int(children.split()[0])


def test_killing_the_held_program_ends_the_supervisor(site: Site) -> None:
    supervisor, program = start_held(site)
    os.kill(program, signal.SIGKILL)
    assert supervisor.wait(timeout=5) == 128 + signal.SIGKILL


def test_a_signal_goes_on_to_the_program(site: Site) -> None:
    supervisor, _program = start_held(site)
    supervisor.terminate()
    assert supervisor.wait(timeout=5) == 128 + signal.SIGTERM


def test_the_program_dies_with_a_killed_supervisor(site: Site) -> None:
    supervisor, program = start_held(site)
    supervisor.kill()
    supervisor.wait(timeout=5)
    end_s = time.monotonic() + 5
    while Path(f"/proc/{program}").exists() and time.monotonic() < end_s:
        time.sleep(0.01)
    assert not Path(f"/proc/{program}").exists()


def test_a_gate_inside_a_gate_says_why_it_cannot_be(site: Site) -> None:
    inner = Throttle("gate").argv(["true"])
    argv = site.hosts.in_client(Throttle("gate").argv(inner))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "refused the gate's seccomp filter" in done.stderr
