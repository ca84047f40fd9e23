"""The smaller rules on worlds written out by hand, and the order in which findings are shown."""

from dataclasses import replace

import numpy as np
import pytest

from porttrace.analysis.findings import diagnose
from porttrace.analysis.findings.dead_destination import dead_destination
from porttrace.analysis.findings.sequential import sequential_connects
from porttrace.analysis.findings.serialized import serialized_connects
from porttrace.analysis.findings.timeout_source import timeout_source
from porttrace.analysis.model import ATTEMPT, Host, Outcome, Process, Suspect, Trace, no_attempts

from .. import simulate  # noqa: TID252
from ..simulate import MS, Client, S, Throttle, row  # noqa: TID252

HOST = Host(sysctls={"tcp_syn_retries": 6, "tcp_syn_linear_timeouts": 4})
Step = tuple[str, float, float, Outcome]


def world(*steps: Step, tids: tuple[int, ...] = (), blocking: bool = True) -> Trace:
    """Return one process's attempts (destination, call, end in ms, outcome); end 0: pending."""
    rows = []
    for i, (to, call, end, outcome) in enumerate(steps):
        client = Client(7, tids[i] if tids else 70, to, blocking=blocking)
        marks = {"call_ns": int(call * MS), "syn_ns": int(call * MS) + 9_000}
        marks |= {"end_ns": int(end * MS), "return_ns": int(end * MS) + 9_000 if end else 0}
        rows.append(row(i + 1, client, marks, outcome))
    end_ns = int(max(max(step[1:3]) for step in steps) * MS) + S
    return Trace(np.array(rows, ATTEMPT), 1, end_ns, {7: Process(7, comm="web")}, host=HOST)


def test_no_attempts_no_findings() -> None:
    assert diagnose(Trace(no_attempts(), 0, 1)) == ()


def test_sequential_code_is_named_and_not_blamed_on_the_system() -> None:
    trace = world(
        ("192.0.2.66:9100", 1000, 4000, Outcome.timed_out),
        ("192.0.2.2:389", 4001, 4003, Outcome.established),
        ("192.0.2.66:9100", 9000, 12000, Outcome.timed_out),
        ("192.0.2.2:389", 12001, 12003, Outcome.established),
    )
    (finding,) = sequential_connects(trace, ())
    assert finding.severity == "info"
    assert finding.evidence["followed_slow"] == 2
    assert "web (pid 7) connects one at a time" in finding.summary
    blind = replace(trace, gates_seen=False)
    assert sequential_connects(blind, ())[0].confidence == 0.5


@pytest.mark.parametrize("gap_ms", [-500, 700])
def test_overlapping_or_idle_attempts_are_not_sequential(gap_ms: int) -> None:
    trace = world(
        ("192.0.2.66:9100", 1000, 4000, Outcome.timed_out),
        ("192.0.2.2:389", 4000 + gap_ms, 5000, Outcome.established),
        ("192.0.2.2:389", 9000, 9002, Outcome.established),
    )
    assert sequential_connects(trace, ()) == []


def test_a_dead_destination_has_a_period_and_a_sum() -> None:
    dead = [("192.0.2.66:9100", t * 10_000.0 + 1, t * 10_000.0 + 3001) for t in range(5)]
    trace = world(*((*d, Outcome.cancelled) for d in dead))
    (finding,) = dead_destination(trace, ())
    assert (finding.severity, finding.confidence) == ("warning", 0.95)
    assert finding.evidence["period_s"] == pytest.approx(10)
    assert finding.evidence["spent_s"] == pytest.approx(15, rel=0.01)


@pytest.mark.parametrize(
    ("steps", "severity"),
    [
        ([(1, 2, Outcome.refused)], None),
        ([(1, 2, Outcome.refused), (50, 51, Outcome.refused)], "info"),
        ([(1, 2, Outcome.refused), (50, 51, Outcome.established)], None),
        ([(1, 500, Outcome.cancelled), (600, 900, Outcome.cancelled)], None),
        ([(1, 0, Outcome.pending)], None),
        ([(1, 3500, Outcome.timed_out)], "warning"),
    ],
)
def test_when_a_destination_counts_as_dead(
    steps: list[tuple[float, float, Outcome]], severity: str | None
) -> None:
    found = dead_destination(world(*(("192.0.2.9:80", *step) for step in steps)), ())
    assert [f.severity for f in found] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("wait_ms", "outcome", "source"),
    [
        (133_400, Outcome.timed_out, "kernel-ladder"),
        (7_140, Outcome.timed_out, "tcp-syncnt"),
        (10_240, Outcome.timed_out, "tcp-user-timeout"),
        (3_070, Outcome.unreachable, "neighbour"),
        (900, Outcome.unreachable, "network"),
        (6_001, Outcome.cancelled, "application"),
        (21_001, Outcome.cancelled, "application"),
    ],
)
def test_whose_timer(wait_ms: float, outcome: Outcome, source: str) -> None:
    trace = world(("192.0.2.66:9100", 1000, 1000 + wait_ms, outcome), blocking=False)
    (finding,) = timeout_source(trace, ())
    assert finding.evidence["source"] == source
    assert ("Windows" in finding.summary) == (wait_ms == 21_001)


def test_a_blocking_call_that_returns_first_was_let_go_by_sndtimeo() -> None:
    trace = world(("192.0.2.66:9100", 1000, 9000, Outcome.cancelled))
    trace.attempts["return_ns"] = trace.attempts["call_ns"] + 3_071 * MS
    (finding,) = timeout_source(trace, ())
    assert finding.evidence["source"] == "so-sndtimeo"


def throttled_web() -> Trace:
    """Return a web server whose logins wait behind an agent's dead port."""
    agent = Client(
        12, 13, "192.0.2.66:9100", service_ms=3000, think_ms=900, steady=True, rounds=6,
        outcome=Outcome.cancelled,
    )  # fmt: skip
    logins = [Client(12, 20 + i, think_ms=1500, service_ms=2, rounds=10) for i in range(2)]
    trace = simulate.throttled([agent, *logins], Throttle(1), seed=4)
    facts = (Suspect("preload", "user", "a", "b"), Suspect("seccomp-notify", "gate", "c", "d"))
    return replace(trace, suspects={12: facts}, host=HOST)


def test_findings_build_on_each_other_and_the_worst_comes_first() -> None:
    found = diagnose(throttled_web())
    assert [f.rule for f in found] == ["serialized-connects", "dead-destination", "timeout-source"]
    throttle, dead, source = found
    assert throttle.confidence >= 0.8
    assert [s.kind for s in throttle.suspects] == ["seccomp-notify", "preload"]
    assert dead.victims
    assert all(v.destination == "192.0.2.2:389" for v in dead.victims)
    assert "had to wait for it" in dead.summary
    assert "a timer of 3 s" in source.summary


def test_victims_and_blockers_are_sorted_and_alternatives_are_answered() -> None:
    (finding,) = serialized_connects(throttled_web(), ())
    waits = [v.wait_s for v in finding.victims]
    assert waits == sorted(waits, reverse=True)
    assert finding.blockers[0].destination == "192.0.2.66:9100"
    verdicts = {h.name: h.verdict for h in finding.hypotheses}
    assert set(verdicts.values()) == {"refuted"}
    assert len(verdicts) == 8
