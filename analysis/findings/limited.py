"""Rule `limited-connects`: a throttle denies instead of queueing, whatever comes while c are open.

The statistics are in `denials`. The same destination must have been let through while fewer were
in flight, and the answers must have changed with their number again and again: a net that is down
for a while fails attempts, too, and some other attempt is always in flight meanwhile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from porttrace.analysis.concurrency import SCOPES, Bools, Ints, resolved_ns, scope_keys
from porttrace.analysis.denials import (
    LOSSY_FIT,
    MIN_DENIED,
    MIN_FIT,
    Denial,
    decisions_of,
    denials,
    denied_at_once,
)
from porttrace.analysis.findings import counted
from porttrace.analysis.findings import limited_wording as wording
from porttrace.analysis.findings.parties import NAMED, party, suspects
from porttrace.analysis.model import Attempts, Finding, Hypothesis, Party, Trace
from porttrace.analysis.place import ruleset
from porttrace.analysis.rows import take
from porttrace.analysis.scope import FIRM_P, LIKELY_P, NARROW, WIDE
from porttrace.analysis.wire import wire_mark, wire_seen

RULE = "limited-connects"
_CRITICAL = 5  # so many denied attempts are no trifle
_COVERED = 0.1  # of its denials must be news for a wider scope to count


@dataclass(frozen=True)
class Limit:
    """A group of attempts that is limited, and the trace it stands in."""

    trace: Trace
    found: Denial
    place: str  # "" where the marks do not tell

    @cached_property
    def denied(self) -> Attempts:
        """The denied attempts, in order of time."""
        return take(self.trace.attempts, self.denied_rows())

    def denied_rows(self) -> Ints:
        """Return the indices of the denied attempts."""
        return self.found.rows[self.found.denied]

    def pids(self) -> list[int]:
        """Return the processes of which any attempt was denied."""
        return [int(pid) for pid in np.unique(self.denied["pid"])]

    def destinations(self) -> int:
        """Return how many destinations were denied."""
        return len(np.unique(scope_keys(self.denied, "destination")))


def limited_connects(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find throttles that deny: one finding per errno and limited group."""
    attempts = trace.columns
    errors = attempts["errno"][denied_at_once(attempts)]
    numbers, counts = np.unique(errors, return_counts=True)
    return [
        _finding(Limit(trace, group, _place(trace, group)))
        for number in numbers[counts >= MIN_DENIED].tolist()
        for group in _groups(trace, number)
    ]


# The process is the answer unless it does not fit; then the narrowest wide scope that does, and at
# last those inside a process. What an earlier scope explains is not asked again.
def _groups(trace: Trace, number: int) -> list[Denial]:
    chosen: list[Denial] = []
    covered = np.zeros(len(trace.attempts), np.bool_)
    decisions = decisions_of(trace, number)
    for rank, scope in enumerate(_tried(trace), 1):
        for group in denials(trace, scope, number, decisions):
            denied = group.rows[group.denied]
            if not _believable(trace, group, rank) or covered[denied].mean() > _COVERED:
                continue
            chosen.append(group)
            covered[group.rows] = True
    return chosen


# With one network namespace in the trace it is no other scope than the host.
def _tried(trace: Trace) -> list[str]:
    one = len(np.unique(scope_keys(trace.columns, "netns", trace.processes))) < 2
    scopes = ("process", *WIDE, *NARROW)
    return [scope for scope in scopes if scope != "netns" or not one]


def _believable(trace: Trace, group: Denial, rank: int) -> bool:
    return group.fits(_enough(trace, group.rows)) and group.p_value * rank <= LIKELY_P


def _enough(trace: Trace, rows: Ints) -> float:
    return LOSSY_FIT if _lossy(trace, rows) else MIN_FIT


def _lossy(trace: Trace, rows: Ints) -> bool:
    return bool(trace.losses) or not trace.columns["complete"][rows].all()


# A call that failed before SYN_SENT failed inside the kernel's connect, or never got there. Behind
# the SYN only the wire can tell whether it left this host.
def _place(trace: Trace, group: Denial) -> str:
    denied = take(trace.attempts, group.rows[group.denied])
    if _most(denied["syn_ns"] == 0):
        return "gate" if _most(denied["call_ns"] == 0) else "connect"
    # Where those that passed were not seen either, nobody watched.
    passed = take(trace.attempts, group.rows[~group.denied])
    if not wire_seen(trace) or not _most(wire_mark(passed, "wire_ns") > 0):
        return ""
    if _most(wire_mark(denied, "wire_ns") == 0):
        return "egress"
    return "network" if _most(wire_mark(denied, "answer_ns") > 0) else ""


def _most(which: Bools) -> bool:
    return float(np.mean(which)) >= 0.9


def confidence(limit: Limit) -> float:
    """Return how sure the verdict is; firm only if chance and a limit per time are excluded."""
    found, sure = limit.found, 0.6
    if found.p_value <= FIRM_P:
        sure = 0.8 + 0.15 * min(1.0, (-math.log10(max(found.p_value, 1e-300)) - 4) / 8)
    elif found.p_value <= LIKELY_P / 10:
        sure = 0.7
    if wording.per_time(found):
        sure = min(sure, 0.7)
    if wording.server_may_limit(limit.place, limit.destinations(), limit.denied):
        sure = min(sure, 0.75)
    if _lossy(limit.trace, found.rows):
        sure = min(sure, 0.75)
    return round(sure, 2)


def _finding(limit: Limit) -> Finding:
    found, sure = limit.found, confidence(limit)
    number = len(limit.denied)
    ahead = _blockers(limit)
    pids = limit.pids()
    subject: dict[str, object] = {"scope": found.scope, "key": found.key, "pids": pids}
    if found.scope == "destination":
        subject["key"] = wording.destination_of(limit.denied[0])
    if len(pids) == 1:
        subject["pid"] = pids[0]
    scopes = _scopes(limit)
    others = counted.rivals(found.scope, scopes)
    return Finding(
        rule=RULE,
        severity="critical" if number >= _CRITICAL else "warning",
        confidence=sure,
        subject=subject,
        summary=wording.summary(limit.trace, found, limit.denied, limit.place, sure, ahead),
        scope=found.scope,
        slots=found.slots,
        place=limit.place,
        mechanism="deny",
        evidence=_evidence(limit, scopes, others),
        hypotheses=_hypotheses(limit),
        victims=tuple(_victim(limit, int(row)) for row in limit.denied_rows()[:NAMED]),
        blockers=ahead,
        suspects=suspects(limit.trace, pids, limit.place or "egress"),
        advice=wording.advice(
            found,
            limit.denied,
            limit.place,
            others,
            ahead,
            ruleset(limit.trace, int(limit.denied["pid"][-1])),
        ),
    )


def _victim(limit: Limit, row: int) -> Party:
    attempt = limit.trace.attempts[row : row + 1]
    begun = int(attempt["call_ns"][0] or attempt["gate_ns"][0] or attempt["syn_ns"][0])
    return party(limit.trace, row, int(attempt["end_ns"][0]) - begun)


# Who was in flight at denials, those at most of them first; the time is theirs in flight.
def _blockers(limit: Limit) -> tuple[Party, ...]:
    trace, found = limit.trace, limit.found
    rows = found.rows[~found.denied]
    passed = take(trace.attempts, rows)
    begun = np.where(passed["call_ns"] > 0, passed["call_ns"], passed["syn_ns"]).astype(np.int64)
    over = resolved_ns(passed, trace.end_ns)
    times = np.sort(limit.denied["end_ns"].astype(np.int64))
    met = np.searchsorted(times, over, "left") - np.searchsorted(times, begun, "left")
    order = np.lexsort((rows, -met))[:NAMED]
    return tuple(party(trace, int(rows[i]), int(over[i] - begun[i])) for i in order if met[i] > 0)


def _evidence(
    limit: Limit, scopes: list[dict[str, object]], others: tuple[str, ...]
) -> dict[str, object]:
    found = limit.found
    return {
        "denied": len(limit.denied),
        "passed": int(np.count_nonzero(~found.denied)),
        "errno": found.errno,
        "error": wording.error_name(found.errno),
        "denied_while_full": found.denied_fit,
        "passed_while_free": found.passed_fit,
        "busy_stretches": found.busy,
        "busy_stretches_denied": found.busy_denied,
        "free_stretches": found.free,
        "free_stretches_passed": found.free_passed,
        "p_value": found.p_value,
        "per_time_fit": found.window_fit,
        "destinations": limit.destinations(),
        "scopes": scopes,
        "settle": wording.settle(limit.place, found, others),
    }


# How each other scope fares with the same denials.
def _scopes(limit: Limit) -> list[dict[str, object]]:
    rows = limit.denied_rows()
    results: list[dict[str, object]] = []
    for scope in SCOPES:
        others = [
            other
            for other in denials(limit.trace, scope, limit.found.errno)
            if np.isin(other.rows, rows).any() and other.fits(_enough(limit.trace, other.rows))
        ]
        explained = sum(int(np.isin(other.rows[other.denied], rows).sum()) for other in others)
        same = any(np.array_equal(other.rows, limit.found.rows) for other in others)
        verdict = "explains" if explained >= 0.9 * len(rows) else "fails"
        if scope != limit.found.scope and same:
            verdict = "same"
        results.append({"scope": scope, "denied": explained, "verdict": verdict})
    return results


def _hypotheses(limit: Limit) -> tuple[Hypothesis, ...]:
    return wording.hypotheses(
        limit.trace, limit.found, limit.denied, limit.place, limit.destinations()
    )
