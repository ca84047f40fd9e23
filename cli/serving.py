"""What `serve` watches: rounds of a live trace in, metrics out, within bounds for months.

Counters are exact and come from every round. Findings come from the rules of every other command,
over a window that slides: the last minutes, or the last so many attempts.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from porttrace.analysis.findings import RULES, diagnose, serialized
from porttrace.analysis.metrics.catalogue import Family
from porttrace.analysis.metrics.tally import Now, Tally
from porttrace.analysis.model import Finding, Trace
from porttrace.analysis.render.escape import printable
from porttrace.cli.hearing import note
from porttrace.cli.running import Pace
from porttrace.cli.session import Session
from porttrace.tracer.live import LiveTrace, Round

WINDOW_S = 300.0
MOST_ROWS = 50_000
"""Attempts that the findings look at, at most."""
ROUND_MS = 2000
SAMPLE_S = 5.0
MOST_NEW = 20
"""Processes that are read from /proc in a round."""
MOST_ATTEMPTS = 16_384
"""Sockets in SYN_SENT that are followed at once."""
BACKLOG_BYTES = 32 << 20

_LOOK_S, _DIAGNOSE_S, _TURN_S, _SWEEP_S = 1.0, 15.0, 60.0, 600.0
_SHARE = 0.002  # of a core, for looking and for the rules each
_SAID_S = 60.0  # a rule is said to find something once in so long
RULE_NAMES = tuple(rule.__name__.replace("_", "-") for rule in RULES)


class Watcher:
    """Feeds one live trace into a tally. `families` may be called from any thread."""

    def __init__(self, live: LiveTrace) -> None:
        self._live = live
        self._session = Session(live, MOST_ROWS, census=False)
        self._tally = Tally(RULE_NAMES)
        self._lock = threading.Lock()
        self._now = Now()
        self._findings: tuple[Finding, ...] = ()
        self._counted: set[int] = set()  # attempts that were counted as serialized
        self._said_s: dict[str, float] = {}
        self._version = version("porttrace")
        self._paces = (
            (Pace(_LOOK_S, share=_SHARE), self._look),
            (Pace(_DIAGNOSE_S, time.monotonic() + _DIAGNOSE_S / 3, _SHARE), self._diagnose),
            (Pace(_TURN_S, time.monotonic() + _TURN_S), self._turn),
            (Pace(_SWEEP_S, time.monotonic() + _SWEEP_S), self._sweep),
        )
        self._remember()

    def round(self) -> None:
        """Read once, two seconds at most, and count it; look, and diagnose, when that is due."""
        self._take(self._live.read(ROUND_MS))
        for pace, work in self._paces:
            pace.run(work)
        self._remember()

    def finish(self) -> None:
        """Drain, and count the last events."""
        self._take(self._live.finish(), last=True)
        self._remember()

    def families(self) -> Sequence[Family]:
        """Return all metrics as of the last round."""
        with self._lock:
            return list(self._tally.families(self._now))

    def _take(self, done: Round, last: bool = False) -> None:
        rows = self._session.take(done)
        binds = self._session.take_binds(done, last)
        with self._lock:
            self._tally.take_events(done.events)
            self._tally.take_attempts(rows, time.monotonic_ns())
            self._tally.take_binds(binds, self._session.looked)
            self._tally.take_samples(done.samples)

    def _remember(self) -> None:
        counters, session = self._live.counters(), self._session
        left_out = {
            "sockets": counters.attempts_full,
            "calls": counters.calls_full,
            "threads": counters.threads_full,
            "children": counters.targets_full,
            "stacks": counters.stacks_lost,
            "returns": counters.returns_missed,
            "processes": self._live.not_read,
            "window": session.dropped,
        }
        now_ns, wire = time.monotonic_ns(), "yes" if session.host.wire else "no"
        self._now = Now(
            now_ns,
            counters.attempts_now,
            len(session.held),
            self._findings,
            (now_ns - session.since_ns) / 1e9,
            left_out,
            (self._version, session.host.mode, wire),
        )

    # -- now and then ------------------------------------------------------------

    def _look(self) -> None:
        self._session.look()
        now_ns = time.monotonic_ns()
        with self._lock:
            for each in self._session.held:
                self._tally.take_held(each.place, now_ns - each.since_ns, now_ns)

    def _turn(self) -> None:
        with self._lock:
            self._tally.turn()

    def _sweep(self) -> None:
        alive = self._live.sweep()
        with self._lock:
            self._tally.keep_namespaces(alive)

    def _diagnose(self) -> None:
        now_ns = time.monotonic_ns()
        self._session.forget(now_ns - int(WINDOW_S * 1e9))
        trace = self._session.trace(now_ns)
        findings = diagnose(trace)
        fresh = {each.rule: each for each in findings}
        for rule in {each.rule for each in self._findings}:
            fresh.pop(rule, None)
        comms = self._serialized(trace, findings)
        with self._lock:
            self._findings = findings
            for rule in fresh:
                self._tally.take_finding(rule)
            self._tally.take_serialized(comms)
        self._say(fresh.values())

    # The held attempts of every throttle that was found, each once; what waits still, later.
    def _serialized(self, trace: Trace, findings: Sequence[Finding]) -> list[bytes]:
        if not any(each.rule == serialized.RULE for each in findings):
            return []
        ids, comms = trace.attempts["attempt_id"], trace.attempts["comm"]
        found: dict[int, bytes] = {}
        for case in serialized.throttled_cases(trace):
            held = case.group.rows[case.group.queue.held()]
            found.update(zip(ids[held].tolist(), comms[held].tolist(), strict=True))
        over = {key: comm for key, comm in found.items() if key < self._session.next_id}
        new = [comm for key, comm in over.items() if key not in self._counted]
        # What is not in the window any more does not come again.
        oldest = int(ids.min(initial=self._session.next_id))
        self._counted = {key for key in self._counted | over.keys() if key >= oldest}
        return new

    def _say(self, findings: Iterable[Finding]) -> None:
        now_s = time.monotonic()
        for finding in findings:
            if finding.severity == "info":
                continue
            if now_s - self._said_s.get(finding.rule, -_SAID_S) >= _SAID_S:
                self._said_s[finding.rule] = now_s
                text = f"{finding.rule} ({finding.severity}): {finding.summary}"
                note(printable(text))
