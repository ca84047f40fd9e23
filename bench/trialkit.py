"""What trials of faults stand on: load programs, porttrace under way, counts, what is left over."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from porttrace.analysis import load
from porttrace.tracer.census import bpf
from porttrace.tracer.event import EventType
from porttrace.tracer.probe import ANY_CPU
from porttrace.tracer.tracefile import TraceReader

PORTTRACE = (sys.executable, "-m", "porttrace.cli")
HERE = Path(__file__).parent
_OURS = (EventType.LOSS, EventType.WATCH)  # made by porttrace itself, never in the kernel
_MAP_FD = 14  # BPF_MAP_GET_FD_BY_ID, as the others of census.bpf


class FaultError(Exception):
    """Something did not hold."""


class NotTriedError(Exception):
    """This host has not what the trial needs."""


def require(holds: object, what: str) -> None:
    """Raise FaultError where it does not hold."""
    if not holds:
        raise FaultError(what)


# -- programs and recordings ---------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """The built load programs, a folder to write to, and chance."""

    folder: Path
    chance: random.Random

    def storm(self, connects: int, threads: int = 2) -> list[str]:
        """Return what makes refused connects, as fast as it can."""
        return [str(self.folder / "storm"), str(connects), str(threads)]

    def short(self, processes: int, a_second: int) -> list[str]:
        """Return what makes processes that connect once."""
        return [str(self.folder / "short"), str(processes), str(a_second)]

    def shim(self, **settings: object) -> dict[str, str]:
        """Return the environment in which a process has these faults (bench/shim.c)."""
        set_here = {f"SHIM_{name.upper()}": str(value) for name, value in settings.items()}
        return {**os.environ, "LD_PRELOAD": str(self.folder / "shim"), **set_here}

    def path(self) -> Path:
        """Return the name of a new file."""
        return self.folder / f"{self.chance.getrandbits(64):x}.ptrace"


@contextlib.contextmanager
def opened(seed: int) -> Iterator[Bench]:
    """Build the load programs; all files are removed at the end."""
    with tempfile.TemporaryDirectory(prefix="porttrace-") as name:
        for program, more in (("storm", ()), ("short", ()), ("shim", ("-shared", "-fPIC", "-ldl"))):
            words = ["gcc", "-O2", "-Wall", "-pthread", "-o", f"{name}/{program}"]
            subprocess.run([*words, HERE / f"{program}.c", *more], check=True)
        yield Bench(Path(name), random.Random(seed))


@contextlib.contextmanager
def begun(
    *words: str, before: Sequence[str] = (), **more: Any
) -> "Iterator[subprocess.Popen[str]]":
    """Run porttrace; whatever happens it is gone afterwards."""
    process = subprocess.Popen(
        [*before, *PORTTRACE, *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **{"stdout": subprocess.DEVNULL, **more},
    )  # fmt: skip
    try:
        yield process
    finally:
        # Its command, too: it has a session, and with that a process group, of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def at_once(bench: Bench, paths: Sequence[Path], connects: int) -> None:
    """Record one storm into each of the paths, all at the same time."""
    with contextlib.ExitStack() as ends:
        words = ("record", "-P", "9", "--comm", "storm", "-o")
        each = [ends.enter_context(begun(*words, str(path))) for path in paths]
        for process in each:
            attached(process)
        subprocess.run(bench.storm(connects), check=True)
        for process in each:
            process.send_signal(signal.SIGINT)
        for process in each:
            over(process)


def attached(process: "subprocess.Popen[str]") -> None:
    """Wait until porttrace says that it traces."""
    assert process.stderr
    line = process.stderr.readline()
    require(line.startswith(("Tracing ", "Recording ")), f"it began with {line!r}")


def over(process: "subprocess.Popen[str]", timeout_s: float = 60) -> str:
    """Wait for its end, with exit code 0; return its standard output."""
    out, err = process.communicate(timeout=timeout_s)
    require("Traceback" not in err, err)
    require(process.returncode == 0, f"exit code {process.returncode}: {err}")
    return out or ""


@dataclass(frozen=True)
class Counted:
    """What stands in a recording: events of the kernel, and those that were lost.

    `passed` are programs that the kernel stepped over because an interrupt came in the middle of
    one: lost, too, but some of them would have made no event.
    """

    events: int
    lost: int
    passed: int
    ends: int

    def is_all_of(self, wanted: int) -> bool:
        """Return whether received and lost are what was made."""
        return self.events + self.lost <= wanted <= self.events + self.lost + self.passed

    def __add__(self, other: "Counted") -> "Counted":
        mine, its = astuple(self), astuple(other)
        return Counted(*(here + there for here, there in zip(mine, its, strict=True)))


def counted(path: Path) -> Counted:
    """Count one part; what stood in the part before it already is left out."""
    events = lost = passed = ends = 0
    with TraceReader(path) as reader:
        for batch in reader:
            rows = batch.events[batch.beside.carried :]
            losses = rows[rows["type"] == EventType.LOSS]
            anywhere = losses["cpu"] == ANY_CPU
            lost += int(losses["in_flight"][~anywhere].sum())
            passed += int(losses["in_flight"][anywhere].sum())
            events += int((~np.isin(rows["type"], _OURS)).sum())
            ends += int((rows["type"] == EventType.END).sum())
    return Counted(events, lost, passed, ends)


def all_of(path: Path, wanted: int) -> str:
    """Require that a recording has so many events, lost ones included; return its figure."""
    found = counted(path)
    require(found.is_all_of(wanted), f"{found}, made {wanted}")
    return f"{found.lost:,} of {wanted:,} events lost and told"


def all_attempts(path: Path, wanted: int) -> str:
    """Require the same of attempts, and of events what the kernel program counted itself."""
    found = load(path)
    rows, lost = len(found.trace.attempts), found.trust.lost_events
    require(found.complete, found.why_incomplete)
    require(rows <= wanted <= rows + lost, f"{rows} attempts of {wanted}, {lost} events lost")
    with TraceReader(path) as reader:
        ends = [batch.beside.end for batch in reader if batch.beside.end]
    here, made_there = counted(path), (ends[-1].counters or {})["events"]
    require(here.events + here.lost == made_there, f"{here}, {made_there} made in the kernel")
    return f"{rows:,} of {wanted:,} attempts, {lost:,} events lost and told"


def record(bench: Bench, command: Sequence[str], *options: str) -> Counted:
    """Record a command in peace."""
    path = bench.path()
    with begun("record", "-o", str(path), *options, "--", *command) as process:
        over(process)
    return counted(path)


@dataclass(frozen=True)
class Made:
    """How many events a storm makes here: found by two small ones that nothing disturbs."""

    each: int
    beside: int

    def by(self, connects: int) -> int:
        """Return the events of a storm of so many connects."""
        return self.each * connects + self.beside


def made(bench: Bench) -> Made:
    """Find out what a storm makes in the kernel, besides the connects: its exec, its exit."""
    few, more = record(bench, bench.storm(10)), record(bench, bench.storm(30))
    missing = few.lost + more.lost + few.passed + more.passed
    require(missing == 0, "events were lost of ten connects")
    each = (more.events - few.events) // 20
    require(few.events - each * 10 >= 0 and each >= 2, f"{few} and {more}")
    return Made(each, few.events - each * 10)


# -- what is left in the kernel ------------------------------------------------------------


def kernel_objects(pid: int) -> dict[str, set[int]]:
    """Return the ids of the programs, maps and links that a process has descriptors of."""
    found: dict[str, set[int]] = {"prog": set(), "map": set(), "link": set()}
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            for kind, number in re.findall(
                r"^(prog|map|link)_id:\s*(\d+)$", path.read_text(), re.M
            ):
                found[kind].add(int(number))
    return found


def still_there(objects: dict[str, set[int]]) -> list[str]:
    """Return which of them the kernel still has."""
    commands = {"prog": bpf._PROG_FD, "map": _MAP_FD, "link": bpf._LINK_FD}
    left = []
    for kind, numbers in objects.items():
        for number in numbers:
            with contextlib.suppress(FileNotFoundError):
                handle, _ = bpf.call(commands[kind], number.to_bytes(4, "little"))
                os.close(handle)
                left.append(f"{kind} {number}")
    return left


def vanish(objects: dict[str, set[int]], within_s: float = 1.0) -> None:
    """Wait until all are gone; raise FaultError where they are not in time."""
    until = time.monotonic() + within_s
    while left := still_there(objects):
        require(time.monotonic() < until, f"left in the kernel after {within_s} s: {left}")
        time.sleep(0.01)


# -- processes and control groups ----------------------------------------------------------


def children(pid: int) -> list[int]:
    """Return the children that a process has now."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def await_storm(pid: int, timeout_s: float = 60) -> None:
    """Wait until the command of a stopped porttrace has ended: nobody has waited for it yet."""
    child = children(pid)[0]
    until = time.monotonic() + timeout_s
    while "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        require(time.monotonic() < until, "the storm does not end")
        time.sleep(0.02)


def memory_group(most: int) -> "contextlib.AbstractContextManager[Path]":
    """Make a control group with so many bytes; yield the file that takes who enters it."""
    return group("memory", {"memory.limit_in_bytes": str(most)}, {"memory.max": str(most)})


@contextlib.contextmanager
def group(controller: str, first: dict[str, str], second: dict[str, str]) -> Iterator[Path]:
    """Make a control group with these limits, of version 1 or 2; yield its cgroup.procs.

    Raises NotTriedError where this host has no such limits.
    """
    v1 = Path("/sys/fs/cgroup") / controller
    base, limits = (v1, first) if v1.is_dir() else (v1.parent, second)
    folder = base / f"porttrace-faults-{os.getpid()}"
    try:
        folder.mkdir()
        for name, value in limits.items():
            (folder / name).write_text(value)
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise NotTriedError(f"no control group with {', '.join(limits)}: {error}") from None
    try:
        yield folder / "cgroup.procs"
    finally:
        _removed(folder)


def _removed(folder: Path) -> None:
    until = time.monotonic() + 5
    while True:  # who is in it may still be ending
        try:
            folder.rmdir()
            break
        except OSError:
            require(time.monotonic() < until, f"{folder} cannot be removed")
            time.sleep(0.05)


def entering(procs: Path) -> tuple[str, ...]:
    """Return the words that a command is run by in a control group."""
    return ("sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh")


def peak_of(group: Path) -> int:
    """Return the most bytes that a control group had, 0 where the kernel does not tell."""
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        with contextlib.suppress(OSError):
            return int((group / name).read_text())
    return 0
