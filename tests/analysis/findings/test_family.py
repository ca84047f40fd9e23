"""IPv6 that dies before IPv4 saves it, and everything that only has both families in it."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import packed
from porttrace.analysis.findings import diagnose
from porttrace.analysis.findings.family import broken_family
from porttrace.analysis.model import Loss, Outcome, Trace

from .written import Step, world

V6, V4 = "203.0.113.6:443", "192.0.2.4:443"  # the first becomes [2001:db8::6]
GOOD, DEAD, LOST, GIVEN_UP = (
    Outcome.established, Outcome.refused, Outcome.timed_out, Outcome.cancelled,
)  # fmt: skip


def both(*steps: Step, tids: tuple[int, ...] = ()) -> Trace:
    """Return a world in which attempts to `V6` (and other ports there) go over IPv6."""
    trace = world(*steps, tids=tids)
    address = np.void(packed(V6.partition(":")[0]))
    six = trace.attempts["daddr"] == address
    trace.attempts["daddr"][six] = np.void(packed("2001:db8::6"))
    trace.attempts["family"][six] = 10
    return trace


def in_turn(
    number: int, wait_ms: float = 3000, outcome: Outcome = LOST, gap_ms: float = 1
) -> list[Step]:
    """Return IPv6 first, and IPv4 a moment after it failed."""
    steps: list[Step] = []
    for i in range(number):
        at = 1_000 + i * 10_000
        steps += [(V6, at, at + wait_ms, outcome)]
        steps += [(V4, at + wait_ms + gap_ms, at + wait_ms + gap_ms + 5, GOOD)]
    return steps


def raced(number: int, head_ms: float = 250) -> list[Step]:
    """Return both families side by side: IPv6 is closed as soon as IPv4 is there."""
    steps: list[Step] = []
    for i in range(number):
        at = 1_000 + i * 10_000
        steps += [(V6, at, at + head_ms + 6, GIVEN_UP), (V4, at + head_ms, at + head_ms + 5, GOOD)]
    return steps


@pytest.mark.parametrize(
    ("steps", "lost_s", "severity"),
    [
        (in_turn(4), 3.001, "warning"),
        (in_turn(4, 0.2, Outcome.unreachable), 0.001, "info"),
        (in_turn(4, 0.2, DEAD), 0.001, "info"),
        (in_turn(4, 2000, GIVEN_UP), 2.001, "warning"),
        (raced(4), 0.25, "warning"),
        (raced(4, 1500), 1.5, "warning"),
    ],
)
def test_rescues_are_counted(steps: list[Step], lost_s: float, severity: str) -> None:
    (finding,) = broken_family(both(*steps), ())
    assert finding.severity == severity
    assert (finding.evidence["rescued"], finding.evidence["not_rescued"]) == (4, 0)
    assert finding.evidence["lost_median_s"] == pytest.approx(lost_s, abs=0.001)
    assert finding.evidence["lost_total_s"] == pytest.approx(4 * lost_s, abs=0.004)
    assert finding.subject["destinations"] == ["[2001:db8::6]:443"]


def test_it_reads_as_a_sentence() -> None:
    (finding,) = broken_family(both(*in_turn(6)), ())
    assert finding.confidence == 0.85
    assert finding.summary == (
        "web (pid 7) tries IPv6 first and never gets through ([2001:db8::6]:443): 6 attempts died"
        " (6 timed out), and IPv4 saved each of them 3.0 s later."
    )
    assert "ip -6 route" in finding.advice[0] and "gai.conf" in finding.advice[1]
    (refused,) = broken_family(both(*in_turn(6, 0.1, DEAD)), ())
    assert refused.advice[0].startswith("For good: let the service listen on IPv6 too")


def test_threads_are_kept_apart_where_they_can_be() -> None:
    steps = in_turn(4)
    other: list[Step] = [(V4, at + 0.5, at + 3, GOOD) for _, _, at, _ in steps[::2]]
    trace = both(*steps, *other, tids=(1,) * 8 + (2,) * 4)
    (finding,) = broken_family(trace, ())
    assert {v.tid for v in finding.victims} == {1}


def six_works() -> list[Step]:
    return [*in_turn(8), (V6, 200_000, 200_005, GOOD)]


def only_six() -> list[Step]:
    return [step for step in in_turn(8) if step[0] == V6]


def no_rescue() -> list[Step]:
    return [(to, call, end, outcome if to == V6 else LOST) for to, call, end, outcome in in_turn(8)]


def close_race() -> list[Step]:
    return raced(8, 20)


def other_port() -> list[Step]:
    return [("192.0.2.4:80" if step[0] == V4 else V6, *step[1:]) for step in in_turn(8)]


def later() -> list[Step]:
    return in_turn(8, gap_ms=2000)


def only_four() -> list[Step]:
    return [step for step in in_turn(8) if step[0] == V4]


@pytest.mark.parametrize(
    "steps",
    [
        six_works(),
        only_six(),
        no_rescue(),
        close_race(),
        other_port(),
        later(),
        in_turn(2),
        only_four(),
    ],
    ids=["six works", "only six", "no rescue", "close race", "other port", "later", "two", "four"],
)
def test_controls(steps: list[Step]) -> None:
    assert broken_family(both(*steps), ()) == []


@given(st.integers(0, 2**32), st.sampled_from([5.0, 50.0, 500.0, 5000.0]))
@settings(max_examples=40, deadline=None)
def test_a_busy_client_of_another_host_saves_nobody(seed: int, think_ms: float) -> None:
    # GIVEN a dead IPv6 host that is tried now and then, and IPv4 attempts at times of their own
    rng = random.Random(seed)
    steps: list[Step] = []
    at = 1000.0
    while len(steps) < 150:
        at += rng.expovariate(1 / think_ms)
        steps.append((V4, at, at + 5, GOOD))
    until = at
    for _ in range(8):
        at = 1000 + rng.random() * (until - 1000)
        steps.append((V6, at, at + rng.choice([3000, 300, 1]), LOST))
    assert broken_family(both(*steps), ()) == []


@pytest.mark.parametrize("seed", range(6))
def test_lost_events_weaken_it(seed: int) -> None:
    trace = both(*in_turn(20))
    rows = trace.attempts[np.random.default_rng(seed).random(len(trace.attempts)) > 0.1]
    rows["complete"] = False
    lossy = replace(trace, attempts=rows, losses=(Loss(1, trace.end_ns, 0, 9),))
    (finding,) = broken_family(lossy, ())
    assert finding.confidence == 0.75
    assert "broken-family" in [f.rule for f in diagnose(lossy)]
