"""What reading a recording takes, against a floor that no program can go below.

    .venv/bin/python bench/offline.py [--attempts N]... [--times N] [--keep]

bench/make_trace.py makes the recordings: 2,000 processes, three events an attempt. The floor reads
the columns that attempts are made of and sorts one of them (u64). Every figure is the median of
fresh processes, in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import table

_FLOOR = """
import sys
import numpy as np, pyarrow as pa
names = ["time_ns", "sock", "start_ns", "call_ns", "pid", "error", "type"]
with pa.OSFile(sys.argv[1]) as file:
    fields = pa.ipc.open_stream(file).schema.names
options = pa.ipc.IpcReadOptions(included_fields=[fields.index(name) for name in names])
with pa.OSFile(sys.argv[1]) as file:
    columns = pa.ipc.open_stream(file, options=options).read_all()
np.sort(columns["sock"].to_numpy())
print(columns.num_rows)
"""
_ATTEMPTS = """
import sys
from porttrace.analysis.recording import load
print(len(load(sys.argv[1]).trace.attempts))
"""
_REPORT = ("-m", "porttrace.cli", "report", "--json")
WORK = {
    "floor: columns and one sort": ("-c", _FLOOR),
    "attempts": ("-c", _ATTEMPTS),
    "report": _REPORT,
}
_FLOOR_NAME = next(iter(WORK))


@dataclass(frozen=True)
class Took:
    """What one process took: time and processor time in s, peak memory in MB."""

    seconds: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    """Make the recordings, measure, print, and keep if so asked."""
    parser = argparse.ArgumentParser(description="What reading a recording takes.")
    parser.add_argument("--attempts", type=int, action="append")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print every process as a line instead")
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    parts = []
    for attempts in chosen.attempts or (100_000, 1_000_000):
        measured = measure(attempts, chosen.times)
        if chosen.json:
            _print_lines(attempts, measured)
        parts.append(_described(attempts, measured, chosen.times))
    text = "\n\n".join([*parts, table.machine()])
    if chosen.keep:
        table.keep("offline", text)
    elif not chosen.json:
        print(text)


def measure(attempts: int, times: int) -> dict[str, list[Took]]:
    """Return what each kind of work took on a recording of so many attempts."""
    found: dict[str, list[Took]] = {name: [] for name in WORK}
    with tempfile.TemporaryDirectory(prefix="porttrace-bench-") as folder:
        path = Path(folder, "made.ptrace")
        # In a process of its own: what it took is not to stay here.
        words = (f"--attempts={attempts}", "--processes=2000", "--duration=3600")
        script = str(Path(__file__).with_name("make_trace.py"))
        made = [sys.executable, script, "-o", str(path), *words]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        path.read_bytes()  # from memory for everyone
        for _ in range(times):
            for name, work in WORK.items():
                found[name].append(_took([sys.executable, *work, str(path)]))
    return found


def _took(words: list[str]) -> Took:
    begun_s = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"bench: {' '.join(words[:5])} ended with {process.returncode}")
    return Took(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _described(attempts: int, measured: dict[str, list[Took]], times: int) -> str:
    rows = []
    for name, took in measured.items():
        pairs = zip(took, measured[_FLOOR_NAME], strict=True)
        rows.append((
            name,
            f"{statistics.median(each.seconds for each in took):.2f}",
            f"{statistics.median(each.cpu_s for each in took):.2f}",
            f"{statistics.median(each.seconds / floor.seconds for each, floor in pairs):.1f}",
            f"{max(each.peak_mb for each in took):.0f}",
        ))  # fmt: skip
    head = ("work", "s", "CPU s", "times the floor", "peak MB")
    return f"**{attempts:,} attempts**, {times} times.\n\n{table.markdown(head, rows)}"


def _print_lines(attempts: int, measured: dict[str, list[Took]]) -> None:
    for name, took in measured.items():
        for each in took:
            print(json.dumps({"attempts": attempts, "work": name, **vars(each)}), flush=True)


if __name__ == "__main__":
    main()
