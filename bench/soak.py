"""A long trace under a load that rises and falls: memory and files must stay, counts must be exact.

    sudo .venv/bin/python bench/soak.py [--minutes N] [--rate N] [--live]

Prints a line for each period of the load and a table of what had to hold; exit code 1 where it
did not. bench/pulse.c makes the load in the lab's client host, and counts it itself.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from porttrace.analysis import attempts
from porttrace.analysis.model import Outcome
from porttrace.lab.hosts import BLACKHOLE_V4
from porttrace.lab.site import open_site
from porttrace.tracer.beside import End
from porttrace.tracer.event import EventType
from porttrace.tracer.probe import ANY_CPU
from porttrace.tracer.tracefile import TraceReader

PORTTRACE = (sys.executable, "-m", "porttrace.cli")
HERE = Path(__file__).parent
GROWTH = 1.05
"""So many times its highest at the end of the warm-up memory may be later."""
_KINDS = (Outcome.refused, Outcome.established, Outcome.cancelled)  # as pulse.c prints them


@dataclass(frozen=True)
class Load:
    """How long, at most how many connects a second, and how long until the first comparison."""

    seconds: float
    rate: int
    period_s: float
    warm_up_s: float


@dataclass(frozen=True)
class Sample:
    """What porttrace took at one moment; `cpu_s` since it began."""

    at_s: float
    rss_bytes: int
    files: int
    cpu_s: float


@dataclass
class Seen:
    """What the trace told: attempts by outcome, events, those that were lost."""

    attempts: Counter[str] = field(default_factory=Counter)
    events: int = 0
    lost: int = 0
    passed: int = 0  # programs that the kernel stepped over: some would have made no event
    end: End | None = None

    @property
    def all_lost(self) -> int:
        """Events that were lost, those that nobody knows of included."""
        return self.lost + self.passed


@dataclass(frozen=True)
class Run:
    """One soak: the samples, what the load says it made, what was told of it."""

    load: Load
    samples: list[Sample]
    made: Counter[str]
    most_a_second: int
    seen: Seen


# -- what is told ----------------------------------------------------------------------------


class Parts:
    """Counts the parts of a recording as they are finished, and removes them: a disk is finite."""

    def __init__(self, first: Path) -> None:
        self._first, self._open, self.seen = first, attempts.Open(), Seen()

    def take(self, last: bool = False) -> None:
        """Count every part that is finished; with `last` the one that was the last, too."""
        paths = sorted(self._first.parent.glob(f"{self._first.stem}-*"))
        for path in paths if last else paths[:-1]:
            self._count(path)
            path.unlink()
        if last:
            self._add(attempts.flush(self._open))

    def _count(self, path: Path) -> None:
        with TraceReader(path) as reader:
            for batch in reader:
                events = batch.events[batch.beside.carried :]
                losses = events[events["type"] == EventType.LOSS]
                anywhere = losses["cpu"] == ANY_CPU
                self.seen.lost += int(losses["in_flight"][~anywhere].sum())
                self.seen.passed += int(losses["in_flight"][anywhere].sum())
                ours = np.isin(events["type"], (EventType.LOSS, EventType.WATCH))
                self.seen.events += int((~ours).sum())
                self.seen.end = batch.beside.end or self.seen.end
                rows, self._open = attempts.step(events, self._open, batch.beside.watermark_ns)
                self._add(rows)

    def _add(self, rows: attempts.Attempts) -> None:
        numbers, counts = np.unique(rows["outcome"], return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self.seen.attempts[Outcome(number).name] += count


class Lines:
    """Counts the lines of a live trace as they come."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process, self.seen = process, Seen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            said = json.loads(line)
            if said["type"] == "attempt":
                self.seen.attempts[said["outcome"]] += 1
            elif said["type"] == "report":
                self.seen.events = said["trust"]["events"]
                self.seen.passed = said["trust"]["lost_events"]

    def take(self, last: bool = False) -> None:
        """Wait for the end of the output where this is the last time."""
        if last:
            self._thread.join(120)


# -- the run ---------------------------------------------------------------------------------


def soak(load: Load, live: bool, folder: Path) -> Run:
    """Trace the load to its end."""
    pulse = folder / "pulse"
    words = ["gcc", "-O2", "-Wall", "-o", str(pulse), str(HERE / "pulse.c"), "-lm"]
    subprocess.run(words, check=True)
    said = folder / "made"
    numbers = (str(load.seconds), str(load.rate), str(load.period_s), BLACKHOLE_V4)
    # Its output goes past porttrace, whose own may be the trace.
    shell = ["sh", "-c", f'exec "$@" > {said}', "sh", str(pulse), *numbers]
    first = folder / "soak.ptrace"
    options = ["--json"] if live else ["record", "-o", str(first), "--rotate", "16M"]
    with open_site() as site, _begun([*options, "--", *site.hosts.in_client(shell)]) as process:
        told = Lines(process) if live else Parts(first)
        samples = list(_watched(process, told, load.period_s))
        told.take(last=True)
        if process.returncode:
            assert process.stderr
            raise SystemExit(f"porttrace ended with {process.returncode}: {process.stderr.read()}")
    *by_kind, most = map(int, said.read_text().split())
    made = Counter({kind.name: count for kind, count in zip(_KINDS, by_kind, strict=True)})
    return Run(load, samples, made, most, told.seen)


@contextlib.contextmanager
def _begun(words: list[str]) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [*PORTTRACE, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # and with it the load, which is its command
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def _watched(
    process: "subprocess.Popen[str]", told: Parts | Lines, period_s: float
) -> Iterator[Sample]:
    assert process.stderr
    process.stderr.readline()  # attached; the load begins
    begun_s, printed_s = time.monotonic(), 0.0
    highest = 0
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            sample = _sample(process.pid, time.monotonic() - begun_s)
            yield sample
            highest = max(highest, sample.rss_bytes)
            if sample.at_s - printed_s >= period_s:
                printed_s, highest = sample.at_s, _print(sample, highest, told.seen)
        told.take()
        time.sleep(0.5)


def _sample(pid: int, at_s: float) -> Sample:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    files = len(os.listdir(f"/proc/{pid}/fd"))
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return Sample(at_s, pages * os.sysconf("SC_PAGE_SIZE"), files, cpu_s)


def _print(sample: Sample, highest: int, seen: Seen) -> int:
    print(
        f"{sample.at_s:7.0f} s  most memory {highest / 1e6:6.1f} MB  files {sample.files:3}  "
        f"CPU {sample.cpu_s:6.1f} s  attempts {seen.attempts.total():,}  lost {seen.all_lost:,}",
        flush=True,
    )
    return 0


# -- what must hold --------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """One thing that had to hold."""

    what: str
    holds: bool
    figures: str


def judged(run: Run) -> list[Held]:
    """Return what had to hold of a soak, and whether it did."""
    return [_memory(run), _files(run), *_counts(run)]


def _halves(run: Run) -> tuple[list[Sample], list[Sample]]:
    # The last period of the warm-up, and all after it but the end, when everything is let go.
    load = run.load
    begin_s = load.warm_up_s - load.period_s
    before = [each for each in run.samples if begin_s <= each.at_s < load.warm_up_s]
    after = [each for each in run.samples if load.warm_up_s <= each.at_s < load.seconds]
    return before, after


def _memory(run: Run) -> Held:
    before, after = (max(each.rss_bytes for each in half) for half in _halves(run))
    text = f"{before / 1e6:.1f} MB at most in the warm-up's last period, {after / 1e6:.1f} later"
    return Held("memory is flat", after <= GROWTH * before, text)


def _files(run: Run) -> Held:
    before, after = ([each.files for each in half] for half in _halves(run))
    # A look at a process or namespace opens one for a moment.
    usual = statistics.median(before), statistics.median(after)
    holds = usual[0] == usual[1] and max(after) <= max(before) + 2
    text = f"{usual[0]:.0f} and {usual[1]:.0f} usually, {max(after)} at most"
    return Held("files are as many as before", holds, text)


def _counts(run: Run) -> Iterator[Held]:
    made, seen = run.made, run.seen
    told, lost = seen.attempts.total(), seen.all_lost
    text = f"{made.total():,} made, {told:,} told, {lost:,} events lost"
    yield Held("attempts told and losses are all", told <= made.total() <= told + lost, text)
    if not lost:
        kinds = ", ".join(f"{count:,} {name}" for name, count in sorted(seen.attempts.items()))
        yield Held("each has its outcome", seen.attempts == made, kinds)
    if seen.end and seen.end.counters:
        wanted, found = seen.end.counters["events"], seen.events + seen.lost
        text = f"{wanted:,} counted in the kernel, {seen.events:,} recorded, {seen.lost:,} lost"
        yield Held("events told and lost are all", found == wanted, text)


def main() -> int:
    """Run one soak; return 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=20_000, help="connects a second at the top")
    parser.add_argument("--period", type=float, default=60, help="seconds from low to low")
    parser.add_argument("--warm-up", type=float, default=120, help="seconds before comparisons")
    parser.add_argument("--live", action="store_true", help="the live trace, not a recording")
    asked = parser.parse_args()
    seconds = asked.minutes * 60
    if not 2 * asked.period <= 2 * asked.warm_up <= seconds:
        parser.error("the warm-up is at least a period, and at most half of the time")
    load = Load(seconds, asked.rate, asked.period, asked.warm_up)
    with tempfile.TemporaryDirectory(prefix="porttrace-soak-") as folder:
        run = soak(load, asked.live, Path(folder))
    return printed(run)


def printed(run: Run) -> int:
    """Print what had to hold of a soak; return 1 where something did not."""
    results = judged(run)
    mean = run.made.total() / run.load.seconds
    used = run.samples[-1].cpu_s / run.load.seconds
    rate = f"{mean:,.0f} connects a second, {run.most_a_second:,} at most"
    print(f"\n{run.load.seconds:.0f} s, {rate}; porttrace took {used:.0%} of a CPU")
    for each in results:
        print(f"{'held' if each.holds else 'FAILED':7} {each.what}: {each.figures}")
    return 0 if all(each.holds for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())
