"""Rule `dead-destination`: a destination that never answers well, or no more since some time, how
often it is tried, and what that blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.findings.behind import Behind, behind
from porttrace.analysis.findings.dead_wording import Dead, advice, queue_is_full, summary
from porttrace.analysis.holds import ON_THE_WAY, Spans, service
from porttrace.analysis.model import Finding, Outcome, Table, Trace, start_ns
from porttrace.analysis.pairs import as_numbers
from porttrace.analysis.rows import take

RULE = "dead-destination"
_FAILED = (Outcome.refused, Outcome.timed_out, Outcome.unreachable)
_SILENT = (Outcome.cancelled, Outcome.pending)
_SILENT_NS = 1_000_000_000  # an attempt that was given up sooner proves nothing
_ALONE_NS = 3_000_000_000  # a single attempt must have waited so long
_QUICK_NS = 100_000_000
# ::ffff:127.0.0.0/104 and ::1
_LOOPBACK_4 = np.frombuffer(bytes(10) + b"\xff\xff\x7f", np.uint8)
_LOOPBACK_6 = np.frombuffer(bytes(15) + b"\x01", np.uint8)
_TRIES = 3  # fewer have no period, and say little of a destination that has answered before


@dataclass(frozen=True)
class _History:
    # What is known of each attempt, and of each destination by its key.
    keys: Ints
    served: Spans
    bad: Bools  # refused or left without an answer, since the last good one
    total: Ints  # per key: attempts
    answered: Ints  # per key: attempts that were established
    failed: Ints  # per key: attempts that were bad before the last good one
    unknown: Ints  # per key: attempts whose end is lost


def dead_destination(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find destinations that only refuse, time out, or stay silent, to the end: one finding each.

    One that answered before needs more such attempts, all of them made after its last answer.
    """
    history = _history(trace)
    rows = np.flatnonzero(history.bad & ~_held_on_the_way(trace, found))
    rows = rows[np.argsort(history.keys[rows], kind="stable")]
    borders = np.flatnonzero(np.diff(history.keys[rows])) + 1
    cases = [_dead(trace, history, case) for case in np.split(rows, borders) if len(case)]
    return [_finding(trace, dead, found) for dead in cases if _enough(dead)]


# Whose SYN was held up by a throttle on the way says nothing of where it was to go.
def _held_on_the_way(trace: Trace, found: Sequence[Finding]) -> Bools:
    told = [
        victim.attempt_id
        for finding in found
        if finding.place in ON_THE_WAY
        for victim in finding.victims
    ]
    return np.isin(trace.columns["attempt_id"], told)


def _history(trace: Trace) -> _History:
    attempts, outcome = trace.columns, trace.columns["outcome"]
    keys = _keys(trace)
    served = service(attempts, "connect", trace.end_ns)
    silent = np.isin(outcome, _SILENT) & (served.lengths() >= _SILENT_NS)
    bad, good = np.isin(outcome, _FAILED) | silent, outcome == Outcome.established
    number = int(keys.max(initial=-1)) + 1
    last_answer = np.zeros(number, np.int64)
    np.maximum.at(last_answer, keys[good], attempts["end_ns"][good])
    # Who set out before that answer and got none does not show that nothing answers since.
    began = np.where(served.start > 0, served.start, start_ns(attempts))
    since = began >= last_answer[keys]

    def count(which: Bools) -> Ints:
        return np.bincount(keys[which], minlength=number)

    return _History(
        keys=keys,
        served=served,
        bad=bad & since,
        total=np.bincount(keys, minlength=number),
        answered=count(good),
        failed=count(bad & ~since),
        unknown=count(outcome == Outcome.unknown),
    )


def _keys(trace: Trace) -> Ints:
    # The loopback of each container is a host of its own, whatever pods may share.
    keys = scope_keys(trace.columns, "destination")
    if not any(process.container for process in trace.processes.values()):
        return keys
    pids, back = np.unique(trace.columns["pid"], return_inverse=True)
    known = [trace.processes.get(pid) for pid in pids.tolist()]
    containers = np.array([each.container if each else "" for each in known], np.str_)
    inside = np.unique(containers, return_inverse=True)[1].reshape(-1)[back]
    (pairs,) = as_numbers((keys, np.where(_is_loopback(trace.columns), inside, -1)))
    ranks: Ints = np.unique(pairs, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return ranks


def _is_loopback(attempts: Table) -> Bools:
    octets = np.ascontiguousarray(attempts["daddr"]).view(np.uint8).reshape(-1, 16)
    four = (octets[:, :13] == _LOOPBACK_4).all(axis=1)
    loopback: Bools = four | (octets == _LOOPBACK_6).all(axis=1)
    return loopback


def _dead(trace: Trace, history: _History, rows: Ints) -> Dead:
    attempts = take(trace.attempts, rows)
    order = np.argsort(start_ns(attempts), kind="stable")
    rows = rows[order]
    key = history.keys[rows[0]]
    start, stop = history.served.start[rows], history.served.stop[rows]
    return Dead(
        attempts=take(attempts, order),
        open=Spans(start, stop, history.served.closed[rows]),
        only=bool(history.total[key] == 1),
        answered=int(history.answered[key]),
        failed=int(history.failed[key]),
        unknown=int(history.unknown[key]),
    )


def _enough(dead: Dead) -> bool:
    number, spent = len(dead.attempts), dead.open.lengths()
    if dead.answered:
        return number >= _TRIES or (number >= 2 and int(spent.min()) >= _SILENT_NS)
    if number >= 2:
        return True
    return dead.refused() == 0 and int(spent[0]) >= _ALONE_NS


def _finding(trace: Trace, dead: Dead, found: Sequence[Finding]) -> Finding:
    waited = behind(dead.to(), dead.open, found)
    queue = _full_queue(dead, found)
    periods = _periods_s(dead)
    harmless = dead.refused() == len(dead.attempts) and int(dead.open.lengths().max()) < _QUICK_NS
    return Finding(
        rule=RULE,
        severity="info" if harmless and not waited.number else "warning",
        confidence=_confidence(dead),
        subject={"destination": dead.to(), "pids": dead.pids()},
        summary=summary(trace, dead, periods, waited) + (f" {queue_is_full(queue)}" * bool(queue)),
        evidence=_evidence(dead, periods, waited),
        advice=advice(dead, waited, queue),
    )


# The listener on this host that these attempts waited at, "" for none: its finding has the cure.
def _full_queue(dead: Dead, found: Sequence[Finding]) -> str:
    mine = set(dead.attempts["attempt_id"].tolist())
    for finding in found:
        if finding.rule == "accept-queue" and mine & {each.attempt_id for each in finding.victims}:
            return str(finding.subject["listener"])
    return ""


def _confidence(dead: Dead) -> float:
    number = len(dead.attempts)
    if dead.answered:
        sure = 0.7 if number < 3 else 0.8 if number < 5 else 0.9
    else:
        sure = 0.6 if number == 1 else 0.85 if number < 5 else 0.95
    if (dead.attempts["outcome"] == Outcome.pending).all():
        sure = min(sure, 0.6)  # an answer may still come, or somebody hold them up on the way
    return min(sure, 0.75) if dead.unknown else sure


# Threads that try for themselves would make a period of nothing if taken together.
def _periods_s(dead: Dead) -> tuple[float, ...]:
    threads = scope_keys(dead.attempts, "thread")
    times = start_ns(dead.attempts)
    periods = [
        float(np.median(np.diff(times[threads == thread]))) / 1e9
        for thread, tries in zip(*np.unique(threads, return_counts=True), strict=True)
        if tries >= _TRIES
    ]
    return tuple(sorted(period for period in periods if period >= 1e-3))


def _evidence(dead: Dead, periods: tuple[float, ...], waited: Behind) -> dict[str, object]:
    return {
        "attempts": len(dead.attempts),
        "by_outcome": dead.by_outcome(),
        "answered_before": dead.answered,
        "since_ns": int(start_ns(dead.attempts)[0]),
        "period_s": float(np.median(periods)) if periods else None,
        "spent_s": float(dead.open.lengths().sum()) / 1e9,
        "blocked": waited.number,
    }
