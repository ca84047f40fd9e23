"""What the live trace prints while it runs: lines for people, or an object a line."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from porttrace.analysis.bind_names import UDP, key
from porttrace.analysis.model import (
    ATTEMPT,
    Attempts,
    BindCall,
    Binds,
    Finding,
    Looked,
    Process,
    Trace,
)
from porttrace.analysis.render import report, text
from porttrace.analysis.render.escape import printable
from porttrace.cli import hearing
from porttrace.cli.lines import Lines

Stacks = Mapping[int, tuple[str, ...]]
Processes = Mapping[int, Process]


class Printer(Protocol):
    """Prints data to standard output; notes go to standard error."""

    def begin(self, note: str) -> None:
        """Begin, before anything else; `note` says what is traced."""

    def attempts(self, rows: Attempts) -> None:
        """Print finished attempts, each once."""

    def binds(self, rows: Binds, looked: Mapping[tuple[int, int], Looked]) -> None:
        """Print calls of bind and listen; `looked` is that of a `Trace`, and may grow."""

    def pending(self, rows: Attempts, now_ns: int, stacks: Stacks) -> None:
        """Print attempts that are not over at `now_ns`; the stacks are by their numbers."""

    def finding(self, finding: Finding) -> None:
        """Print what was found, once more when it became firm or critical."""

    def withdrawn(self, finding: Finding) -> None:
        """Take back a finding that was printed."""

    def end(self, trace: Trace, findings: Sequence[Finding]) -> None:
        """Print the report of the whole trace."""


class TextPrinter:
    """Lines for a person: under 80 columns, times since the start or of the clock.

    `processes` may grow meanwhile: what is known of a process says in which container it is.
    """

    def __init__(
        self, start_ns: int, wall_clock: bool = False, processes: Processes | None = None
    ) -> None:
        self._start_ns = start_ns
        self._processes = {} if processes is None else processes
        self._wall_clock = wall_clock
        self._told: set[tuple[int, int]] = set()
        self._lines = Lines()

    def _time(self, mark_ns: int) -> str:
        if self._wall_clock:
            wall_s = time.time() - (time.monotonic_ns() - mark_ns) / 1e9
            return time.strftime("%H:%M:%S", time.localtime(wall_s))
        # Eight columns: of long traces the milliseconds go first.
        return f"{(mark_ns - self._start_ns) / 1e9:.3f}"[:8].rstrip(".")

    def begin(self, note: str) -> None:
        """Say what is traced, and print the heading."""
        hearing.note(printable(note))
        print(text.live_header(), flush=True)

    def attempts(self, rows: Attempts) -> None:
        """Print a line for each attempt that ended, or count those that are too many to read."""
        rows = self._lines.chosen(rows)
        for row, hold in zip(rows, text.holds_of(rows, 0), strict=True):
            known = self._processes.get(int(row["pid"]))
            print(text.attempt_line(row, self._time(_over_ns(row)), hold, known))
        self._tell_left_out()
        sys.stdout.flush()

    def _tell_left_out(self, last: bool = False) -> None:
        counts = self._lines.left_out(last)
        if counts:
            print(text.left_out_line(self._time(time.monotonic_ns()), counts))

    def binds(self, rows: Binds, looked: Mapping[tuple[int, int], Looked]) -> None:
        """Print a line for each call that failed, and for each that made a server."""
        for row in rows[(rows["errno"] > 0) | _serves(rows)]:
            known = self._processes.get(int(row["pid"]))
            found = looked.get(key(row))
            print(text.bind_line(row, self._time(int(row["time_ns"])), known, found))
        sys.stdout.flush()

    def pending(self, rows: Attempts, now_ns: int, stacks: Stacks) -> None:
        """Print a line for each attempt that is still not over, and what holds it."""
        for row, hold in zip(rows, text.holds_of(rows, now_ns), strict=True):
            # What holds it is told once; every further line only says that it still does.
            which = int(row["tid"]), int(row["gate_ns"] or row["call_ns"])
            frames = () if which in self._told else stacks.get(_stack_id(row), ())
            self._told.add(which)
            known = self._processes.get(int(row["pid"]))
            print(text.pending_line(row, now_ns, self._time(now_ns), hold, frames, known))
        sys.stdout.flush()

    def finding(self, finding: Finding) -> None:
        """Announce a finding while the trace goes on."""
        print(f"\n{text.finding_headline(finding)}\n", flush=True)

    def withdrawn(self, finding: Finding) -> None:
        """Take back what was announced: with more of the trace it does not hold."""
        print(f"\n{text.withdrawal(finding)}\n", flush=True)

    def end(self, trace: Trace, findings: Sequence[Finding]) -> None:
        """Print the summary."""
        self._tell_left_out(last=True)
        print(f"\n{text.ending(trace, findings)}", flush=True)


class JsonPrinter:
    """One JSON object a line: attempt, pending, finding, and a report at the end."""

    def __init__(
        self, processes: Processes | None = None, reasons: Mapping[str, str] | None = None
    ) -> None:
        self._processes = {} if processes is None else processes
        self._reasons = reasons
        self._last_id = 0  # ids grow as attempts end: those above it were not printed yet

    def begin(self, note: str) -> None:
        """Say on standard error what is traced."""
        hearing.note(printable(note))

    def attempts(self, rows: Attempts) -> None:
        """Print an object for each attempt that ended."""
        for row in rows:
            self._line("attempt", self._attempt(row))
        self._last_id = max(self._last_id, int(rows["attempt_id"].max(initial=0)))
        sys.stdout.flush()

    def binds(self, rows: Binds, looked: Mapping[tuple[int, int], Looked]) -> None:
        """Print an object for each call of bind(2) or listen(2), with who held the port."""
        for row in rows:
            known = self._processes.get(int(row["pid"]))
            self._line("bind", report.bind_json(row, known, looked.get(key(row))))
        sys.stdout.flush()

    def pending(self, rows: Attempts, now_ns: int, stacks: Stacks) -> None:
        """Print an object for each attempt that is still not over, with the stack that holds it."""
        for row in rows:
            stack, known = stacks.get(_stack_id(row), ()), self._processes.get(int(row["pid"]))
            line = report.pending_json(row, now_ns, stack, known, self._reasons)
            self._line("pending", line)
        sys.stdout.flush()

    def finding(self, finding: Finding) -> None:
        """Print a finding as soon as it firms up."""
        self._line("finding", report.finding_json(finding))
        sys.stdout.flush()

    def withdrawn(self, finding: Finding) -> None:
        """Take back what was announced: with more of the trace it does not hold."""
        self._line("withdrawn", report.finding_json(finding))
        sys.stdout.flush()

    def end(self, trace: Trace, findings: Sequence[Finding]) -> None:
        """Print what was still open, then the report, which ends the stream."""
        for row in trace.attempts[np.flatnonzero(trace.attempts["attempt_id"] > self._last_id)]:
            self._line("attempt", self._attempt(row))
        self._line("report", report.report(trace, findings))
        sys.stdout.flush()

    def _attempt(self, row: np.void) -> dict[str, object]:
        return report.attempt_json(row, self._processes.get(int(row["pid"])), self._reasons)

    def _line(self, kind: str, value: dict[str, object]) -> None:
        print(json.dumps({"type": kind, **value}))


def _serves(rows: Binds) -> npt.NDArray[np.bool_]:
    # TCP by listen(2), UDP by a port of its choice; clients are quiet.
    udp = (rows["protocol"] == UDP) & (rows["port_asked"] > 0)
    serves: npt.NDArray[np.bool_] = (rows["call"] == BindCall.listen) | udp
    return serves


# Of an attempt whose end was lost, or came untracked, the last mark tells when it was heard of.
def _over_ns(row: np.void) -> int:
    marks = (int(row[name]) for name in ATTEMPT.names or () if name.endswith("_ns"))
    return int(row["end_ns"]) or max(marks)


def _stack_id(row: np.void) -> int:
    return int(row["gate_stack"] if row["gate_ns"] and not row["call_ns"] else row["connect_stack"])
