"""What `porttrace top` does again and again: read, keep little, look, and show."""

import dataclasses
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from porttrace.analysis.assemble import losses_of
from porttrace.analysis.model import Finding
from porttrace.analysis.render import top as render
from porttrace.analysis.render.escape import json_line
from porttrace.analysis.render.text import short
from porttrace.analysis.top import Now, Tally, look, sorted_by
from porttrace.cli.hearing import nobody_hears
from porttrace.cli.running import Pace, what_is_traced
from porttrace.cli.session import Session
from porttrace.tracer.conditions import gates_seen
from porttrace.tracer.live import LiveTrace, Round

MOST_ATTEMPTS = 20_000
"""So many are kept for the verdicts: of each process its latest."""
SHOWN_S = 60.0
"""A process that nothing was heard of for so long has no line any more."""
MOST_PROCESSES = 4096
"""So many processes have a line; those heard of last."""
PIPE_WIDTH = 100


class Output(Protocol):
    """Where looks go. Use as a context manager."""

    over: bool  # nobody wants any more of them

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """End, and leave things as they were."""

    def show(self, now: Now, about: Sequence[str]) -> None:
        """Show one look; `about` says what is traced, in lines."""

    def turn(self) -> None:
        """React to what happened meanwhile: about 20 times a second."""


class Lines:
    """Prints each look: as a table without control codes, or as an object of JSON."""

    def __init__(self, sort: str, as_json: bool) -> None:
        self.over = False
        self._sort, self._as_json = sort, as_json
        self._first = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, now: Now, about: Sequence[str]) -> None:
        """Print it at once: whoever reads the pipe wants it now."""
        now = dataclasses.replace(now, processes=sorted_by(now.processes, self._sort))
        if self._as_json:
            text = json_line(render.now_json(now, about, time.time_ns() - time.monotonic_ns()))
        else:
            text = ("" if self._first else "\n") + render.plain(now, about, PIPE_WIDTH)
        self._first = False
        print(text, flush=True)

    def turn(self) -> None:
        """See whether anybody still reads it."""
        self.over = nobody_hears()


class Watch:
    """Reads a live trace round by round, and shows a look each interval (seconds).

    Verdicts are about the last `window_s` seconds. What it keeps does not grow with time.
    """

    def __init__(
        self, live_trace: LiveTrace, output: Output, interval_s: float, window_s: float
    ) -> None:
        self.last: Now | None = None
        self._live, self._output = live_trace, output
        self._interval_s, self._window_s = interval_s, window_s
        self._session, self._tally = Session(live_trace), Tally()
        self._session.begin()
        self._findings: tuple[Finding, ...] = ()
        self._diagnose = Pace(1.0)
        self._seen_s: dict[int, float] = {}  # when each process was last heard of, the latest last
        self._lost = 0
        self._looked_s = live_trace.start_ns / 1e9
        self._due_s = time.monotonic() + interval_s

    @property
    def about(self) -> tuple[str, ...]:
        """What is traced and how, and in a second line what does not show, if so."""
        live = self._live
        wire = ", wire probe" if live.watches else ""
        window = short(self._window_s * 1e9)
        if self._session.kept >= MOST_ATTEMPTS:
            window = f"{MOST_ATTEMPTS:,} attempts"
        whom = what_is_traced(live.options, None)
        about = f"{whom}; {live.probe.mode} mode{wire}; last {window}"
        if gates_seen(live.options, live.probe.missing):
            return (about,)
        return (
            about,
            "Holds at user and gate do not show: name a target (--pid, --comm, --uid, ...).",
        )

    def turn(self) -> None:
        """Read once, 50 ms at most, and show a look when one is due."""
        self._take(self._live.read())
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + self._interval_s
            self.show()
        self._output.turn()

    def show(self) -> None:
        """Look at this moment, which is `last` by then, and show it."""
        self.last = self._look()
        self._output.show(self.last, self.about)

    def end(self) -> None:
        """Take what is left of a trace that is over, and show the last look at it."""
        self._take(self._live.finish())
        self._find()
        self.show()

    def _look(self) -> Now:
        session, now_ns = self._session, time.monotonic_ns()
        session.look()
        session.keep_only(now_ns - int(self._window_s * 1e9), MOST_ATTEMPTS)
        self._diagnose.run(self._find)
        waiting = session.waiting()
        self._hear_of({*self._tally.pids, *waiting["pid"].tolist()})
        took_s, self._looked_s = time.monotonic() - self._looked_s, time.monotonic()
        pids = {*self._seen_s, *self._live.options.pids}
        rows = look(waiting, self._tally, session.processes, pids, self._findings, now_ns, took_s)
        return Now(now_ns, took_s, rows, self._findings, self._lost)

    def _take(self, done: Round) -> None:
        self._lost += sum(loss.count for loss in losses_of(done.events))
        self._tally.add(self._session.take(done))
        self._session.take_binds(done)

    def _find(self) -> None:
        self._findings = self._session.diagnose()

    def _hear_of(self, pids: set[int]) -> None:
        now_s = time.monotonic()
        for pid in pids:
            self._seen_s.pop(pid, None)
            self._seen_s[pid] = now_s
        latest = list(self._seen_s.items())[-MOST_PROCESSES:]
        self._seen_s = {pid: at_s for pid, at_s in latest if now_s - at_s <= SHOWN_S}
