"""Trials in which the host is hard on porttrace: slow disks, clocks that jump, limits.

Each returns a figure for its line, and raises FaultError; bench/faults.py runs them.
"""

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from trialkit import (
    Bench,
    NotTriedError,
    all_attempts,
    all_of,
    attached,
    begun,
    entering,
    group,
    made,
    over,
    require,
)

from porttrace.analysis import load
from porttrace.lab.hosts import BLACKHOLE_V4, Hosts
from porttrace.tracer import features
from porttrace.tracer.event import EventType
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.options import TraceOptions

_PYTHON = "/usr/bin/python3"


# -- clocks ----------------------------------------------------------------------------------


def clock_steps(bench: Bench) -> str:
    """The wall clock jumps by an hour, forth and back, five times a second: no latency notices."""
    connects, path = 60_000, bench.path()
    each = made(bench)
    step_s = bench.chance.choice((3600, -3600))
    words = ("record", "-o", str(path), "--", *bench.storm(connects))
    with begun(*words, env=bench.shim(step_s=step_s)) as process:
        over(process)
    rows = load(path).trace.attempts
    took = rows["end_ns"] - rows["syn_ns"]
    require(len(rows) and took.min() >= 0, "an attempt ended before it began")
    require(int(took.max()) < 60 * 10**9, "a step of the clock is in a latency")
    return f"{step_s} s; {all_of(path, each.by(connects))}"


def time_namespace(bench: Bench) -> str:
    """The traced program has a clock of its own (as after a move from another host)."""
    connects, path = 5_000, bench.path()
    ahead = ("unshare", "--time", "--fork", "--monotonic", "86400", "--")
    since_ns = time.monotonic_ns()
    with begun("record", "-o", str(path), "--", *ahead, *bench.storm(connects)) as process:
        over(process)
    rows = load(path).trace.attempts
    require(len(rows) == connects, f"{len(rows)} attempts of {connects}")
    ours = (rows["syn_ns"] >= since_ns) & (rows["end_ns"] <= time.monotonic_ns())
    require(ours.all(), "marks are not by the host's clock")
    return f"{len(rows):,} attempts by the host's clock"


# -- disks -----------------------------------------------------------------------------------


def slow_disk(bench: Bench, connects: int = 120_000) -> str:
    """Each write takes 100 ms: what does not fit meanwhile is lost, and told."""
    path = bench.path()
    each = made(bench)
    words = ("record", "-o", str(path), "--", *bench.storm(connects))
    with begun(*words, env=bench.shim(delay_ms=100)) as process:
        over(process, 120)
    return all_of(path, each.by(connects))


def bad_disk(bench: Bench) -> str:
    """After some bytes each write fails: a clear error, and what is written can be read."""
    code = bench.chance.choice((errno.EIO, errno.EDQUOT, errno.EROFS))
    path, size = bench.path(), bench.chance.randrange(0, 400_000)
    words = ("record", "-o", str(path), "--", *bench.storm(2_000_000))
    with begun(*words, env=bench.shim(error=code, after=size)) as process:
        _, err = process.communicate(timeout=60)
    require(process.returncode == 1 and os.strerror(code) in err, err)
    require("Traceback" not in err and "hint: " in err, err)
    if not path.exists() or not path.stat().st_size:
        return f"{errno.errorcode[code]} before the first batch was whole"
    found = load(path)
    require(not found.complete, "it says that it is whole")
    return f"{errno.errorcode[code]} after {size:,}: {len(found.trace.attempts):,} attempts read"


def read_only_disk(bench: Bench) -> str:
    """The disk cannot be written to at all: it is said before anything is traced."""
    folder = bench.folder / "disk"
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], check=True)
    try:
        with begun("record", "-o", str(folder / "a.ptrace"), "-P", "9") as process:
            _, err = process.communicate(timeout=30)
    finally:
        subprocess.run(["umount", folder], check=True)
    require(process.returncode == 1 and os.strerror(errno.EROFS) in err, err)
    require("Traceback" not in err and err.count("error:") == 1, err)
    return "refused"


def rotated_beside(bench: Bench) -> str:
    """Two recordings in one folder, in parts of which only the last stay: each keeps its own."""
    connects = 60_000
    paths = [bench.folder / f"{name}.ptrace" for name in ("one", "two")]
    kept = bench.folder / "one-more.ptrace"
    kept.write_bytes(b"not ours")
    with contextlib.ExitStack() as ends:
        both = [
            ends.enter_context(begun("record", "-o", str(path), "--rotate", "0.3s", "--keep", "2",
                                     "-P", "9", "--comm", "storm"))
            for path in paths
        ]  # fmt: skip
        for process in both:
            attached(process)
        subprocess.run(bench.storm(connects), check=True)
        time.sleep(1)
        for process in both:
            process.send_signal(signal.SIGINT)
            over(process)
    require(kept.read_bytes() == b"not ours", "somebody else's file was touched")
    parts = [sorted(path.parent.glob(f"{path.stem}-0*")) for path in paths]
    for each in parts:
        require(len(each) == 2, f"{len(each)} parts were kept")
        require(all(load(part).complete for part in each), "a kept part is not whole")
    last = [part.stem for each in parts for part in each]
    for part in (*bench.folder.glob("one-*"), *bench.folder.glob("two-*")):
        part.unlink()
    return f"kept {', '.join(last)}"


# -- limits ----------------------------------------------------------------------------------


def small_cpu(bench: Bench, connects: int = 30_000, at_start: bool = True) -> str:
    """A control group that has a tenth of a CPU: it is late, and what it loses is told.

    Not `at_start`: it comes into the group when it is attached, which takes a CPU a second.
    """
    path = bench.path()
    first = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "10000"}
    words = ("record", "-o", str(path), "-P", "9", "--comm", "storm")
    with contextlib.ExitStack() as ends:
        procs = ends.enter_context(group("cpu", first, {"cpu.max": "10000 100000"}))
        before = entering(procs) if at_start else ()
        process = ends.enter_context(begun(*words, before=before))
        attached(process)
        procs.write_text(str(process.pid))
        subprocess.run(bench.storm(connects), check=True)
        (procs.parent.parent / "cgroup.procs").write_text(str(process.pid))  # to its end
        process.send_signal(signal.SIGINT)
        over(process)
    return all_attempts(path, connects)


def pinned(bench: Bench, connects: int = 120_000) -> str:
    """The recorder may use one CPU only (taskset), the storm uses all: what is lost is told."""
    path, cpu = bench.path(), str(bench.chance.choice(sorted(os.sched_getaffinity(0))))
    words = ("record", "-o", str(path), "-P", "9", "--comm", "storm")
    with begun(*words, before=("taskset", "-c", cpu)) as process:
        attached(process)
        subprocess.run(bench.storm(connects, threads=3), check=True)
        process.send_signal(signal.SIGINT)
        over(process)
    return f"CPU {cpu}: {all_attempts(path, connects)}"


def cpu_comes(bench: Bench, connects: int = 5_000) -> str:
    """A CPU comes while a storm is recorded: what happens on it is lost, and told as its."""
    path, switch = bench.path(), Path("/sys/devices/system/cpu/cpu1/online")
    ports = [name.read_text().strip() for name in Path("/sys/class/virtio-ports").glob("*/name")]
    if "porttrace.status" not in ports:
        raise NotTriedError("CPUs go and come in the virtual machines of scripts/vm alone")
    switch.write_text("0")
    try:
        with begun("record", "-o", str(path), "-P", "9", "--comm", "storm") as process:
            attached(process)
            switch.write_text("1")
            for cpu in ("0", "1"):
                subprocess.run(["taskset", "-c", cpu, *bench.storm(connects, 1)], check=True)
            process.send_signal(signal.SIGINT)
            over(process)
    finally:
        switch.write_text("1")
    found = load(path)
    there = sum(loss.count for loss in found.trace.losses if loss.cpu == 1)
    require(there >= 2 * connects, f"{there} lost on the CPU that came")
    return all_attempts(path, 2 * connects)


def few_files(bench: Bench) -> str:
    """64 descriptors, and 64 of them at most: the first is raised, the second is named."""
    connects, path = 30_000, bench.path()
    each = made(bench)
    words = ("record", "-o", str(path), "--", *bench.storm(connects))
    with begun(*words, before=("prlimit", "--nofile=64:4096")) as process:
        over(process)
    with begun("-P", "9", "-d", "1", before=("prlimit", "--nofile=64")) as process:
        _, err = process.communicate(timeout=30)
    require(process.returncode == 1 and "64 files" in err and "Traceback" not in err, err)
    return all_of(path, each.by(connects))


def no_locked_memory(bench: Bench) -> str:
    """No memory may be locked, which older kernels counted maps as."""
    connects, path = 30_000, bench.path()
    each = made(bench)
    words = ("record", "-o", str(path), "--", *bench.storm(connects))
    with begun(*words, before=("prlimit", "--memlock=0")) as process:
        over(process)
    return all_of(path, each.by(connects))


_UNUSED = 9187  # a port of the trial's own: the whole host is traced
_WAITING = f"""
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (6000, 20000))
made = []
for _ in range(int(sys.argv[1])):
    s = socket.socket(); s.setblocking(False)
    assert s.connect_ex(("{BLACKHOLE_V4}", {_UNUSED})) == 115
    made.append(s)
"""


def map_full(bench: Bench) -> str:
    """5,000 sockets in SYN_SENT at once, and places for 1,024: the rest is counted."""
    many, places = 5000, 1024
    options = TraceOptions(remote_ports=frozenset((_UNUSED,)), max_attempts=places)
    with Hosts() as hosts, LiveTrace(options, features.compile_flags()) as live:
        command = hosts.in_client([_PYTHON, "-c", _WAITING, str(many)])
        subprocess.run(command, check=True, timeout=60)
        events, counters = live.finish().events, live.counters()
        left = len(list(live.probe.entries("attempts")))
    lost = int(events["in_flight"][events["type"] == EventType.LOSS].sum())
    start, end = (events[events["type"] == kind] for kind in (EventType.START, EventType.END))
    require(counters.attempts_full + counters.attempts_peak == many, f"{counters}")
    require(many - lost <= len(start) <= many and len(end) <= counters.attempts_peak, f"{counters}")
    require(lost or len(end) == counters.attempts_peak == places, f"{len(end)} ends, {counters}")
    begun_at = set(zip(start["sock"].tolist(), start["start_ns"].tolist(), strict=True))
    ended = set(zip(end["sock"].tolist(), end["start_ns"].tolist(), strict=True))
    require(lost or ended <= begun_at, "an end belongs to no attempt")
    require(not left, f"{left} places are not given back")
    return f"{counters.attempts_full:,} of {many:,} without a place, all counted, {lost} lost"


TRIALS: tuple[Callable[..., str], ...] = (
    clock_steps, time_namespace, slow_disk, bad_disk, read_only_disk, rotated_beside, few_files,
    small_cpu, pinned, cpu_comes, no_locked_memory, map_full,
)  # fmt: skip
