"""Faults, each tried so many times for real: what must hold is checked, and what failed is told.

    sudo .venv/bin/python bench/faults.py [--times N] [--seed N] [TRIAL...]

Prints a line for each trial (docs/reliability.md says what each means). The kernel tests run the
same trials, a few times each.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import crowds
import hardships
import numpy as np
import terminals
from trialkit import (
    PORTTRACE,
    Bench,
    FaultError,
    NotTriedError,
    at_once,
    attached,
    await_storm,
    begun,
    children,
    counted,
    entering,
    kernel_objects,
    made,
    memory_group,
    opened,
    over,
    peak_of,
    require,
    vanish,
)

from porttrace.analysis import load
from porttrace.tracer.event import EventType
from porttrace.tracer.tracefile import TraceReader

# -- trials: each returns a figure for its line, and raises FaultError -----------------------


def stopped_reader(bench: Bench, stop_s: float, *options: str) -> str:
    """SIGSTOP the recorder in a storm for so long: received and lost are what was made.

    0: until the storm is over, which loses events for sure.
    """
    connects, path = 150_000, bench.path()
    each = made(bench)
    with begun("record", "-o", str(path), *options, "--", *bench.storm(connects)) as process:
        attached(process)
        time.sleep(bench.chance.uniform(0.05, 0.3) if stop_s else 0.0)
        process.send_signal(signal.SIGSTOP)
        time.sleep(stop_s) if stop_s else await_storm(process.pid)
        process.send_signal(signal.SIGCONT)
        over(process)
    parts = [counted(part) for part in sorted(path.parent.glob(f"{path.stem}*"))]
    all_of_it = sum(parts[1:], parts[0])
    wanted = each.by(connects)
    require(all_of_it.is_all_of(wanted), f"{all_of_it}, and {wanted} were made")
    require(stop_s or all_of_it.lost, "nothing was lost: it was not stopped in time")
    return f"{all_of_it.lost:,} of {wanted:,} events lost and told, in {len(parts)} parts"


def stop(bench: Bench) -> str:
    """Stopped for 0.1 to 2 s in the middle, and resumed."""
    return stopped_reader(bench, bench.chance.choice((0.1, 0.5, 2.0)))


def stop_to_the_end(bench: Bench) -> str:
    """Stopped until no event comes any more: of what was lost last the kernel says nothing."""
    return stopped_reader(bench, 0.0)


def stop_rotated(bench: Bench) -> str:
    """The same in a recording in parts of 0.5 s; what is carried into the next counts once."""
    return stopped_reader(bench, bench.chance.choice((0.5, 0.0)), "--rotate", "0.5s")


def stop_live(bench: Bench) -> str:
    """Stopped for a second, the live trace: its report counts what its recording counts."""
    connects, path = 120_000, bench.path()
    each = made(bench)
    words = ("--json", "-o", str(path), "--", *bench.storm(connects))
    with begun(*words, stdout=subprocess.PIPE) as process:
        attached(process)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        process.send_signal(signal.SIGCONT)
        last = over(process, 120).splitlines()[-1]
    trust, found = json.loads(last)["trust"], counted(path)
    require(found.is_all_of(each.by(connects)), f"{found}, made {each.by(connects)}")
    require(trust["lost_events"] == found.lost + found.passed, f"{trust} and {found}")
    require(trust["complete"] is (trust["lost_events"] == 0), f"{trust}")
    return f"{found.lost:,} of {each.by(connects):,} events lost and told"


def kill(bench: Bench) -> str:
    """SIGKILL at a random moment: nothing is left in the kernel, what is written can be read."""
    path = bench.path()
    with begun("record", "-o", str(path), "--", *bench.storm(400_000)) as process:
        if bench.chance.random() < 0.7:  # else while it loads and attaches, too
            attached(process)
        time.sleep(bench.chance.uniform(0.0, 1.5))
        process.send_signal(signal.SIGSTOP)  # so that what it has now is what it dies with
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        objects = kernel_objects(process.pid)
        process.kill()
        process.wait()
        vanish(objects)
    rows = 0
    if path.exists() and path.stat().st_size:
        found = load(path)
        require(not found.complete and found.why_incomplete, "a killed recording says it is whole")
        rows = len(found.trace.attempts)
    size = sum(map(len, objects.values()))
    return f"{size} kernel objects gone within 1 s, {rows:,} attempts read"


def pause(bench: Bench) -> str:
    """SIGSTOP and SIGCONT at random moments, from before the attaching on: all is counted."""
    connects, path = 120_000, bench.path()
    each = made(bench)
    with begun("record", "-o", str(path), "--", *bench.storm(connects)) as process:
        until = time.monotonic() + 3
        while time.monotonic() < until and process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            time.sleep(bench.chance.uniform(0.0, 0.2))
            process.send_signal(signal.SIGCONT)
            time.sleep(bench.chance.uniform(0.0, 0.2))
        over(process)
    found = counted(path)
    require(found.is_all_of(each.by(connects)), f"{found}, made {each.by(connects)}")
    return f"{found.lost:,} of {each.by(connects):,} events lost and told"


def target_exits(bench: Bench) -> str:
    """The target ends at a random moment: the trace does, too, in 2 s, complete."""
    path = bench.path()
    with subprocess.Popen(bench.storm(50_000_000)) as target:
        try:
            with begun("record", "-o", str(path), "--pid", str(target.pid)) as process:
                attached(process)
                time.sleep(bench.chance.uniform(0.0, 0.5))
                target.kill()
                over(process, 5)
        finally:
            target.kill()
    found = load(path)
    require(found.complete, found.why_incomplete)
    return f"{len(found.trace.attempts):,} attempts read"


def short_processes(bench: Bench) -> str:
    """2,000 processes a second, each connects once: every one is there, by its own pid."""
    number, path = 4000, bench.path()
    with begun("record", "-o", str(path), "--", *bench.short(number, 2000)) as process:
        over(process)
    found = load(path)
    rows = found.trace.attempts
    lost = found.trust.lost_events
    require(len(rows) == number or lost, f"{len(rows)} attempts of {number}, and none lost")
    require(lost or len(set(rows["pid"].tolist())) == number, "pids were mixed up")
    require(len(rows) + lost >= number, f"{len(rows)} and {lost} lost are fewer than {number}")
    return f"{len(rows):,} of {number:,} processes seen, {lost} events lost"


_REUSE = """
import os, socket, sys
def child(name, port, wanted):
    if wanted:
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(wanted - 1))
    pid = os.fork()
    if not pid:
        with open("/proc/self/comm", "w") as file:
            file.write(name)
        socket.socket().connect_ex(("127.0.0.1", port))
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
for number in range(int(sys.argv[1])):
    first = child("first", 11, 0)
    for _ in range(50):
        if child("second", 12, first) == first:
            break
    else:
        sys.exit(3)
"""


def pid_reuse(bench: Bench) -> str:
    """A pid is given again at once: each attempt is that of the process that made it."""
    number, path = 20, bench.path()
    command = ("/usr/bin/python3", "-c", _REUSE, str(number))
    with begun("record", "-o", str(path), "--", *command) as process:
        over(process)
    rows = load(path).trace.attempts
    named = [(int(row["dport"]), bytes(row["comm"])) for row in rows]
    require(set(named) == {(11, b"first"), (12, b"second")}, f"{set(named)}")
    first = [int(row["pid"]) for row in rows if row["dport"] == 11]
    second = {int(row["pid"]) for row in rows if row["dport"] == 12}
    require(len(first) == number and set(first) <= second, "a reused pid was not seen")
    return f"{number} pids given twice"


def address_reuse(bench: Bench) -> str:
    """Sockets at addresses that were used before: each attempt is one of its own."""
    connects, path = 50_000, bench.path()
    with begun("record", "-o", str(path), "--", *bench.storm(connects)) as process:
        over(process)
    with TraceReader(path) as reader:
        socks = np.concatenate(
            [b.events["sock"][b.events["type"] == EventType.END] for b in reader]
        )
    found = load(path)
    rows, lost = found.trace.attempts, found.trust.lost_events
    require(len(rows) == connects or lost, f"{len(rows)} attempts of {connects}")
    different = len(np.unique(socks))
    require(different < connects // 2, "the kernel did not use an address again")
    return f"{len(rows):,} attempts at {different:,} addresses, {lost} events lost"


def disk_full(bench: Bench) -> str:
    """The disk is full after a random size: a clear error, and what is written can be read."""
    folder = bench.folder / "disk"
    folder.mkdir(exist_ok=True)
    size = bench.chance.randrange(16, 400)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", folder], check=True)
    try:
        path = folder / "a.ptrace"
        with begun("record", "-o", str(path), "--", *bench.storm(2_000_000)) as process:
            _, err = process.communicate(timeout=60)
        require(process.returncode == 1 and "No space left on device" in err, err)
        require("Traceback" not in err and "hint: " in err, err)
        if not path.stat().st_size:
            return f"{size} kB: no room for the first batch"
        found = load(path)
        require(not found.complete, "it says that it is whole")
    finally:
        subprocess.run(["umount", folder], check=True)
    return f"{size} kB: {len(found.trace.attempts):,} attempts read"


def pipe_closed(bench: Bench) -> str:
    """Who reads our output goes after a random number of lines: no error, no trace goes on."""
    lines = bench.chance.randrange(0, 200)
    words = (*bench.chance.choice(((), ("--json",))), "-d", "20", "--")
    with begun(*words, *bench.storm(300_000), stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(30)
    require("Traceback" not in err and "error" not in err, err)
    require(process.returncode == 0, f"exit code {process.returncode}")
    return f"after {lines} lines"


def small_memory(bench: Bench) -> str:
    """In a control group of 200 MB: recording a storm goes on to its end, and all is counted."""
    connects, path = 150_000, bench.path()
    each = made(bench)
    with memory_group(200 << 20) as procs:
        words = ("record", "-o", str(path), "--", *bench.storm(connects))
        with begun(*words, before=entering(procs)) as process:
            over(process)
        peak = peak_of(procs.parent)
    found = counted(path)
    require(found.is_all_of(each.by(connects)), f"{found}, made {each.by(connects)}")
    return f"peak {peak >> 20} MB, {found.lost:,} of {each.by(connects):,} events lost and told"


def affinity(bench: Bench) -> str:
    """porttrace and what it traces are moved from CPU to CPU, as when CPUs come and go."""
    connects, path = 120_000, bench.path()
    each, cpus = made(bench), sorted(os.sched_getaffinity(0))
    moves = 0
    with begun("record", "-o", str(path), "--", *bench.storm(connects)) as process:
        attached(process)
        while process.poll() is None:
            for task in Path(f"/proc/{process.pid}/task").glob("*"):
                _move(int(task.name), bench.chance.choice(cpus))
            for child in children(process.pid):
                _move(child, bench.chance.choice(cpus))
            moves += 1
            time.sleep(0.02)
        over(process)
    found = counted(path)
    require(found.is_all_of(each.by(connects)), f"{found}, made {each.by(connects)}")
    return f"{moves} times, {found.lost:,} of {each.by(connects):,} events lost and told"


def _move(pid: int, cpu: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(pid, {cpu})


def two_at_once(bench: Bench) -> str:
    """Two recordings of one storm: each counts all of it."""
    connects, paths = 100_000, (bench.path(), bench.path())
    at_once(bench, paths, connects)
    seen = []
    for path in paths:
        found = load(path)
        lost, rows = found.trust.lost_events, len(found.trace.attempts)
        require(rows == connects or (lost and rows + lost >= connects), f"{rows}, {lost} lost")
        seen.append(f"{rows:,} ({lost} events lost)")
    return f"{' and '.join(seen)} of {connects:,}"


def traced_tracer(bench: Bench) -> str:
    """porttrace traces a porttrace that records a storm: neither disturbs the other."""
    connects, path = 20_000, bench.path()
    inner = (*PORTTRACE, "record", "-o", str(path), "--", *bench.storm(connects))
    outer = bench.path()
    with begun("record", "-o", str(outer), "--", *inner) as process:
        over(process)
    rows = [len(load(each).trace.attempts) for each in (outer, path)]
    lost = [load(each).trust.lost_events for each in (outer, path)]
    for here, gone in zip(rows, lost, strict=True):
        require(here == connects or (gone and here + gone >= connects), f"{rows}, {lost} lost")
    return f"{rows[0]:,} and {rows[1]:,} of {connects:,}, {sum(lost)} events lost"


TRIALS: dict[str, Callable[..., str]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        *(
            stop,
            stop_to_the_end,
            stop_rotated,
            stop_live,
            kill,
            pause,
            target_exits,
            short_processes,
            pid_reuse,
        ),
        *(
            address_reuse,
            disk_full,
            pipe_closed,
            small_memory,
            affinity,
            two_at_once,
            traced_tracer,
        ),
        *hardships.TRIALS,
        *crowds.TRIALS,
        *terminals.TRIALS,
    )
}


def main() -> int:
    """Run the trials that were asked for; return 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=", ".join(TRIALS))
    parser.add_argument("--times", type=int, default=10, help="how often each is tried")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    asked = parser.parse_args()
    if unknown := set(asked.trials) - set(TRIALS):
        parser.error(f"there is no trial {', '.join(sorted(unknown))}; known: {', '.join(TRIALS)}")
    failed = 0
    with opened(asked.seed) as bench:
        for name in asked.trials or TRIALS:
            failed += _tried(name, bench, asked.times)
    return 1 if failed else 0


def _tried(name: str, bench: Bench, times: int) -> int:
    begun_s, failed, last = time.monotonic(), 0, ""
    for _ in range(times):
        try:
            last = TRIALS[name](bench)
        except NotTriedError as error:
            print(f"{name:16} not tried: {error}", flush=True)
            return 0
        except (FaultError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"{name}: FAILED: {error}", file=sys.stderr, flush=True)
        for path in bench.folder.glob("*.ptrace"):
            path.unlink()
    took_s = time.monotonic() - begun_s
    print(
        f"{name:16} {times - failed:4} of {times} held  {took_s:6.0f} s  last: {last}", flush=True
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
