"""`porttrace record`: events to a file, and nothing else: the least that a trace can cost.

Imports nothing of the analysis that knows pandas: the traced host keeps its memory.
"""

import math
import re
import time
from typing import Any

import click
import numpy as np

from porttrace.analysis import attempts
from porttrace.analysis.held import still_held
from porttrace.analysis.render.escape import printable
from porttrace.cli.child import Child
from porttrace.cli.completion import files
from porttrace.cli.hearing import note
from porttrace.cli.options import Duration, filters, keep_root_option, trace_options
from porttrace.cli.running import (
    Pace,
    check_targets,
    ends_with,
    over,
    say_what_names_leave_out,
    started,
    stop_flag,
    what_is_traced,
)
from porttrace.tracer import features
from porttrace.tracer.event import Events, EventType, of_kinds
from porttrace.tracer.facts import Held, Suspect
from porttrace.tracer.live import LiveTrace, Round
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.parts import Parts, Rotation
from porttrace.tracer.privileges import Privileges, lesser
from porttrace.tracer.recorder import Recorder, end, header
from porttrace.tracer.words import count

_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# A hold this long makes us ask what could be the cause, while the process is there.
_SUSPECT_NS = 10_000_000
_ASK_AGAIN_S = 30.0  # a census this old is taken again when another hold is seen
_ASKED_AT_FIRST = 16  # processes, before anything of them was held


class Rotate(click.ParamType):  # type: ignore[type-arg]
    """A size (100M, 2G) or a time (10m, 24h). A `Rotation`."""

    name = "size|time"

    def convert(self, value: Any, param: Any, ctx: Any) -> Rotation:
        """Return the rotation; click's own error tells what can be written."""
        if size := re.fullmatch(r"([1-9]\d{0,9})([KMG])", str(value)):
            return Rotation(size=int(size[1]) * _SIZES[size[2]])
        if re.fullmatch(r"[\d.]+(s|m|h)", str(value)):
            return Rotation(seconds=Duration().convert(value, param, ctx))
        self.fail(f"{value!r} is no size or time; write 100M, 2G, 10m or 24h", param, ctx)


@click.command(name="record")
@click.option("-o", "--output", required=True, metavar="FILE", shell_complete=files,
              help="Write the recording here; - is standard output.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
@click.option("--rotate", type=Rotate(),
              help="Begin a new part, FILE-0001 and so on, at this size or time.")  # fmt: skip
@click.option("--keep", type=click.IntRange(1), help="Keep only the last parts, so many.")
@filters
@click.option("-d", "--duration", type=Duration(), help="Stop after this time (30, 30s, 5m).")
@keep_root_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, shell_complete=files)
def record(
    output: str,
    force: bool,
    rotate: Rotation | None,
    keep: int | None,
    duration: float | None,
    keep_root: bool,
    command: tuple[str, ...],
    **chosen: Any,
) -> int:
    """Record connection attempts to a file until Ctrl-C, -d, or the end of COMMAND.

    Nothing is analysed meanwhile. Every part of a rotated recording can be read by itself.

    \b
    Example:
      sudo porttrace record -o login.ptrace --pid 1234 -d 10m
      sudo porttrace record -o watch.ptrace --rotate 100M --keep 20
    """
    if keep and not rotate:
        raise click.UsageError("--keep needs --rotate: without it there is one file.")
    if rotate and output == "-":
        raise click.UsageError("--rotate needs files: name one with -o FILE instead of -.")
    features.require()
    check_targets(chosen["pids"])
    rotation = Rotation(rotate.size, rotate.seconds, keep or 0) if rotate else None
    parts = Parts(output, force, rotation)
    with parts, started(command, output_to_stderr=output == "-") as child:
        options = trace_options(command_pid=child.pid if child else 0, **chosen)
        rights = None if keep_root else lesser(parts.folder, child is not None)
        return _record(options, child, duration, parts, rights)


def _record(
    options: TraceOptions,
    child: Child | None,
    duration_s: float | None,
    parts: Parts,
    privileges: Privileges | None,
) -> int:
    with stop_flag() as stopped, LiveTrace(options, features.compile_flags(), privileges) as live:
        until = time.monotonic() + duration_s if duration_s else float("inf")
        with Recorder(parts, header(live), still_open) as recorder:
            watch = _Watch(live)
            if child:
                child.release()
            what = printable(what_is_traced(options, child))
            note(f"Recording {what}. {ends_with(duration_s)}.")
            if not child:  # before its exec a command is not yet what it will be
                say_what_names_leave_out(options)
                watch.begin(recorder)
            while not recorder.error and not stopped() and not over(options, child):
                if time.monotonic() >= until:
                    break
                watch.turn(recorder)
            watch.last_turn(recorder)
        note(summary(recorder, live.start_ns))
    return child.status or 0 if child else 0


class _Watch:
    # Looks now and then at what no event tells of: held threads, and what could hold them.
    def __init__(self, live: LiveTrace) -> None:
        self._live = live
        self._look, self._ask = Pace(1.0), Pace(0.0)
        self._held: list[Held] = []
        self._wanted: set[int] = set()
        self._suspects: dict[int, tuple[Suspect, ...]] = {}
        self._asked_s: dict[int, float] = {}

    def begin(self, recorder: Recorder) -> None:
        """Ask what could hold the connects of the first processes named."""
        self._want(set(sorted(self._live.options.pids)[:_ASKED_AT_FIRST]))
        self._inquire(recorder)

    def turn(self, recorder: Recorder) -> None:
        """Read once and record it; look and ask when due."""
        self._take(recorder, self._live.read())
        self._look.run(lambda: self._see(recorder))
        if self._wanted:
            self._ask.run(lambda: self._inquire(recorder))

    def last_turn(self, recorder: Recorder) -> None:
        """Drain, and write the end of the recording."""
        self._see(recorder)
        self._take(recorder, self._live.finish())
        self._inquire(recorder)
        recorder.finish(end(self._live, time.monotonic_ns()))

    def _take(self, recorder: Recorder, done: Round) -> None:
        recorder.put(done)
        self._held = still_held(self._held, done.events)
        self._want(held_pids(done.events))

    def _see(self, recorder: Recorder) -> None:
        self._held, now_ns = self._live.held(), time.monotonic_ns()
        self._want({each.pid for each in self._held if now_ns - each.since_ns > _SUSPECT_NS})
        recorder.look(self._held, self._suspects)

    def _want(self, pids: set[int]) -> None:
        now_s = time.monotonic()
        old = {pid for pid in pids if now_s - self._asked_s.get(pid, -math.inf) > _ASK_AGAIN_S}
        self._wanted |= old

    def _inquire(self, recorder: Recorder) -> None:
        for pid in self._wanted:
            self._asked_s[pid] = time.monotonic()
            found = self._live.suspects_of(pid)
            # Gone meanwhile: what was found before is better than nothing.
            self._suspects[pid] = found or self._suspects.get(pid, ())
        self._wanted.clear()
        recorder.look(self._held, self._suspects)


def held_pids(events: Events) -> set[int]:
    """Return the processes of which a thread was held before its call for 10 ms or more.

    And those whose SYN had to be sent again.
    """
    call = events["call_ns"].astype(np.int64)
    held = np.zeros(len(events), bool)
    for name in ("gate_ns", "sleep_ns"):
        begun = events[name].astype(np.int64)
        held |= (begun > 0) & (call - begun > _SUSPECT_NS)
    held |= of_kinds(events, EventType.RETRANSMIT)
    if not held.any():
        return set()
    return set(np.unique(events["pid"][held]).tolist())


def still_open(carried: Events, events: Events, watermark_ns: int) -> Events:
    """Return the events of attempts that are not over: what the next part begins with."""
    return attempts.step(events, attempts.Open(carried), watermark_ns)[1].events


def summary(recorder: Recorder, start_ns: int) -> str:
    """Return the line that a recording ends with."""
    paths = recorder.parts.paths
    where = paths[-1] if len(paths) == 1 else f"{paths[0]} .. {paths[-1]}"
    lost = f"{recorder.lost:,} lost" if recorder.lost else "none lost"
    seconds = (time.monotonic_ns() - start_ns) / 1e9
    events = count(recorder.events, "event", f"{recorder.events:,}")
    return (
        f"Recorded {events} ({lost}) in {seconds:.1f} s: "
        f"{recorder.parts.size / 1e6:.1f} MB in {printable(where)}"
    )
