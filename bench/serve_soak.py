"""What `porttrace serve` costs over hours: processor time, memory, and whether it counts all.

    sudo .venv/bin/python bench/serve_soak.py [--minutes N] [--rate N] [--keep]

A program connects on loopback at rates that change every half minute, up to --rate a second, and
counts what became of it. In the end the exporter's counters must be the same, nothing may be lost,
and memory may not have grown. --keep writes the figures into docs/metrics.md.
"""

import argparse
import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import table
import tools

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "metrics.md"
_PHASE_S = 30
_SHARES = (0.2, 1.0, 0.02, 0.5, 0.2, 0.2)  # of the highest rate, phase after phase
_SETTLE_S = 12.0  # events are counted two rounds later
_GROWTH_MB = 10.0  # in the second half, as a straight line has it
_KINDS = ("established", "refused")


@dataclass
class Phase:
    """Half a minute at one rate: what the program counted, what the exporter used."""

    rate: int
    kind: str
    made: int
    counts: dict[str, int]
    cpu_share: float
    load: float


@dataclass
class Soak:
    """All of a run. Memory is in MB, a value every few seconds, with its time in s."""

    phases: list[Phase] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    rest_share: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0


def main() -> None:
    """Run it, print it, keep it if so asked; exit status 1 where something was wrong."""
    parser = argparse.ArgumentParser(description="What porttrace serve costs over hours.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=5000, help="the highest, connects a second")
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    tools.need_root()
    with tempfile.TemporaryDirectory(prefix="porttrace-bench-") as folder:
        program = Path(folder, "steady")
        words = ["gcc", "-O2", "-Wall", "-o", str(program), str(HERE / "steady.c")]
        subprocess.run(words, check=True)
        done = soak(program, Path(folder), chosen.minutes, chosen.rate)
    wrong = faults(done)
    text = described(done, wrong)
    table.keep("serve-soak", text, PAGE) if chosen.keep else print(text)
    sys.exit(1 if wrong else 0)


def soak(program: Path, folder: Path, minutes: float, rate: int) -> Soak:
    """Run the exporter and the load for so long."""
    done = Soak()
    with serving(folder) as (pid, port):
        begun_s = time.monotonic()
        done.rest_share = _rest(pid, 20.0)
        number = 0
        while time.monotonic() - begun_s < minutes * 60:
            now = max(1, round(rate * _SHARES[number % len(_SHARES)]))
            kind = _KINDS[number // len(_SHARES) % 2]
            done.phases.append(_phase(program, pid, port, now, kind, done.memory, begun_s))
            number += 1
        time.sleep(_SETTLE_S)
        done.metrics, done.peak_mb = scraped(port), tools.peak_of(pid)
    return done


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[int, int]]:
    """Run `porttrace serve` on a free port; yield its pid and the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "log"
    command = [sys.executable, "-m", "porttrace.cli", "serve", "--listen", f"127.0.0.1:{port}"]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stderr=said)
    try:
        until_s = time.monotonic() + 120
        while "Serving" not in log.read_text():
            if process.poll() is not None or time.monotonic() > until_s:
                sys.exit(f"bench: porttrace serve does not run here: {log.read_text()}")
            time.sleep(0.1)
        time.sleep(5.0)
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()


def _rest(pid: int, seconds: float) -> float:
    before_s = tools.cpu_of(pid)
    time.sleep(seconds)
    return (tools.cpu_of(pid) - before_s) / seconds


def _phase(
    program: Path,
    pid: int,
    port: int,
    rate: int,
    kind: str,
    memory: list[tuple[float, float]],
    since_s: float,
) -> Phase:
    begun_s, before_s = time.monotonic(), tools.cpu_of(pid)
    words = ["nice", "-n", "10", str(program), str(_PHASE_S), str(rate), kind]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as load:
        while load.poll() is None:
            time.sleep(5.0)
            memory.append((time.monotonic() - since_s, _rss_mb(pid)))
            scraped(port)
        told = load.stdout.read() if load.stdout else ""
    took_s, used_s = time.monotonic() - begun_s, tools.cpu_of(pid) - before_s
    counts = dict(zip((*_KINDS, "neither"), map(int, told.split()), strict=True))
    return Phase(rate, kind, sum(counts.values()), counts, used_s / took_s, os.getloadavg()[0])


def _rss_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def scraped(port: int) -> dict[str, float]:
    """Return what the exporter says, by name and labels as they stand in the text."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    values = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in values}


# -- figures -------------------------------------------------------------------------------


def counted(done: Soak, kind: str) -> int:
    """Return how many attempts of the load the exporter counted with that outcome."""
    name = f'porttrace_attempts_total{{comm="steady",outcome="{kind}"}}'
    return int(done.metrics.get(name, 0))


def made(done: Soak, kind: str) -> int:
    """Return how many the load itself counted."""
    return sum(phase.counts[kind] for phase in done.phases)


def growth_mb(done: Soak) -> float:
    """Return by how much memory grew over the second half, as a straight line has it."""
    half = done.memory[len(done.memory) // 2 :]
    if len(half) < 3:
        return 0.0
    times, sizes = np.array(half).T
    return float(np.polyfit(times, sizes, 1)[0] * (times[-1] - times[0]))


def faults(done: Soak) -> list[str]:
    """Return what was not as it should be, in sentences."""
    wrong = [
        f"{kind}: the load made {made(done, kind):,} and {counted(done, kind):,} were counted."
        for kind in _KINDS
        if made(done, kind) != counted(done, kind)
    ]
    lost = int(done.metrics.get("porttrace_lost_events_total", -1))
    if lost:
        wrong.append(f"{lost:,} events were lost.")
    if growth_mb(done) > _GROWTH_MB:
        wrong.append(f"Memory grew by {growth_mb(done):.1f} MB in the second half.")
    return wrong


def described(done: Soak, wrong: list[str]) -> str:
    """Return the figures as Markdown."""
    rates = sorted({phase.rate for phase in done.phases})
    rows = [("0", "-", f"{done.rest_share:.2%}", "-")]
    for rate in rates:
        those = [phase for phase in done.phases if phase.rate == rate]
        shares = [phase.cpu_share for phase in those]
        number = sum(phase.made for phase in those)
        rows.append(
            (f"{rate:,}", f"{number:,}", f"{statistics.median(shares):.2%}", f"{max(shares):.2%}")
        )
    head = ("connects a second", "connects in all", "of a core, median", "worst half minute")
    sizes = [size for _, size in done.memory]
    all_made = " and ".join(f"{made(done, kind):,} {kind}" for kind in _KINDS)
    verdict = " ".join(wrong) or (
        f"All {all_made} were counted, none was lost, and memory did not grow."
    )
    load = statistics.median(phase.load for phase in done.phases)
    return (
        f"{table.markdown(head, rows)}\n\n"
        f"{len(done.phases) * _PHASE_S / 60:.0f} minutes. {verdict} Resident: median "
        f"{statistics.median(sizes):.0f} MB, {min(sizes):.0f} to {max(sizes):.0f} MB, "
        f"{growth_mb(done):+.1f} MB over the second half; {done.peak_mb:.0f} MB while it was "
        f"starting.\n\nMeasured {table.machine()} Median load {load:.1f}: on a busy machine the "
        f"same work takes more processor time."
    )


if __name__ == "__main__":
    main()
