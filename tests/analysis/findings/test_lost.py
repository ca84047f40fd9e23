"""Lost SYNs are told from slow peers, from a single loss, and from a throttle that drops."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porttrace.analysis.findings import diagnose
from porttrace.analysis.findings.lost import syn_lost
from porttrace.analysis.ladder import of_host
from porttrace.analysis.model import Finding, Host, Loss, Outcome, Trace
from porttrace.analysis.recording import load
from porttrace.analysis.remarks import remarks

from .written import HOST, Step, world

DATA = Path(__file__).parents[2] / "data"
TO = "192.0.2.9:80"
RUNGS = of_host(HOST.sysctls).rungs_s


def shop(*latencies_ms: float, resent: tuple[int, ...], to: str = TO, host: Host = HOST) -> Trace:
    """Return attempts to one destination with these times to an answer and SYNs sent again."""
    steps: list[Step] = [
        (to, 1_000 + i * 9_000, 1_000 + i * 9_000 + took, Outcome.established)
        for i, took in enumerate(latencies_ms)
    ]
    trace = replace(world(*steps), host=host)
    trace.rows["retransmits"] = resent
    return trace


def lossy_path(seed: int, loss: float, number: int = 60, way_ms: float = 12) -> Trace:
    """Return attempts over a path that loses a share of the SYNs, with the kernel's late timers."""
    rng = random.Random(seed)
    tries = [next(i for i in range(9) if rng.random() >= loss) for _ in range(number)]
    rungs = (0.0, *RUNGS)
    took = [
        rungs[n] * 1000 * rng.uniform(1.0, 1.03) + way_ms * rng.uniform(0.9, 1.6) for n in tries
    ]
    return shop(*took, resent=tuple(tries))


@pytest.mark.parametrize("seed", range(8))
def test_loss_is_found_and_measured(seed: int) -> None:
    (finding,) = syn_lost(lossy_path(seed, 0.25), ())
    assert finding.place == "network"
    assert 0.1 < float(str(finding.evidence["syn_loss"])) < 0.4
    assert finding.confidence >= 0.8
    assert finding.subject == {"destination": TO, "pids": [7]}


@pytest.mark.parametrize("linear", [0, 4])
def test_the_ladder_is_that_of_the_host(linear: int) -> None:
    host = Host(sysctls={"tcp_syn_retries": 6, "tcp_syn_linear_timeouts": linear})
    second = of_host(host.sysctls).rungs_s[1] * 1000
    trace = shop(5, 1025, second * 1.01, second * 1.02, 6, resent=(0, 1, 2, 2, 0), host=host)
    assert len(syn_lost(trace, ())) == 1
    wrong = replace(trace, host=Host(sysctls={"tcp_syn_linear_timeouts": 4 - linear}))
    assert linear == 4 or len(syn_lost(wrong, ())) == 1  # 3 s is a rung of both
    if linear == 4:
        assert syn_lost(wrong, ()) == []


def test_it_reads_as_sentences() -> None:
    trace = shop(5, 6, 1030, 5, 1040, 2050, resent=(0, 0, 1, 0, 1, 2))
    (finding,) = syn_lost(trace, ())
    assert finding.summary == (
        "192.0.2.9:80 answered 3 of 6 attempts only after the SYN was sent again, up to 2.0 s late"
        " (usually it takes 5 ms): 4 SYNs or their answers were lost somewhere on the way."
    )
    assert {h.name: h.verdict for h in finding.hypotheses} == {
        "chance loss": "refuted", "slow server": "refuted", "full accept queue": "open",
    }  # fmt: skip
    assert "wire probe" in finding.advice[-1]
    assert [round(v.wait_s, 2) for v in finding.victims] == [2.05, 1.04, 1.03]
    assert remarks(trace, [finding]) == () and remarks(trace, ()) != ()


@pytest.mark.parametrize(
    ("latencies", "resent"),
    [
        ((5, 6, 1030, 5), (0, 0, 1, 0)),  # one
        ((5, 6, 1030, 5, 1030), (0, 0, 1, 0, 1)),  # two
        # slow: answers at any time, whatever was sent again meanwhile
        ((1300, 1400, 1500, 1700, 300), (1, 1, 1, 1, 0)),
        ((1300, 2600, 3500, 1030, 4700, 200), (1, 2, 3, 1, 4, 0)),
        # never answered at once: a rule that lets the second SYN through, say, or rejects it
        ((1010, 1020, 1030, 1020, 1010, 1030), (1, 1, 1, 1, 1, 1)),
        # late without anything sent again: a listener that is slow to answer
        ((1010, 1020, 1030, 2040, 5), (0, 0, 0, 0, 0)),
    ],
)
def test_controls(latencies: tuple[float, ...], resent: tuple[int, ...]) -> None:
    assert syn_lost(shop(*latencies, resent=resent), ()) == []


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_ordinary_loss_is_no_finding(seed: int) -> None:
    found = syn_lost(lossy_path(seed, 0.002, number=400), ())
    assert not found


@given(st.integers(0, 2**32), st.floats(0.01, 3))
@settings(max_examples=25, deadline=None)
def test_slow_peers_are_no_finding(seed: int, median_s: float) -> None:
    # GIVEN answers at any time, and SYNs that the kernel sent again meanwhile
    rng = np.random.default_rng(seed)
    took = rng.lognormal(np.log(median_s), 0.8, 60)
    resent = [sum(1 for rung in RUNGS if rung < t) for t in took]
    trace = shop(*(took * 1000), resent=tuple(resent))
    found = syn_lost(trace, ())
    # THEN at most now and then, where hardly one in ten was so late
    assert not found or np.mean(np.array(resent) > 0) < 0.2


@pytest.mark.parametrize("seed", range(6))
def test_lost_events_weaken_it(seed: int) -> None:
    trace = lossy_path(seed, 0.25)
    rng = np.random.default_rng(seed)
    rows = trace.attempts[rng.random(len(trace.attempts)) > 0.1].copy()
    rows["retransmits"] -= (rng.random(len(rows)) < 0.1) & (rows["retransmits"] > 0)
    rows["complete"] = False
    lossy = replace(trace, attempts=rows, losses=(Loss(1, trace.end_ns, 0, 9),))
    (finding,) = syn_lost(lossy, ())
    assert finding.confidence == 0.75
    assert finding.subject["destination"] == TO


def test_what_a_throttle_dropped_is_told_there() -> None:
    trace = lossy_path(1, 0.25)
    (finding,) = syn_lost(trace, ())
    throttle = Finding("paced-connects", "warning", 0.9, {}, "", mechanism="drop",
                       victims=finding.victims)  # fmt: skip
    assert syn_lost(trace, (throttle,)) == []


@pytest.mark.parametrize(
    ("wire_late", "answered", "place"),
    [(False, False, "network"), (True, False, "egress"), (False, True, "ingress")],
)
def test_the_wire_tells_the_place(
    wire_late: bool, answered: bool, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = lossy_path(2, 0.25)
    trace = replace(trace, host=replace(HOST, wire=True))

    def mark(attempts: np.ndarray, name: str) -> np.ndarray:
        syn, end = attempts["syn_ns"].astype(np.int64), attempts["end_ns"].astype(np.int64)
        if name == "wire_ns":
            return end - 1_000_000 if wire_late else syn + 5_000
        return syn + 9_000_000 if answered else end - 2_000

    monkeypatch.setattr(f"{syn_lost.__module__}.wire_mark", mark)
    monkeypatch.setattr(f"{syn_lost.__module__}.wire_seen", lambda _: True)
    (finding,) = syn_lost(trace, ())
    assert finding.place == place
    assert "wire probe" not in " ".join(finding.advice)
    # A full table of tracked connections explains what was dropped here, of its own processes.
    for pid, drop, sent_there in ((7, 5, place == "egress"), (7, 0, False), (8, 5, False)):
        full = Finding("conntrack-pressure", "critical", 0.95, {"pids": [pid]}, "",
                       evidence={"drop": drop, "early_drop": 0})  # fmt: skip
        (finding,) = syn_lost(trace, (full,))
        assert ("See conntrack-pressure" in finding.advice[0]) == sent_there


def test_a_real_shop_behind_a_lossy_rule() -> None:
    recording = load(DATA / "v1-lossy-shop.ptrace")
    found = {f.subject["destination"] for f in recording.findings if f.rule == "syn-lost"}
    assert found == {"[2001:db8::2]:443", "192.0.2.3:5433"}
    refused = next(f for f in recording.findings if f.subject["destination"] == "192.0.2.3:5433"
                   and f.rule == "syn-lost")  # fmt: skip
    assert {h.name: h.why for h in refused.hypotheses}["full accept queue"] == (
        "nobody listens there"
    )
    assert "ss -ltn" not in refused.advice[0]
    assert "syn-lost" in [f.rule for f in diagnose(recording.trace)]
