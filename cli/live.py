"""The live trace: what `porttrace --pid N` and `porttrace -- COMMAND` run."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from porttrace.analysis.findings import diagnose, same
from porttrace.analysis.model import Finding, start_ns
from porttrace.analysis.render.closing import level
from porttrace.cli.child import Child
from porttrace.cli.completion import files
from porttrace.cli.hearing import nobody_hears, unless_gone
from porttrace.cli.options import Duration, filters, keep_root_option, trace_options
from porttrace.cli.printer import JsonPrinter, Printer, TextPrinter
from porttrace.cli.running import (
    Pace,
    check_targets,
    ends_with,
    over,
    say_what_is_left_out,
    started,
    stop_flag,
    what_is_traced,
)
from porttrace.cli.session import Session
from porttrace.tracer import features
from porttrace.tracer.live import LiveTrace, Round
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.parts import Parts
from porttrace.tracer.privileges import Privileges, lesser

if TYPE_CHECKING:
    from porttrace.tracer.recorder import Recorder

# An attempt that waits is shown when it crosses each of these.
_PENDING_S = (1, 3, 10, 30, 60, 120, 300, 600)


@click.command(name="live")
@filters
@click.option("-d", "--duration", type=Duration(), help="Stop after this time (30, 30s, 5m).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("-t", "--timestamps", is_flag=True, help="Times of the clock, not since the start.")
@click.option("-o", "--output", metavar="FILE", shell_complete=files, help="Record here, too.")
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
@keep_root_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, shell_complete=files)
def live(
    duration: float | None,
    as_json: bool,
    timestamps: bool,
    output: str | None,
    force: bool,
    keep_root: bool,
    command: tuple[str, ...],
    **chosen: Any,
) -> int:
    """Trace connection attempts until Ctrl-C, -d, or the end of COMMAND.

    Prints a line for each attempt when it ends, for each that waits for more than a
    second while it waits, findings as they firm up, and a summary at the end.
    With --json standard output is ours alone: COMMAND's output goes to standard error.

    \b
    Example:
      sudo porttrace --pid 1234 -d 1m
      sudo porttrace --json -- curl http://192.0.2.2/
      sudo porttrace -o login.ptrace --pid 1234
    """
    if force and not output:
        raise click.UsageError("--force needs -o: it is about the file of the recording.")
    features.require()
    check_targets(chosen["pids"])
    with ExitStack() as ends:
        parts = ends.enter_context(output_file(output, force)) if output else None
        child = ends.enter_context(started(command, as_json))
        options = trace_options(command_pid=child.pid if child else 0, **chosen)
        rights = None if keep_root else lesser(parts.folder if parts else None, child is not None)
        return trace_live(options, child, duration, as_json, timestamps, parts, privileges=rights)


def output_file(path: str, force: bool) -> Parts:
    """Open the file that a live trace is recorded to. Raises OutputError or click.UsageError."""
    if path == "-":
        raise click.UsageError("standard output is taken; 'porttrace record -o -' writes there.")
    return Parts(path, force)


def trace_live(
    options: TraceOptions,
    child: Child | None,
    duration_s: float | None,
    as_json: bool,
    timestamps: bool = False,
    parts: Parts | None = None,
    on_end: Callable[[Sequence[Finding]], None] | None = None,
    privileges: Privileges | None = None,
) -> int:
    """Trace until something ends it; return the exit code (that of COMMAND when it ended).

    With `parts` it is recorded, too: an error in that is raised after the summary.
    `on_end` gets the findings after they were printed. With `privileges` this process has no
    others once it is attached.
    """
    with ExitStack() as ends:
        stopped = ends.enter_context(stop_flag())
        live_trace = ends.enter_context(LiveTrace(options, features.compile_flags(), privileges))
        session = Session(live_trace)
        printer: Printer = (
            JsonPrinter(session.processes, session.host.drop_reasons)
            if as_json
            else TextPrinter(live_trace.start_ns, timestamps, session.processes)
        )
        recorder = ends.enter_context(_recorder(live_trace, parts)) if parts else None
        if child:
            child.release()
        until = time.monotonic() + duration_s if duration_s else float("inf")
        loop = _Loop(session, printer, recorder)

        def ended() -> bool:
            late = time.monotonic() >= until
            return late or stopped() or nobody_hears() or over(options, child)

        with unless_gone():
            what = what_is_traced(options, child)
            printer.begin(f"Tracing {what}. {ends_with(duration_s)} with a summary.")
            if not child:  # before its exec a command is not yet what it will be
                say_what_is_left_out(options)
                session.begin()
            while not ended():
                loop.turn(live_trace)
        if nobody_hears() and not on_end:
            loop.unheard_turn(live_trace)
        else:
            findings = loop.last_turn(live_trace)
            if on_end:
                on_end(findings)
    return child.status or 0 if child else 0


def _recorder(live_trace: LiveTrace, parts: Parts) -> "Recorder":
    # pyarrow is not needed, and not waited for, where nothing is recorded.
    from porttrace.tracer.recorder import Recorder, header

    return Recorder(parts, header(live_trace))


class _Loop:
    def __init__(
        self, session: Session, printer: Printer, recorder: "Recorder | None" = None
    ) -> None:
        self._session, self._printer, self._recorder = session, printer, recorder
        self._look, self._diagnose = Pace(0.25), Pace(1.0)
        self._announced: dict[tuple[str, ...], Finding] = {}
        self._fallen: set[tuple[str, ...]] = set()  # announced, and not found the last time
        self._shown_s: dict[tuple[int, ...], int] = {}

    def turn(self, live_trace: LiveTrace) -> None:
        """Read once, 50 ms at most, and print what that brought; look and diagnose when due."""
        self._take(live_trace.read())
        self._look.run(self._show_pending)
        self._diagnose.run(self._announce)

    def last_turn(self, live_trace: LiveTrace) -> tuple[Finding, ...]:
        """Drain, print the end, finish the recording, and return what was found in all."""
        self._session.look()
        with unless_gone():
            self._take(live_trace.finish(), last=True)
        trace = self._session.trace(time.monotonic_ns())
        findings = diagnose(trace)
        with unless_gone():
            self._take_back(self._missing(findings))
            self._printer.end(trace, findings)
        self._end_recording(live_trace, trace.end_ns)
        return findings

    def unheard_turn(self, live_trace: LiveTrace) -> None:
        """Drain and finish the recording: nobody is there whom all the rest could be told."""
        self._session.look()
        done = live_trace.finish()
        if self._recorder:
            self._recorder.put(done)
        self._end_recording(live_trace, time.monotonic_ns())

    def _end_recording(self, live_trace: LiveTrace, end_ns: int) -> None:
        if self._recorder:
            from porttrace.tracer.recorder import end

            self._recorder.look(self._session.held, self._session.suspects)
            self._recorder.finish(end(live_trace, end_ns))

    def _take(self, done: Round, last: bool = False) -> None:
        if self._recorder:
            self._recorder.put(done)
            self._recorder.look(self._session.held, self._session.suspects)
        self._printer.attempts(self._session.take(done))
        self._printer.binds(self._session.take_binds(done, last), self._session.looked)

    def _show_pending(self) -> None:
        self._session.look()
        now_ns = time.monotonic_ns()
        rows = self._session.waiting()
        steps = {self._identity(row): self._step(row, now_ns) for row in rows}
        due = [i for i, row in enumerate(rows) if self._is_due(row, steps)]
        self._shown_s = steps
        if due:
            self._printer.pending(rows[due], now_ns, self._session.stacks)

    def _identity(self, row: np.void) -> tuple[int, ...]:
        # A held attempt keeps its identity when it moves on from the gate.
        return int(row["tid"]), int(row["gate_ns"] or row["call_ns"] or row["syn_ns"])

    def _step(self, row: np.void, now_ns: int) -> int:
        waited_s = (now_ns - int(start_ns(np.array([row]))[0])) / 1e9
        return sum(waited_s >= step for step in _PENDING_S)

    def _is_due(self, row: np.void, steps: dict[tuple[int, ...], int]) -> bool:
        key = self._identity(row)
        return steps[key] > self._shown_s.get(key, 0)

    def _announce(self) -> None:
        findings = self._session.diagnose()
        for finding in findings:
            known = self._announced.get(same(finding))
            # What was foretold is said again when it has come true: by then it is critical.
            worse = known is not None and known.severity != finding.severity == "critical"
            if known is None or worse or level(known) not in (level(finding), "firm"):
                self._announced[same(finding)] = finding
                self._printer.finding(finding)
        # Twice in a row: at the border of "likely" one round says little.
        missing = self._missing(findings)
        self._take_back(missing & self._fallen)
        self._fallen = missing

    def _missing(self, findings: Sequence[Finding]) -> set[tuple[str, ...]]:
        return self._announced.keys() - {same(finding) for finding in findings}

    # Nobody shall act on what was said and no longer holds.
    def _take_back(self, keys: set[tuple[str, ...]]) -> None:
        for key in sorted(keys):
            self._printer.withdrawn(self._announced.pop(key))
