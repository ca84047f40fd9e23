"""Rule `timeout-source`: whose timer ended the waits in SYN_SENT?

The kernel's ladder, TCP_SYNCNT, TCP_USER_TIMEOUT, SO_SNDTIMEO, the neighbour table, or the
application: each leaves another combination of outcome, call and length.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.holds import spans
from porttrace.analysis.ladder import given_up, is_near, of_host
from porttrace.analysis.model import Finding, Outcome, Trace

RULE = "timeout-source"
_SLOW_NS = 500_000_000
_ENDED = (Outcome.timed_out, Outcome.cancelled, Outcome.unreachable)
_ROUND_S = (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 45, 60, 75, 90, 120)
_WINDOWS_S = 21.0
_NEIGHBOUR_S = 3.0  # three unanswered ARP or neighbour requests, one a second (mcast_solicit)


@dataclass(frozen=True)
class Source:
    """Whose timer it was: a short name, how sure, and the reason as a sentence."""

    name: str
    confidence: float
    why: str


def timeout_source(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Tell whose timer ended the waits: one finding per process, destination and source."""
    waits = spans(trace.attempts, "beyond", trace.end_ns)
    slow = waits.closed & (waits.lengths() >= _SLOW_NS)
    slow &= np.isin(trace.attempts["outcome"], _ENDED)
    cases: dict[tuple[int, str, Source], list[int]] = defaultdict(list)
    for row in np.flatnonzero(slow).tolist():
        attempt, waited = trace.attempts[row], int(waits.lengths()[row])
        source = source_of(trace, attempt, waited / 1e9)
        cases[int(attempt["pid"]), names.destination(attempt), source].append(waited)
    return [_finding(trace, pid, to, source, ns) for (pid, to, source), ns in cases.items()]


def source_of(trace: Trace, attempt: np.void, waited_s: float) -> Source:
    """Return whose timer ended one attempt that waited so long in SYN_SENT."""
    if attempt["outcome"] == Outcome.cancelled:
        return _given_up_by_caller(attempt, waited_s)
    if attempt["outcome"] == Outcome.unreachable and is_near(waited_s, _NEIGHBOUR_S):
        why = "three requests for its link address went unanswered, so the kernel gave up"
        return Source("neighbour", 0.7, why)
    return _given_up_by_kernel(trace, waited_s, Outcome(int(attempt["outcome"])))


def _given_up_by_kernel(trace: Trace, waited_s: float, outcome: Outcome) -> Source:
    sysctls = trace.host.sysctls
    step, own = given_up(waited_s, sysctls), of_host(sysctls)
    if step is None:
        if outcome == Outcome.unreachable:
            return Source("network", 0.7, "a router or the host itself said it is unreachable")
        why = "the kernel reported a timeout off its own ladder: TCP_USER_TIMEOUT does that"
        return Source("tcp-user-timeout", 0.8, why)
    if step.retries == own.retries:
        why = (
            f"the kernel's own ladder ends there: tcp_syn_retries = {own.retries}, that is"
            f" {len(own.rungs_s)} SYNs sent again, then {own.give_up_s:.0f} s are over"
        )
        return Source("kernel-ladder", 0.9 if sysctls else 0.7, why)
    why = (
        f"that is where the ladder ends with TCP_SYNCNT = {step.retries} on the socket; a"
        f" TCP_USER_TIMEOUT of {step.give_up_s:.0f} s would look the same"
    )
    return Source("tcp-syncnt", 0.7, why)


# A blocking connect that returns before its socket leaves SYN_SENT was let go by SO_SNDTIMEO (or
# by a signal, which has no reason to come at a round time).
def _given_up_by_caller(attempt: np.void, waited_s: float) -> Source:
    returned, called = int(attempt["return_ns"]), int(attempt["call_ns"])
    in_call_s = (returned - called) / 1e9
    early = 0 < called < returned < int(attempt["end_ns"]) and in_call_s * 1e9 >= _SLOW_NS
    if attempt["blocking"] == 1 and early and _round(in_call_s):
        why = (
            f"connect itself returned after {_round(in_call_s):g} s, by SO_SNDTIMEO; no answer yet"
        )
        return Source("so-sndtimeo", 0.8, why)
    if abs(waited_s - _WINDOWS_S) <= 0.4:
        why = (
            "21 s is no rung of Linux: Windows gives up after 3 + 6 + 12 s, but here the"
            " application's own timer (or a proxy's) closed the socket"
        )
        return Source("application", 0.8, why)
    nearest = _round(waited_s)
    if nearest:
        return Source("application", 0.8, f"it closed the socket itself: a timer of {nearest:g} s")
    return Source("application", 0.6, "it closed the socket itself, after no round time")


def _round(seconds: float) -> float:
    fits = [r for r in _ROUND_S if r - 0.01 <= seconds <= 1.03 * r + 0.05]
    return float(fits[0]) if fits else 0.0


def _finding(trace: Trace, pid: int, to: str, source: Source, waits: list[int]) -> Finding:
    typical = names.duration(float(np.median(waits)))
    number = names.count(len(waits), "attempt")
    return Finding(
        rule=RULE,
        severity="info",
        confidence=source.confidence,
        subject={"pid": pid, "destination": to, "source": source.name},
        summary=(
            f"{number} of {names.process(trace, pid)} to {to} waited {typical} without an answer:"
            f" {source.why}."
        ),
        evidence={
            "source": source.name,
            "attempts": len(waits),
            "median_wait_s": float(np.median(waits)) / 1e9,
            "ladder_s": list(of_host(trace.host.sysctls).rungs_s),
            "give_up_s": of_host(trace.host.sysctls).give_up_s,
        },
    )
