"""What the wire probe costs traffic that has nothing to do with connecting.

    sudo .venv/bin/python bench/wire.py [--pairs N]

Loopback of a network namespace of its own, where every packet passes the filter twice: bulk (1 MiB
a send) and small packets (64 bytes, each answered). Each pair runs once without porttrace and once
with the wire watched, nothing else attached differing; prints the median of the ratios.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from porttrace.tracer.features import compile_flags
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.probe import Probe
from porttrace.tracer.wire import Wire

LOADS = {"bulk": ("bulk", "1048576", "4000"), "small packets": ("ping", "64", "60000")}


def main() -> None:
    """Run the pairs and print a line for each load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    pairs = parser.parse_args().pairs
    if os.environ.get("PORTTRACE_BENCH_INSIDE") != "1":
        inside = {**os.environ, "PORTTRACE_BENCH_INSIDE": "1"}
        sys.exit(
            subprocess.run(["unshare", "--net", sys.executable, *sys.argv], env=inside).returncode
        )
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "traffic")
        source = Path(__file__).with_name("traffic.c")
        subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
        # a port that nobody uses: the program is there, and has no attempt to follow
        options = TraceOptions(remote_ports=frozenset((1,)))
        with Probe(options, compile_flags()) as probe:
            for name, words in LOADS.items():
                command = [str(program), *words]
                _run(command)
                ratios = sorted(_pair(command, probe.wire_fd, turn) for turn in range(pairs))
                middle = statistics.median(ratios)
                print(f"{name}: {middle:.3f} times as long (of {pairs} pairs: "
                      f"{ratios[0]:.3f} to {ratios[-1]:.3f})")  # fmt: skip


def _pair(command: list[str], wire_fd: int, turn: int) -> float:
    # In turns the one or the other is first: a machine that slows down favours neither.
    times = {}
    for watched in (turn % 2 == 0, turn % 2 == 1):
        wire = Wire(wire_fd)
        if watched:
            wire.watch(os.getpid())
        times[watched] = _run(command)
        wire.close()
    return times[True] / times[False]


def _run(command: list[str]) -> float:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return float(done.stdout)


if __name__ == "__main__":
    main()
