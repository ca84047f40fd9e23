"""The smaller rules on worlds written out by hand, and the order in which findings are shown."""

from dataclasses import replace

import pytest

from porttrace.analysis.findings import diagnose
from porttrace.analysis.findings.sequential import sequential_connects
from porttrace.analysis.findings.serialized import serialized_connects
from porttrace.analysis.model import Outcome, Suspect, Trace, no_attempts

from .. import simulate  # noqa: TID252
from ..simulate import Client, Throttle  # noqa: TID252
from .written import HOST, Step, world

TAKING_TURNS: tuple[Step, ...] = (
    ("192.0.2.66:9100", 1000, 4000, Outcome.timed_out),
    ("192.0.2.2:389", 4001, 4003, Outcome.established),
    ("192.0.2.66:9100", 9000, 12000, Outcome.timed_out),
    ("192.0.2.2:389", 12001, 12003, Outcome.established),
)


def test_no_attempts_no_findings() -> None:
    assert diagnose(Trace(no_attempts(), 0, 1)) == ()


def test_sequential_code_is_named_and_not_blamed_on_the_system() -> None:
    trace = world(*TAKING_TURNS)
    (finding,) = sequential_connects(trace, ())
    assert finding.severity == "warning"
    assert finding.evidence["followed_slow"] == 2
    assert "web (pid 7) connects one at a time" in finding.summary
    assert "in all, the longest to 192.0.2.66:9100) the next one" in finding.summary


def test_a_single_slow_attempt_in_front_is_a_note_at_the_side() -> None:
    trace = world(
        ("192.0.2.66:9100", 1000, 7000, Outcome.timed_out),
        ("192.0.2.2:389", 7001, 7002, Outcome.established),
        ("192.0.2.2:389", 9000, 9002, Outcome.established),
    )
    (finding,) = sequential_connects(trace, ())
    assert finding.severity == "info" and "(6.0 s in all to 192.0.2.66:9100)" in finding.summary


def test_who_is_older_than_the_trace_is_no_thread_of_its_own() -> None:
    trace = world(*TAKING_TURNS)
    known = len(set(trace.rows["tid"].tolist()))
    trace.rows["tid"][0] = 0
    (finding,) = sequential_connects(trace, ())
    assert finding.evidence["threads"] == len(set(trace.rows["tid"].tolist()) - {0}) <= known


def test_without_the_scheduler_no_order_is_called_the_applications_own() -> None:
    trace = world(*TAKING_TURNS)
    assert len(sequential_connects(trace, ())) == 1
    assert sequential_connects(replace(trace, gates_seen=False), ()) == []


@pytest.mark.parametrize("gap_ms", [-500, 700])
def test_overlapping_or_idle_attempts_are_not_sequential(gap_ms: int) -> None:
    trace = world(
        ("192.0.2.66:9100", 1000, 4000, Outcome.timed_out),
        ("192.0.2.2:389", 4000 + gap_ms, 5000, Outcome.established),
        ("192.0.2.2:389", 9000, 9002, Outcome.established),
    )
    assert sequential_connects(trace, ()) == []


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
    others = sum(v.destination == "192.0.2.2:389" for v in throttle.victims)
    assert dead.victims == ()
    assert dead.evidence["blocked"] == others
    assert f"{others} other connects had to wait for it, up to 3.0 s" in dead.summary
    assert "a timer of 3 s" in source.summary


def test_victims_and_blockers_are_sorted_and_alternatives_are_answered() -> None:
    (finding,) = serialized_connects(throttled_web(), ())
    waits = [v.wait_s for v in finding.victims]
    assert waits == sorted(waits, reverse=True)
    assert finding.blockers[0].destination == "192.0.2.66:9100"
    verdicts = {h.name: h.verdict for h in finding.hypotheses}
    assert set(verdicts.values()) == {"refuted"}
    assert len(verdicts) == 8
