"""A live trace as it grows: rounds in, rows and findings out, a `Trace` at any moment.

Holds what must be held between rounds and nothing that prints.
"""

import errno
import math
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from porttrace.analysis import attempts
from porttrace.analysis.accepts import accepted_of
from porttrace.analysis.assemble import (
    assemble,
    exits_of,
    held_rows,
    losses_of,
    watched,
    watches_of,
)
from porttrace.analysis.binds import binds_of, joined_binds
from porttrace.analysis.findings import diagnose
from porttrace.analysis.held import still_held
from porttrace.analysis.model import (
    Accepted,
    AcceptKey,
    Attempts,
    Binds,
    Finding,
    Host,
    Looked,
    Loss,
    Process,
    Sample,
    Suspect,
    Trace,
    no_attempts,
    no_binds,
)
from porttrace.analysis.samples import MOST_SAMPLES, samples_since, thinned
from porttrace.analysis.top import latest
from porttrace.tracer import processes
from porttrace.tracer.conditions import gates_seen, host, notes
from porttrace.tracer.facts import Held
from porttrace.tracer.live import LiveTrace, Round

# Rows kept for the findings and the tables; what is older was printed and is let go.
MAX_ROWS = 1_000_000
# Of bind(2) and listen(2): the latest.
MAX_BINDS = 100_000
MANY_PROCESSES = 4096
"""Of more than these, `Session.keep_only` lets go of those that have ended."""
LOOK_NS = 500_000_000
"""So long the line of a bind that failed waits for who holds the port."""
# A hold this long makes us ask what could be the cause, while the process is there.
_SUSPECT_NS = 10_000_000
ASK_AGAIN_S = 30.0
"""A census this old is taken again when another hold is seen."""
ASKED_AT_FIRST = 16
"""So many processes at most are looked at before anything of them was held."""


class Session:
    """Collects the rounds of one live trace.

    Keeps `most_rows` attempts at most. Without `census` nobody asks what could interpose.
    """

    def __init__(self, live: LiveTrace, most_rows: int = 0, census: bool = True) -> None:
        self._live = live
        self._most_rows, self._census = most_rows, census
        self._open = attempts.Open()
        self._rows: list[Attempts] = []
        self._kept = 0
        self._dropped = 0
        self._since_ns = live.start_ns
        self._dropped_ns = 0  # when the latest of the rows that were let go ended
        self._accepted_since_ns = live.start_ns
        self._binds: list[Binds] = []
        self._binds_kept = 0
        self._untold = no_binds()
        self.looked: dict[tuple[int, int], Looked] = {}
        self._losses: tuple[Loss, ...] = ()
        self._exits: dict[int, int] = {}
        self._accepted: dict[AcceptKey, Accepted] = {}
        self._watches: dict[int, int] = {}
        self.processes: dict[int, Process] = {}
        self.stacks: dict[int, tuple[str, ...]] = {}
        self._suspects: dict[int, tuple[Suspect, ...]] = {}
        self._asked_s: dict[int, float] = {}
        self._samples: tuple[Sample, ...] = ()
        self._events = 0
        self._held: list[Held] = []
        self._host = host(live.probe, bool(live.watches))

    @property
    def host(self) -> Host:
        """The facts about this host that findings rest on."""
        return self._host

    def take(self, done: Round) -> Attempts:
        """Add a round and return the attempts that it finished."""
        self.processes.update(done.processes)
        self.stacks.update(done.stacks)
        self._samples += done.samples
        if len(self._samples) > 2 * MOST_SAMPLES:
            self._samples = thinned(self._samples)
        self._losses += losses_of(done.events)
        self._exits.update(exits_of(done.events))
        self._watches.update(watches_of(done.events))
        self._accepted = accepted_of(done.events, self._accepted)
        self._events += len(done.events)
        self._held = still_held(self._held, done.events)
        rows, self._open = attempts.step(done.events, self._open, done.watermark_ns)
        rows["watched"] = watched(rows, self.processes, self._watches)
        self._keep(rows)
        held = (rows["gate_ns"] > 0) & (rows["call_ns"] - rows["gate_ns"] > _SUSPECT_NS)
        held |= (rows["sleep_ns"] > 0) & (rows["call_ns"] - rows["sleep_ns"] > _SUSPECT_NS)
        held |= rows["retransmits"] > 0
        self._ask_about(np.unique(rows["pid"][held]).tolist())
        return rows

    def take_binds(self, done: Round, last: bool = False) -> Binds:
        """Add the calls of bind(2) and listen(2) of a round; return those that can be told.

        Those that failed wait for a moment, until somebody has looked who holds the port.
        """
        self.looked.update({key: each for each in done.looked for key in each.keys})
        rows = binds_of(done.events)
        if len(rows):
            self._binds.append(rows)
            self._binds_kept += len(rows)
        while self._binds_kept > MAX_BINDS and len(self._binds) > 1:
            for row in self._binds.pop(0):
                self._binds_kept -= 1
                self.looked.pop((int(row["time_ns"]), int(row["tid"])), None)
        self._untold = np.concatenate([self._untold, rows])
        ready = self._told_now(self._untold, last)
        rows, self._untold = self._untold[ready], self._untold[~ready]
        return rows

    def _told_now(self, rows: Binds, last: bool) -> npt.NDArray[np.bool_]:
        old = rows["time_ns"] < time.monotonic_ns() - LOOK_NS
        ready: npt.NDArray[np.bool_] = (rows["errno"] != errno.EADDRINUSE) | old | last
        for row in np.flatnonzero(~ready).tolist():
            ready[row] = (int(rows["time_ns"][row]), int(rows["tid"][row])) in self.looked
        return ready

    @property
    def kept(self) -> int:
        """How many attempts that are over are kept."""
        return self._kept

    def keep_only(self, since_ns: int, most: int) -> None:
        """Let go of all that was over before `since_ns`, and keep at most `most` attempts.

        For a trace of many days that nobody asks for what was.
        """
        kept = latest(self._rows, since_ns, most)
        self._rows, self._kept = [kept], len(kept)
        self._forget_facts(since_ns)
        if len(self.processes) > MANY_PROCESSES:
            self._forget_processes({*kept["pid"].tolist(), *self.waiting()["pid"].tolist()})

    # Of what is told beside the attempts, all that was over before.
    def _forget_facts(self, since_ns: int) -> None:
        self._binds = [rows[rows["time_ns"] >= since_ns] for rows in self._binds]
        self._binds = [rows for rows in self._binds if len(rows)]
        self._binds_kept = sum(map(len, self._binds))
        self.looked = {key: each for key, each in self.looked.items() if key[0] >= since_ns}
        self._losses = tuple(loss for loss in self._losses if loss.last_ns >= since_ns)
        self._exits = {pid: at_ns for pid, at_ns in self._exits.items() if at_ns >= since_ns}

    def _forget_processes(self, needed: set[int]) -> None:
        needed |= {pid for pid in self.processes.keys() - needed if processes.exists(pid)}
        self.processes = {pid: each for pid, each in self.processes.items() if pid in needed}
        self._suspects = {pid: each for pid, each in self._suspects.items() if pid in needed}
        self._asked_s = {pid: each for pid, each in self._asked_s.items() if pid in needed}
        self._accepted = {key: each for key, each in self._accepted.items() if key[0] in needed}

    def _keep(self, rows: Attempts) -> None:
        if len(rows):
            self._rows.append(rows)
            self._kept += len(rows)
        while self._kept > (self._most_rows or MAX_ROWS) and len(self._rows) > 1:
            oldest = self._rows.pop(0)
            self._kept -= len(oldest)
            self._dropped += len(oldest)
            self._dropped_ns = max(self._dropped_ns, int(oldest["end_ns"].max()))

    @property
    def since_ns(self) -> int:
        """Since when everything that happened is known: the beginning, or what was forgotten."""
        return self._since_ns

    @property
    def dropped(self) -> int:
        """How many attempts were let go because there were too many."""
        return self._dropped

    @property
    def next_id(self) -> int:
        """What the next attempt that is over will be called: ids of those before are final."""
        return self._open.next_id

    def forget(self, before_ns: int) -> None:
        """Let go of what was over before a time: findings then look at what came since.

        Of accepted connections, sums are kept that begin anew when they are as old as that.
        """
        since = self._since_ns = max(before_ns, self._dropped_ns, self._since_ns)
        while self._rows and int(self._rows[0]["end_ns"].max()) < since:
            self._kept -= len(self._rows.pop(0))
        self._forget_facts(since)
        self._samples = samples_since(self._samples, since)
        if self._accepted_since_ns < since:
            self._accepted, self._accepted_since_ns = {}, time.monotonic_ns()
        pids = [rows["pid"] for rows in (*self._rows, *self._binds)]
        told = set(np.unique(np.concatenate([no_attempts()["pid"], *pids])).tolist())
        self.processes = {
            pid: each
            for pid, each in self.processes.items()
            if pid in told or self._live.knows(pid)
        }

    def _ask_about(self, pids: Sequence[int]) -> None:
        if not self._census:
            return
        # While the process is there: afterwards nobody can tell who held its filter.
        now_s = time.monotonic()
        for pid in pids:
            if now_s - self._asked_s.get(pid, -math.inf) > ASK_AGAIN_S:
                self._asked_s[pid] = now_s
                self._suspects[pid] = self._live.suspects_of(pid) or self._suspects.get(pid, ())

    def begin(self) -> None:
        """Look at once at what could interpose on the processes that are traced by number."""
        self._ask_about(sorted(self._live.options.pids)[:ASKED_AT_FIRST])

    def look(self) -> None:
        """Look at the threads that are held right now."""
        self._held = self._live.held()
        self.stacks.update({h.stack: h.frames for h in self._held if h.frames})
        now_ns = time.monotonic_ns()
        self._ask_about([h.pid for h in self._held if now_ns - h.since_ns > _SUSPECT_NS])
        under_way = attempts.pending(self._open)
        self._ask_about(np.unique(under_way["pid"][under_way["retransmits"] > 0]).tolist())

    @property
    def held(self) -> list[Held]:
        """The threads that were held at the last look and have not gone on since."""
        return self._held

    @property
    def suspects(self) -> dict[int, tuple[Suspect, ...]]:
        """The census of each process that was asked about."""
        return self._suspects

    def waiting(self) -> Attempts:
        """Return the attempts that are not over: in SYN_SENT, or held at the last look."""
        under_way = attempts.pending(self._open)
        rows = np.concatenate([under_way[under_way["end_ns"] == 0], held_rows(self._held)])
        rows["watched"] = watched(rows, self.processes, self._watches)
        return rows

    def trace(self, end_ns: int) -> Trace:
        """Return everything so far as one `Trace` that ends at `end_ns`."""
        options, missing = self._live.options, self._live.probe.missing
        about = Trace(
            attempts=no_attempts(),
            start_ns=self._since_ns,
            end_ns=end_ns,
            processes=self.processes,
            stacks=self.stacks,
            losses=self._losses,
            binds=joined_binds(self._binds),
            looked=self.looked,
            exits=self._exits,
            watches=self._watches,
            accepted=self._accepted,
            samples=thinned(self._samples),
            host=self._host,
            suspects=self._suspects,
            not_looked=self._live.not_looked,
            filter=options.describe(),
            wall_offset_ns=time.time_ns() - time.monotonic_ns(),
            gates_seen=gates_seen(options, missing),
            events=self._events,
            notes=tuple(self._notes()),
        )
        return assemble(about, self._rows, self._open, self._held)

    def diagnose(self) -> tuple[Finding, ...]:
        """Return the findings as of now."""
        return diagnose(self.trace(time.monotonic_ns()))

    def _notes(self) -> list[str]:
        found = notes(self._live.options, self._live.probe.missing, self._live.counters())
        found = (*found, *self._live.sampling_notes())
        if not self._dropped:
            return [*found]
        return [
            *found,
            f"{self._dropped} oldest attempts are not in the tables below.",
        ]
