"""The live trace: what `porttrace --pid N` and `porttrace -- COMMAND` run."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from porttrace.analysis.findings import diagnose
from porttrace.analysis.model import start_ns
from porttrace.analysis.render.text import level
from porttrace.cli.child import Child
from porttrace.cli.options import Duration, filters, trace_options
from porttrace.cli.printer import JsonPrinter, Printer, TextPrinter
from porttrace.cli.session import Session
from porttrace.tracer import features, processes
from porttrace.tracer.errors import TargetError
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.options import TraceOptions

# An attempt that waits is shown when it crosses each of these.
_PENDING_S = (1, 3, 10, 30, 60, 120, 300, 600)
# Looking and diagnosing may take this share of the time, and no more.
_SHARE = 0.05


@click.command(name="live")
@filters
@click.option("-d", "--duration", type=Duration(), help="Stop after this time (30, 30s, 5m).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("-t", "--timestamps", is_flag=True, help="Times of the clock, not since the start.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def live(
    duration: float | None,
    as_json: bool,
    timestamps: bool,
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
    """
    features.require()
    _check_targets(chosen["pids"])
    with _started(command, as_json) as child:
        options = trace_options(command_pid=child.pid if child else 0, **chosen)
        return trace_live(options, child, duration, as_json, timestamps)


def _started(command: tuple[str, ...], as_json: bool) -> AbstractContextManager[Child | None]:
    return Child(command, output_to_stderr=as_json) if command else nullcontext()


def _check_targets(pids: Sequence[int]) -> None:
    for pid in pids:
        if not processes.exists(pid):
            owner = processes.thread_group(pid)
            hint = (
                f"{pid} is a thread of process {owner}: use --pid {owner}"
                if owner
                else "'ps -e' or 'pgrep NAME' shows the processes that are there"
            )
            raise TargetError(f"there is no process {pid}", hint)


def trace_live(
    options: TraceOptions,
    child: Child | None,
    duration_s: float | None,
    as_json: bool,
    timestamps: bool = False,
) -> int:
    """Trace until something ends it; return the exit code (that of COMMAND when it ended)."""
    with _stop_flag() as stopped, LiveTrace(options, features.compile_flags()) as live_trace:
        printer: Printer = (
            JsonPrinter() if as_json else TextPrinter(live_trace.start_ns, timestamps)
        )
        session = Session(live_trace)
        if child:
            child.release()
        printer.begin(_beginning(options, child))
        until = time.monotonic() + duration_s if duration_s else float("inf")
        loop = _Loop(session, printer)
        while time.monotonic() < until and not stopped() and not _over(options, child):
            loop.turn(live_trace)
        loop.last_turn(live_trace)
    return child.status or 0 if child else 0


def _beginning(options: TraceOptions, child: Child | None) -> str:
    what = options.describe() or "all processes"
    if child:
        what = f"the command (pid {child.pid}) and its children"
    return f"Tracing {what}. Ctrl-C ends it with a summary."


def _over(options: TraceOptions, child: Child | None) -> bool:
    if child:
        return child.ended()
    return bool(options.pids) and not any(processes.exists(pid) for pid in options.pids)


@contextmanager
def _stop_flag() -> Iterator[Callable[[], bool]]:
    # Ctrl-C and SIGTERM only raise a flag: the loop drains, sums up and returns 0.
    seen: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, _: seen.append(n)) for number in numbers}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Pace:
    # Runs something now and then, seldom enough that it takes only its share.
    least_s: float
    due_s: float = 0.0

    def run(self, work: Callable[[], None]) -> None:
        begin = time.monotonic()
        if begin < self.due_s:
            return
        work()
        end = time.monotonic()
        self.due_s = end + max(self.least_s, (end - begin) / _SHARE)


class _Loop:
    def __init__(self, session: Session, printer: Printer) -> None:
        self._session, self._printer = session, printer
        self._look, self._diagnose = _Pace(0.25), _Pace(1.0)
        self._announced: dict[tuple[str, ...], str] = {}
        self._shown_s: dict[tuple[int, ...], int] = {}

    def turn(self, live_trace: LiveTrace) -> None:
        self._printer.attempts(self._session.take(live_trace.read()))
        self._look.run(self._show_pending)
        self._diagnose.run(self._announce)

    def last_turn(self, live_trace: LiveTrace) -> None:
        self._session.look()
        self._printer.attempts(self._session.take(live_trace.finish()))
        trace = self._session.trace(time.monotonic_ns())
        self._printer.end(trace, diagnose(trace))

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
        for finding in self._session.diagnose():
            key = (finding.rule, finding.place, finding.scope, str(sorted(finding.subject.items())))
            if self._announced.get(key) not in (level(finding), "firm"):
                self._announced[key] = level(finding)
                self._printer.finding(finding)
