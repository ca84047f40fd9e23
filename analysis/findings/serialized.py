"""Rule `serialized-connects`: a throttle queues attempts, c at a time.

The statistics are in `throttle`, the scope in `scope`; here they become a verdict with a
confidence, the parties, the suspects and what to do. Precision goes before recall.
"""

import math
from collections.abc import Sequence

import numpy as np

from porttrace.analysis.findings import wording
from porttrace.analysis.findings.alternatives import Case, alternatives
from porttrace.analysis.findings.parties import blockers, suspects, victims
from porttrace.analysis.groups import LONG_NS, Group, counts_are_off, kernel_places, stand_at
from porttrace.analysis.model import Finding, Trace
from porttrace.analysis.scope import FIRM_P, ScopeResult, compare, throttled_groups
from porttrace.analysis.stacks import held_in
from porttrace.analysis.suspects import could_hold

RULE = "serialized-connects"


def serialized_connects(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find throttles that queue: one finding per place and throttled group."""
    return [_finding(case) for case in throttled_cases(trace)]


def throttled_cases(trace: Trace) -> list[Case]:
    """Return the throttled groups of `trace` at each place, as the findings tell of them."""
    cases = [
        Case(trace, at.name, group, at)
        for at in (stand_at(trace, place) for place in _places(trace))
        for group in throttled_groups(at)
    ]
    cases = [case for case in cases if case.place != "user" or _preloads(case)]
    return [case for case in cases if not counts_are_off(trace) or _is_simple(case)]


# Where many events are lost, all that is told is what needs no counting.
def _is_simple(case: Case) -> bool:
    return case.group.verdict.slots == 1 and case.place not in ("network", "ingress")


# Nothing that is found in user space counts without such a library: then there is no need to look.
def _places(trace: Trace) -> tuple[str, ...]:
    known = any(process.preloads for process in trace.processes.values())
    return (*kernel_places(trace), *(("user",) if known else ()))


def _pids(case: Case) -> list[int]:
    return [int(pid) for pid in np.unique(case.attempts()["pid"])]


# Threads that take turns in user space may just do so. Only a foreign library that puts itself in
# the way of connect makes a throttle of it.
def _preloads(case: Case) -> bool:
    known = [case.trace.processes.get(pid) for pid in _pids(case)]
    return any(process is not None and process.preloads for process in known)


def confidence(case: Case) -> float:
    """Return how sure the verdict is: firm only with three handoffs that chance cannot make."""
    sure = _by_handoffs(case.group)
    if case.loss_overlaps() or not case.attempts()["complete"].all():
        sure = min(sure, 0.75)
    if case.place == "user":
        sure = min(sure, 0.79)
    drops = case.place == "network" and case.group.verdict.mechanism == "drop"
    if drops or case.group.verdict.reckoned:
        # Who was never answered may have been let through or not: the slots are reckoned.
        sure = min(sure, 0.79)
    return round(sure, 2)


def _by_handoffs(group: Group) -> float:
    verdict, chance = group.verdict, group.p_value()
    if not verdict.testable:
        return 0.6
    if verdict.handoffs < 3 or chance >= FIRM_P:
        return 0.7 if chance <= 0.01 else 0.6
    if verdict.explained() < 0.98 or verdict.busy < 0.95:
        return 0.79
    return 0.8 + 0.19 * min(1.0, (-math.log10(max(chance, 1e-300)) - 4) / 8)


def _finding(case: Case) -> Finding:
    sure = confidence(case)
    group, place = case.group, case.place
    total = int(group.queue.hold.lengths()[group.queue.held()].sum())
    stack = _stack(case)
    behind, ahead = victims(case.trace, group), blockers(case.trace, group)
    scopes = compare(case.at, group)
    interposing = suspects(case.trace, _pids(case), place, stack)
    best = interposing[0] if interposing and could_hold(interposing[0], place, stack) else None
    return Finding(
        rule=RULE,
        severity="critical" if total >= LONG_NS else "warning",
        confidence=sure,
        subject=_subject(case),
        summary=wording.summary(case, sure, behind, ahead),
        scope=group.scope,
        slots=group.verdict.slots,
        place=place,
        mechanism=group.verdict.mechanism,
        evidence=_evidence(case, total, sure, stack, scopes),
        hypotheses=alternatives(case),
        victims=behind,
        blockers=ahead,
        suspects=interposing,
        advice=wording.advice(case, behind, ahead, scopes, best),
    )


def _subject(case: Case) -> dict[str, object]:
    pids = _pids(case)
    subject: dict[str, object] = {"scope": case.group.scope, "key": case.group.key, "pids": pids}
    if case.group.scope == "destination":
        subject["key"] = wording.destination_of(case)
    if len(pids) == 1:
        subject["pid"] = pids[0]
    return subject


def _stack(case: Case) -> tuple[str, ...]:
    held = case.attempts()[case.group.queue.held()]
    return held_in(held, case.place, case.trace.stacks)


def _evidence(
    case: Case,
    total_ns: int,
    sure: float,
    stack: tuple[str, ...],
    scopes: tuple[ScopeResult, ...],
) -> dict[str, object]:
    verdict = case.group.verdict
    return {
        "held": verdict.held,
        "still_held": verdict.waiting,
        "handoffs": verdict.handoffs,
        "p_value": case.group.p_value(),
        "delay_s": float(case.group.queue.hold.lengths().max()) / 1e9,
        "handoff_ms": verdict.lag_ns / 1e6,
        "busy_share": verdict.busy,
        "cap_exceeded": verdict.cap_exceeded,
        "epsilon_ms": verdict.epsilon_ns / 1e6,
        "total_held_s": total_ns / 1e9,
        "stack": list(stack),
        "not_looked": [f"{each.what}: {each.reason}" for each in case.trace.not_looked],
        "scopes": [result.row() for result in scopes],
        "settle": wording.settle(case, sure, scopes),
    }
