"""Rounds of events and finished rows in, all counters that are exported out.

Everything here only grows, but for the names that lose their series (`top`). What stands for now
alone comes from who asks: `Now`.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from porttrace.analysis.bind_names import key
from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.holds import HELD_NS, HOLDS, spans
from porttrace.analysis.metrics import catalogue as c
from porttrace.analysis.metrics.catalogue import Family, Metric
from porttrace.analysis.metrics.histogram import Histogram
from porttrace.analysis.metrics.shortage import Spaces, queue_shares
from porttrace.analysis.metrics.top import TopNames
from porttrace.analysis.metrics.worst import Worst
from porttrace.analysis.model import (
    SEVERITIES,
    Attempts,
    BindCall,
    Binds,
    Finding,
    Looked,
    Outcome,
    Sample,
    start_ns,
)
from porttrace.analysis.render.escape import printable
from porttrace.tracer.event import Events, EventType

MOST_NAMES = 20
"""So many names of threads have series of their own, and so many ports of listeners."""

OUTCOMES = tuple(each for each in Outcome if each != Outcome.pending)
ERRNOS = {number: errno.errorcode[number] for number in (
    errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, errno.EINVAL, errno.EPERM,
)}  # fmt: skip
HOLDERS = (
    *("listener", "client", "accepted", "bound", "time_wait", "closing", "udp", "descriptor"),
    *("kernel", "namespace", "unknown", "none"),
)
"""What a port was held by, as `Holder.kind`; `none` where nobody was found, or looked for."""

# Columns of what is counted by name: outcomes, then these two.
_HELD, _SERIALIZED = len(Outcome), len(Outcome) + 1
_WIDTH = len(Outcome) + 2


@dataclass(frozen=True)
class Now:
    """What stands for this moment, and what others have counted."""

    now_ns: int = 0
    in_flight: int = 0
    held: int = 0  # threads before SYN_SENT
    findings: Sequence[Finding] = ()
    window_s: float = 0.0
    left_out: Mapping[str, int] = field(default_factory=dict)  # what to how many, since the start
    info: tuple[str, str, str] = ("", "", "")  # version, hook mode, yes or no: the wire


class Tally:
    """The counters of one exporter. `rules` are the names of all rules."""

    def __init__(self, rules: Sequence[str], most_names: int = MOST_NAMES) -> None:
        self._rules = tuple(rules)
        self._names, self._ports = TopNames(most_names, _WIDTH), TopNames(most_names, 1)
        self._durations: dict[Outcome, Histogram] = {each: Histogram() for each in OUTCOMES}
        self._holds = {place: Histogram() for place in HOLDS}
        self._accept_wait = Histogram()
        self._worst = Worst()
        self._spaces = Spaces()
        self._binds = {("EADDRINUSE", holder): 0 for holder in HOLDERS}
        self._binds.update({(name, "none"): 0 for name in (*ERRNOS.values(), "other")})
        self._found = dict.fromkeys(self._rules, 0)
        self._events = self._lost = self._resent = 0

    # -- in ------------------------------------------------------------------

    def take_events(self, events: Events) -> None:
        """Count what needs no joining: events, losses, SYNs sent again, accepted connections."""
        if not len(events):
            return
        kinds = events["type"]
        losses = kinds == EventType.LOSS
        self._events += len(events) - int(np.count_nonzero(losses))
        self._lost += int(events["in_flight"][losses].sum(dtype=np.int64))
        self._resent += int(np.count_nonzero(kinds == EventType.RETRANSMIT))
        self._take_accepts(events, np.flatnonzero(kinds == EventType.ACCEPT))

    def _take_accepts(self, events: Events, which: Ints) -> None:
        if not len(which):
            return
        ports, times = np.unique(events["sport"][which], return_counts=True)
        for port, number in zip(ports.tolist(), times.tolist(), strict=True):
            self._ports.add(str(port), np.array([number], np.int64), number)
        begun = events["start_ns"][which].astype(np.int64)
        waited = events["time_ns"][which].astype(np.int64) - begun
        self._accept_wait.add(np.maximum(waited[begun > 0], 0))

    def take_attempts(self, rows: Attempts, now_ns: int) -> None:
        """Count attempts that are over, each once; `now_ns` is about when."""
        if not len(rows):
            return
        held = self._take_holds(rows, now_ns)
        comms, which = np.unique(rows["comm"], return_inverse=True)
        table = np.zeros((len(comms), _WIDTH), np.int64)
        np.add.at(table, (which, rows["outcome"].astype(np.intp)), 1)
        np.add.at(table[:, _HELD], which, held)
        for comm, counts in zip(comms.tolist(), table, strict=True):
            self._names.add(label(comm), counts, float(counts[:_HELD].sum()))
        first, end = start_ns(rows), rows["end_ns"]
        ended = (end > 0) & (first <= end)
        for outcome in np.unique(rows["outcome"]).tolist():
            mine = ended & (rows["outcome"] == outcome)
            if mine.any() and outcome != Outcome.pending:
                self._durations[Outcome(outcome)].add((end - first)[mine])

    def _take_holds(self, rows: Attempts, now_ns: int) -> Bools:
        found = np.zeros(len(rows), np.bool_)
        for place in HOLDS:
            lengths = spans(rows, place, now_ns).lengths()
            held = lengths >= HELD_NS
            if held.any():
                found |= held
                self._holds[place].add(lengths[held])
                self._worst.tell(place, int(lengths.max()), now_ns)
        return found

    def take_held(self, place: str, length_ns: int, now_ns: int) -> None:
        """Note that a thread stands at a place (gate or connect) now, since so long."""
        if length_ns >= HELD_NS:
            self._worst.tell(place, length_ns, now_ns)

    def take_binds(self, rows: Binds, looked: Mapping[tuple[int, int], Looked]) -> None:
        """Count calls of bind(2) and listen(2) that failed; `looked` as that of a `Trace`."""
        failed = (rows["errno"] > 0) & (rows["call"] != BindCall.autobind)
        for row in rows[failed]:
            name = ERRNOS.get(int(row["errno"]), "other")
            found = looked.get(key(row))
            kind = found.holders[0].kind if found and found.holders else "none"
            holder = kind if name == "EADDRINUSE" and kind in HOLDERS else "none"
            self._binds[name, holder] += 1

    def take_samples(self, samples: Iterable[Sample]) -> None:
        """Take what was sampled of network namespaces, in order of time."""
        self._spaces.take(samples)

    def keep_namespaces(self, alive: Iterable[int]) -> None:
        """Forget the samples of network namespaces that are gone."""
        self._spaces.keep(alive)

    def take_serialized(self, comms: Iterable[bytes]) -> None:
        """Count attempts that a throttle queued, each once, by the names of their threads."""
        counts = np.zeros(_WIDTH, np.int64)
        counts[_SERIALIZED] = 1
        for comm in comms:
            self._names.add(label(comm), counts)

    def take_finding(self, rule: str) -> None:
        """Count that a rule has begun to find something."""
        if rule in self._found:
            self._found[rule] += 1

    def turn(self) -> None:
        """Let busier names have series: to be called once a minute."""
        self._names.turn()
        self._ports.turn()

    # -- out -------------------------------------------------------------------

    def families(self, now: Now) -> Iterator[Family]:
        """Yield every metric of the catalogue with all its series, in that order."""
        values = {**self._of_attempts(now), **self._of_the_host(now), **self._of_itself(now)}
        for metric in c.METRICS:
            yield Family(metric, values[metric])

    def _of_attempts(self, now: Now) -> dict[Metric, list[c.Sample]]:
        named = list(self._names.series())
        return {
            c.ATTEMPTS: [
                ((name, outcome.name), float(counts[outcome]))
                for name, counts in named
                for outcome in OUTCOMES
                if counts[outcome] or name == "other"
            ],
            c.HELD: [((name,), float(counts[_HELD])) for name, counts in named],
            c.SERIALIZED: [((name,), float(counts[_SERIALIZED])) for name, counts in named],
            c.DURATION: [((each.name,), known) for each, known in self._durations.items()],
            c.HOLDS: [((place,), known) for place, known in self._holds.items()],
            c.WORST: [
                ((place,), self._worst.of(place, now.now_ns) / 1e9) for place in HOLDS
            ],
            c.IN_FLIGHT: _single(now.in_flight),
            c.DEMAND: _single(now.in_flight + now.held),
            c.RETRANSMISSIONS: _single(self._resent),
        }  # fmt: skip

    def _of_the_host(self, now: Now) -> dict[Metric, list[c.Sample]]:
        shares = self._spaces.gauges()
        queues = queue_shares(self._spaces.latest.values())
        return {
            c.BIND_FAILURES: [(key, float(number)) for key, number in self._binds.items()],
            c.EPHEMERAL: _single(shares["ephemeral"]),
            c.ACCEPTS: [((port,), float(counts[0])) for port, counts in self._ports.series()],
            c.ACCEPT_WAIT: [((), self._accept_wait)],
            c.ACCEPT_QUEUE: [((str(port),), share) for port, share in queues.items()],
            c.ACCEPT_QUEUE_WORST: _single(max(queues.values(), default=0.0)),
            c.OVERFLOWS: _single(self._spaces.overflows),
            c.CONNTRACK: _single(shares["conntrack"]),
            c.CONNTRACK_DROPS: _single(self._spaces.conntrack_drops),
        }

    def _of_itself(self, now: Now) -> dict[Metric, list[c.Sample]]:
        active = dict.fromkeys(((rule, each) for rule in self._rules for each in SEVERITIES), 0)
        for finding in now.findings:
            which = finding.rule, finding.severity
            active[which] = active.get(which, 0) + 1
        return {
            c.FINDINGS_ACTIVE: [(key, float(number)) for key, number in active.items()],
            c.FINDINGS: [((rule,), float(number)) for rule, number in self._found.items()],
            c.WINDOW: _single(now.window_s),
            c.EVENTS: _single(self._events),
            c.LOST: _single(self._lost),
            c.LEFT_OUT: [((what,), float(number)) for what, number in now.left_out.items()],
            c.INFO: [(now.info, 1.0)],
        }


def label(comm: bytes) -> str:
    """Return the name of a thread as a label: valid text in which nothing acts on a terminal."""
    return printable(comm.decode(errors="backslashreplace"))


def _single(value: float) -> list[c.Sample]:
    return [((), float(value))]
