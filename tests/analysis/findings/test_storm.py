"""A storm is a rate that lasts and descriptors that come back; bursts and pools are none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porttrace.analysis.findings import diagnose
from porttrace.analysis.findings.storm import LASTING_S, RATE, connect_storm, local_ports
from porttrace.analysis.model import ATTEMPT, Host, Loss, Outcome, Process, Trace

from ..simulate import MS, Client, S, row  # noqa: TID252


def stream(
    rate: float,
    seconds: float,
    *,
    took_ms: float = 2.0,
    fds: int = 4,
    to: int = 1,
    seed: int = 1,
    threads: int = 2,
) -> Trace:
    """Return connects at random times at a mean rate, to so many destinations, over so many fds."""
    rng = np.random.default_rng(seed)
    number = int(rate * seconds)
    times = np.sort(rng.uniform(0, seconds, number)) * 1e9 + S
    rows = np.zeros(number, ATTEMPT)
    for i, at in enumerate(times.astype(np.int64).tolist()):
        client = Client(7, 70 + i % threads, f"192.0.2.{1 + i % to}:5432")
        marks = {"call_ns": at, "syn_ns": at + 9_000, "end_ns": at + 9_000 + int(took_ms * MS)}
        rows[i] = row(i + 1, client, marks, Outcome.established)
    rows["fd"] = 5 + np.arange(number) % fds
    return Trace(rows, S, int(times.max(initial=S)) + S, {7: Process(7, comm="api")})


def test_a_storm_is_told_with_its_cost() -> None:
    (finding,) = connect_storm(stream(60, 30), ())
    assert (finding.severity, finding.confidence) == ("info", 0.9)
    assert finding.evidence["rate_per_s"] == pytest.approx(60, rel=0.1)
    assert finding.evidence["time_wait"] == pytest.approx(3600, rel=0.1)
    assert finding.evidence["handshake_share"] == pytest.approx(60 * 0.002 / 2, rel=0.1)
    assert finding.summary.startswith("api (pid 7) connects to 192.0.2.1:5432 6")
    assert "(2 ms each) take 6 % of the time of its 2 threads" in finding.summary
    assert finding.advice[0].startswith("Keep connections to 192.0.2.1:5432 open")


@pytest.mark.parametrize(
    ("trace", "severity"),
    [
        (stream(60, 30), "info"),
        (stream(300, 15), "warning"),  # 18,000 of 28,232 ports
        (stream(40, 20, took_ms=30), "warning"),  # 60 % of two threads' time
        (stream(40, 20, took_ms=30, threads=40, fds=40), "info"),
    ],
)
def test_severity(trace: Trace, severity: str) -> None:
    assert [f.severity for f in connect_storm(trace, ())] == [severity]


def test_the_port_range_of_the_host_counts() -> None:
    sysctls = {"ip_local_port_range_first": 10_000, "ip_local_port_range_last": 14_999}
    trace = replace(stream(60, 30), host=Host(sysctls=sysctls))
    (finding,) = connect_storm(trace, ())
    assert finding.severity == "warning"
    assert finding.evidence["local_ports"] == 5000 and finding.evidence["local_ports_known"]
    assert "tcp_tw_reuse" in finding.advice[1]
    assert local_ports({}) == (28_232, False)


def on_and_off(trace: Trace) -> Trace:
    """Return the trace without every other span of five seconds."""
    on = (trace.attempts["call_ns"] // (5 * S)) % 2 == 0
    return replace(trace, attempts=trace.attempts[on])


@pytest.mark.parametrize(
    "trace",
    [
        stream(1000, 4),  # a short burst
        stream(3, 120),  # slow
        on_and_off(stream(200, 60)),  # again and again for a while, with rests
        stream(100, 20, fds=2000),  # connections that stay open
        stream(100, 20, fds=700),
        stream(100, 30, to=20),  # many destinations
        stream(0, 1),
    ],
    ids=["burst", "slow", "jobs", "pool", "large pool", "crawler", "nothing"],
)
def test_controls(trace: Trace) -> None:
    assert connect_storm(trace, ()) == []


def test_failed_attempts_are_no_storm() -> None:
    trace = stream(100, 20)
    trace.rows["outcome"] = Outcome.refused
    assert connect_storm(trace, ()) == []


def test_many_short_lives_before_a_burst_and_after() -> None:
    trace = stream(60, 30)
    late = stream(500, 1, seed=2).attempts
    late["call_ns"] += 60 * S
    both = replace(trace, attempts=np.concatenate([trace.attempts, late]), end_ns=100 * S)
    (finding,) = connect_storm(both, ())
    assert finding.evidence["rate_per_s"] == pytest.approx(60, rel=0.1)


@given(st.floats(0, 60), st.floats(0, 30), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_never_below_its_thresholds(rate: float, seconds: float, seed: int) -> None:
    found = connect_storm(stream(rate, seconds, seed=seed), ())
    if rate < 0.8 * RATE or seconds < LASTING_S - 1:
        assert not found
    if rate > 1.5 * RATE and seconds > LASTING_S + 4:
        assert found


@pytest.mark.parametrize("seed", range(5))
def test_lost_events_weaken_it(seed: int) -> None:
    trace = stream(60, 30, seed=seed)
    kept = np.random.default_rng(seed).random(len(trace.attempts)) > 0.1
    rows = trace.attempts[kept]
    rows["complete"] = False
    lossy = replace(trace, attempts=rows, losses=(Loss(S, trace.end_ns, 0, 9),))
    (finding,) = connect_storm(lossy, ())
    assert finding.confidence == 0.75
    assert [f.rule for f in diagnose(lossy)] == ["connect-storm"]
