"""A live trace as it grows: rounds in, rows and findings out, a `Trace` at any moment.

Holds what must be held between rounds and nothing that prints.
"""

import time
from collections.abc import Sequence

import numpy as np

from porttrace.analysis import attempts
from porttrace.analysis.assemble import assemble, held_rows, losses_of
from porttrace.analysis.findings import diagnose
from porttrace.analysis.model import Attempts, Finding, Loss, Process, Suspect, Trace, no_attempts
from porttrace.tracer.facts import Held
from porttrace.tracer.live import LiveTrace, Round, host

# Rows kept for the findings and the tables; what is older was printed and is let go.
MAX_ROWS = 1_000_000
# A hold this long makes us ask what could be the cause, while the process is there.
_SUSPECT_NS = 10_000_000


class Session:
    """Collects the rounds of one live trace."""

    def __init__(self, live: LiveTrace) -> None:
        self._live = live
        self._open = attempts.Open()
        self._rows: list[Attempts] = []
        self._kept = 0
        self._dropped = 0
        self._losses: tuple[Loss, ...] = ()
        self._processes: dict[int, Process] = {}
        self.stacks: dict[int, tuple[str, ...]] = {}
        self._suspects: dict[int, tuple[Suspect, ...]] = {}
        self._events = 0
        self._held: list[Held] = []
        self._host = host()

    def take(self, done: Round) -> Attempts:
        """Add a round and return the attempts that it finished."""
        self._processes.update(done.processes)
        self.stacks.update(done.stacks)
        self._losses += losses_of(done.events)
        self._events += len(done.events)
        rows, self._open = attempts.step(done.events, self._open, done.watermark_ns)
        self._keep(rows)
        held = (rows["gate_ns"] > 0) & (rows["call_ns"] - rows["gate_ns"] > _SUSPECT_NS)
        held |= (rows["sleep_ns"] > 0) & (rows["call_ns"] - rows["sleep_ns"] > _SUSPECT_NS)
        self._ask_about(np.unique(rows["pid"][held]).tolist())
        return rows

    def _keep(self, rows: Attempts) -> None:
        if len(rows):
            self._rows.append(rows)
            self._kept += len(rows)
        while self._kept > MAX_ROWS and len(self._rows) > 1:
            oldest = self._rows.pop(0)
            self._kept -= len(oldest)
            self._dropped += len(oldest)

    def _ask_about(self, pids: Sequence[int]) -> None:
        # While the process is there: afterwards nobody can tell who held its filter.
        for pid in pids:
            if pid not in self._suspects:
                self._suspects[pid] = self._live.suspects_of(pid)

    def look(self) -> None:
        """Look at the threads that are held right now."""
        self._held = self._live.held()
        self.stacks.update({h.stack: h.frames for h in self._held if h.frames})
        now_ns = time.monotonic_ns()
        self._ask_about([h.pid for h in self._held if now_ns - h.since_ns > _SUSPECT_NS])

    def waiting(self) -> Attempts:
        """Return the attempts that are not over: in SYN_SENT, or held at the last look."""
        under_way = attempts.pending(self._open)
        return np.concatenate([under_way[under_way["end_ns"] == 0], held_rows(self._held)])

    def trace(self, end_ns: int) -> Trace:
        """Return everything so far as one `Trace` that ends at `end_ns`."""
        options, missing = self._live.options, self._live.probe.missing
        about = Trace(
            attempts=no_attempts(),
            start_ns=self._live.start_ns,
            end_ns=end_ns,
            processes=self._processes,
            stacks=self.stacks,
            losses=self._losses,
            host=self._host,
            suspects=self._suspects,
            filter=options.describe(),
            wall_offset_ns=time.time_ns() - time.monotonic_ns(),
            gates_seen=options.targeted and not any("holds before" in cost for cost in missing),
            events=self._events,
            notes=tuple(self._notes()),
        )
        return assemble(about, self._rows, self._open, self._held)

    def diagnose(self) -> tuple[Finding, ...]:
        """Return the findings as of now."""
        return diagnose(self.trace(time.monotonic_ns()))

    def _notes(self) -> list[str]:
        counters, options = self._live.counters(), self._live.options
        notes = [
            f"Not available on this host: {cost}." for cost in sorted(set(self._live.probe.missing))
        ]
        if not options.targeted:
            notes.append(
                "The whole host was traced: holds before the kernel's connect (places user and "
                "gate) show only with --pid, --comm, --uid, --cgroup or -- COMMAND."
            )
        for count, what in (
            (counters.attempts_full, f"attempts found all {options.max_attempts} places to follow "
                                     "a socket taken; only the result of their call is known"),
            (counters.calls_full, "calls of connect could not be followed: too many at once"),
            (counters.threads_full, "sleeps of threads could not be followed: too many threads"),
            (counters.targets_full, "children could not be followed: too many processes"),
            (counters.stacks_lost, "kernel stacks could not be stored"),
            (self._dropped, "oldest attempts are not in the tables below (they were printed)"),
        ):  # fmt: skip
            if count:
                notes.append(f"{count} {what}.")
        if counters.attempts_peak * 2 > options.max_attempts:
            notes.append(
                f"Up to {counters.attempts_peak} sockets were in SYN_SENT at once; "
                f"{options.max_attempts} can be followed."
            )
        return notes
