"""What reading a fleet takes, from one host to many: time, memory of each worker, bytes.

    scripts/bench fleet [--hosts N]... [--attempts N] [--workers N] [--keep]

bench/make_fleet.py makes the recordings, one base of each kind copied to all hosts of it: reading
a copy costs what reading its base does. Their making is not measured. Each figure is of one run of
`porttrace fleet --json`, start and end of its cluster included; memory is the largest that any
worker had at any time (VmHWM). docs/scale.md has the figures, and what follows from them.
"""

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import make_fleet
import psutil
import table

from porttrace.analysis.fleet.reading import summed

PAGE = table.PAGE.with_name("scale.md")
_LOOK_S = 0.5
_MB = 1e6


@dataclass(frozen=True)
class Took:
    """What one run took: seconds, and bytes."""

    hosts: int
    attempts: int
    seconds: float
    cpu_s: float  # of all its processes
    worker_peak: int  # of the largest worker
    client_peak: int
    disk: int  # of all recordings
    summary: int  # what one host sends, pickled


def main() -> None:
    """Make fleets, measure, print, and keep if so asked."""
    parser = argparse.ArgumentParser(description="What reading a fleet takes.")
    parser.add_argument("--hosts", type=int, action="append")
    parser.add_argument("--attempts", type=int, default=500_000, help="of each host")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print every run as a line instead")
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    runs = []
    for hosts in chosen.hosts or (1, 10, 200):
        runs.append(measure(hosts, chosen.attempts, chosen.workers))
        if chosen.json:
            print(json.dumps(vars(runs[-1])), flush=True)
    text = f"{described(runs, chosen.workers)}\n\n{table.machine()}"
    if chosen.keep:
        table.keep("fleet", text, PAGE)
    elif not chosen.json:
        print(text)


def measure(hosts: int, attempts: int, workers: int) -> Took:
    """Return what reading so many hosts of so many attempts each takes."""
    folder = Path(tempfile.mkdtemp(prefix="porttrace-bench-"))
    try:
        fleet = make_fleet.Fleet(hosts, attempts, bases=1)
        paths = make_fleet.write(fleet, folder)
        disk = sum(path.stat().st_size for path in paths)
        summary = len(pickle.dumps(summed(str(paths[0]))))
        words = ["fleet", str(folder), "--json", f"--workers={workers}"]
        seconds, cpu_s, worker, client = _watched([sys.executable, "-m", "porttrace.cli", *words])
        return Took(hosts, hosts * attempts, seconds, cpu_s, worker, client, disk, summary)
    finally:
        shutil.rmtree(folder)


def _watched(words: list[str]) -> tuple[float, float, int, int]:
    # Seconds, processor time of it and all its workers, the largest worker's bytes, its own.
    begun_s, worker, client = time.monotonic(), 0, 0
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(words, stdout=out)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            worker = max([worker, *map(_peak, _workers(process.pid))])
            client = max(client, _peak(process.pid))
            time.sleep(_LOOK_S)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"bench: {' '.join(words[2:])} ended with {process.returncode}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return time.monotonic() - begun_s, cpu_s, worker, client


def _workers(pid: int) -> list[int]:
    try:
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def described(runs: list[Took], workers: int) -> str:
    """Return the runs as a table of Markdown."""
    head = ("hosts", "attempts", "s", "CPU s", "CPU s a million", "s a million",
            "worker's peak MB", "client's peak MB", "bytes an attempt on disk",
            "kB a host sends")  # fmt: skip
    rows = [
        (
            f"{run.hosts:,}",
            f"{run.attempts:,}",
            f"{run.seconds:.0f}",
            f"{run.cpu_s:.0f}",
            f"{run.cpu_s / run.attempts * 1e6:.1f}",
            f"{run.seconds / run.attempts * 1e6:.1f}",
            f"{run.worker_peak / _MB:.0f}",
            f"{run.client_peak / _MB:.0f}",
            f"{run.disk / run.attempts:.1f}",
            f"{run.summary / 1e3:.0f}",
        )
        for run in runs
    ]
    return f"{workers} workers, one run each.\n\n{table.markdown(head, rows)}"


if __name__ == "__main__":
    main()
