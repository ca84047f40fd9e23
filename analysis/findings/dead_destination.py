"""Rule `dead-destination`: a destination that never answers well, how often it is tried, and what
that blocks."""

from collections.abc import Sequence

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.holds import service
from porttrace.analysis.model import Finding, Outcome, Party, Trace, start_ns

RULE = "dead-destination"
_FAILED = (Outcome.refused, Outcome.timed_out, Outcome.unreachable)
_SILENT = (Outcome.cancelled, Outcome.pending)
_SILENT_NS = 1_000_000_000  # an attempt that was given up sooner proves nothing
_ALONE_NS = 3_000_000_000  # a single attempt must have waited so long
_QUICK_NS = 100_000_000


def dead_destination(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find destinations that only refuse, time out, or stay silent: one finding each."""
    spent = service(trace.attempts, "connect", trace.end_ns).lengths()
    bad = _bad(trace, spent)
    keys = scope_keys(trace.attempts, "destination")
    answered = trace.attempts["outcome"] == Outcome.established
    suspect = np.setdiff1d(keys[bad], keys[answered])
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], suspect, "left")
    last = np.searchsorted(keys[order], suspect, "right")
    cases = [np.sort(order[a:b]) for a, b in zip(first, last, strict=True)]
    cases = [rows[bad[rows]] for rows in cases]
    return [
        _finding(trace, rows, spent[rows], found) for rows in cases if _enough(trace, rows, spent)
    ]


def _bad(trace: Trace, spent: Ints) -> Bools:
    outcome = trace.attempts["outcome"]
    silent = np.isin(outcome, _SILENT) & (spent >= _SILENT_NS)
    return np.asarray(np.isin(outcome, _FAILED) | silent)


def _enough(trace: Trace, rows: Ints, spent: Ints) -> bool:
    if len(rows) >= 2:
        return True
    refused = trace.attempts["outcome"][rows[0]] == Outcome.refused
    return not refused and int(spent[rows[0]]) >= _ALONE_NS


def _finding(trace: Trace, rows: Ints, spent: Ints, found: Sequence[Finding]) -> Finding:
    attempts = trace.attempts[rows]
    to, number = names.destination(attempts[0]), len(rows)
    kinds, counts = np.unique(attempts["outcome"], return_counts=True)
    by_outcome = {Outcome(int(k)).name: int(n) for k, n in zip(kinds, counts, strict=True)}
    period_s = float(np.median(np.diff(np.sort(start_ns(attempts))))) / 1e9 if number > 1 else 0.0
    blocked = _blocked(to, found)
    only_refused = set(by_outcome) == {"refused"} and int(spent.max()) < _QUICK_NS
    return Finding(
        rule=RULE,
        severity="info" if only_refused and not blocked else "warning",
        confidence=0.6 if number == 1 else 0.85 if number < 5 else 0.95,
        subject={"destination": to, "pids": np.unique(attempts["pid"]).tolist()},
        summary=_summary(trace, rows, by_outcome, period_s, int(spent.sum()), blocked),
        evidence={
            "attempts": number,
            "by_outcome": by_outcome,
            "period_s": period_s,
            "spent_s": float(spent.sum()) / 1e9,
            "blocked": len(blocked),
        },
        victims=blocked,
        advice=_advice(to, only_refused, blocked),
    )


def _blocked(to: str, found: Sequence[Finding]) -> tuple[Party, ...]:
    behind = [
        finding.victims
        for finding in found
        if finding.rule == "serialized-connects"
        and any(blocker.destination == to for blocker in finding.blockers)
    ]
    # An attempt to the dead destination may be held itself: that is no harm done by it.
    once = {v.attempt_id: v for victims in behind for v in victims if v.destination != to}
    return tuple(sorted(once.values(), key=lambda victim: -victim.wait_s))


def _summary(
    trace: Trace,
    rows: Ints,
    by_outcome: dict[str, int],
    period_s: float,
    spent_ns: int,
    blocked: tuple[Party, ...],
) -> str:
    attempts = trace.attempts[rows]
    pids = np.unique(attempts["pid"]).tolist()
    who = names.process(trace, pids[0]) if len(pids) == 1 else f"{len(pids)} processes"
    kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in by_outcome.items())
    text = (
        f"{names.destination(attempts[0])} answered none of {names.count(len(rows), 'attempt')}"
        f" of {who} ({kinds}; {names.duration(spent_ns)} in all)."
    )
    if period_s:
        text += f" It is tried again every {names.duration(period_s * 1e9)}."
    if blocked:
        text += (
            f" {names.count(len(blocked), 'other connect')} had to wait for it, up to"
            f" {names.duration(blocked[0].wait_s * 1e9)}."
        )
    return text


def _advice(to: str, only_refused: bool, blocked: tuple[Party, ...]) -> tuple[str, ...]:
    if only_refused:
        return (f"Nothing listens at {to}: start the service there or stop trying.",)
    lines = [f"Find out why {to} does not answer: host down, packets dropped, or a wrong address."]
    if blocked:
        lines.append(f"Until then stop the retries to {to} or shorten their connect timeout.")
    return tuple(lines)
