"""Whose timer ended the waits, and where there was none."""

from dataclasses import replace

import numpy as np
import pytest

from porttrace.analysis.findings.timeout_source import timeout_source
from porttrace.analysis.model import Finding, Outcome, Trace

from ..simulate import MS  # noqa: TID252
from .written import DEAD, ended_at, given_up, world


def attempts_and_waits(found: list[Finding]) -> list[tuple[object, float]]:
    waits = (round(float(str(f.evidence["median_wait_s"])), 3) for f in found)
    return [(f.evidence["attempts"], wait_s) for f, wait_s in zip(found, waits, strict=True)]


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
    trace = world((DEAD, 1000, 1000 + wait_ms, outcome), blocking=False)
    (finding,) = timeout_source(trace, ())
    assert finding.evidence["source"] == source
    assert ("Windows" in finding.summary) == (wait_ms == 21_001)


def test_a_blocking_call_that_returns_first_was_let_go_by_sndtimeo() -> None:
    trace = world((DEAD, 1000, 9000, Outcome.cancelled))
    trace.rows["return_ns"] = trace.rows["call_ns"] + 3_071 * MS
    (finding,) = timeout_source(trace, ())
    assert finding.evidence["source"] == "so-sndtimeo"
    assert finding.confidence == 0.65


@pytest.mark.parametrize(("number", "confidence"), [(1, 0.65), (2, 0.8), (5, 0.9)])
def test_equal_waits_make_a_round_timer_firm(number: int, confidence: float) -> None:
    (finding,) = timeout_source(given_up(*[6_003] * number), ())
    assert finding.confidence == confidence
    assert finding.summary.endswith(
        "waited 6.0 s without an answer: the application closed the socket: a timer of 6 s in the"
        " program."
    )


def test_two_timers_are_two_findings() -> None:
    found = timeout_source(given_up(1700, 8000, 1702, 8003, 1701, 8002), ())
    assert attempts_and_waits(found) == [(3, 1.701), (3, 8.002)]
    assert [f.summary.split("a timer of ")[1] for f in found] == [
        "1.7 s in the program.",
        "8 s in the program.",
    ]
    assert [f.confidence for f in found] == [0.8, 0.8]


def test_equal_waits_of_no_round_length_are_a_timer_too() -> None:
    (exact,) = timeout_source(given_up(1700, 1705), ())
    (near,) = timeout_source(given_up(1700, 1780), ())
    (round_near,) = timeout_source(given_up(3000, 3080), ())
    assert "2 attempts of web (pid 7)" in exact.summary
    assert "a timer of 1.7 s in the program" in exact.summary
    assert [f.confidence for f in (exact, near, round_near)] == [0.8, 0.65, 0.65]


def test_one_wait_of_no_round_length_is_hardly_news() -> None:
    (finding,) = timeout_source(given_up(1700), ())
    assert "after no round time" in finding.summary
    assert finding.confidence < 0.65


def test_waits_of_all_lengths_have_no_timer() -> None:
    (finding,) = timeout_source(given_up(700, 1300, 2200, 3050, 4700, 9400), ())
    assert "6 attempts of web (pid 7) to 192.0.2.66:9100 waited 700 ms to 9.4 s" in finding.summary
    assert "no one timer explains these waits" in finding.summary


@pytest.mark.parametrize("seed", range(20))
def test_many_waits_by_chance_make_no_firm_timer(seed: int) -> None:
    waits = np.random.default_rng(seed).uniform(600, 9000, 200).tolist()
    found = timeout_source(given_up(*waits), ())
    assert all(f.confidence < 0.8 for f in found)
    assert sum(int(str(f.evidence["attempts"])) for f in found) == 200


def test_socket_timeouts_of_the_kernel_are_told_apart_by_length() -> None:
    steps = [(DEAD, i * 20_000.0, i * 20_000.0 + wait, Outcome.timed_out)
             for i, wait in enumerate((1700, 10_240, 1704, 10_250), 1)]  # fmt: skip
    found = timeout_source(world(*steps), ())
    assert {f.evidence["source"] for f in found} == {"tcp-user-timeout"}
    assert [count for count, _ in attempts_and_waits(found)] == [2, 2]


# -- the end of the process ----------------------------------------------------


def killed(exit_ms: float = 3_999) -> Trace:
    """Return one attempt that ends after 3 s, and the exit of its process."""
    return ended_at(world((DEAD, 1000, 4000, Outcome.cancelled)), exit_ms)


@pytest.mark.parametrize(
    ("exit_ms", "findings"),
    [(3_999.9, 0), (4_000, 0), (3_000, 0), (2_999, 1), (4_000.1, 1), (60_000, 1)],
)
def test_what_its_process_left_open_was_ended_by_no_timer(exit_ms: float, findings: int) -> None:
    assert len(timeout_source(killed(exit_ms), ())) == findings


def test_a_call_that_a_kill_interrupted_has_no_timer() -> None:
    # GIVEN a blocking connect that returns just before its process ends, after 3 s
    trace = killed()
    trace.rows["return_ns"] = 3_998 * MS
    assert timeout_source(trace, ()) == []
    (finding,) = timeout_source(replace(trace, exits={}), ())
    assert finding.evidence["source"] == "so-sndtimeo"


def test_what_the_kernel_gave_up_stays_so_when_the_process_ends_after_it() -> None:
    trace = world((DEAD, 1000, 134_400, Outcome.timed_out))
    (finding,) = timeout_source(ended_at(trace, 134_399.9), ())
    assert finding.evidence["source"] == "kernel-ladder"


def test_a_main_thread_may_end_before_its_process() -> None:
    steps = [(DEAD, at, at + 3000, Outcome.cancelled) for at in (1000.0, 6000.0)]
    (finding,) = timeout_source(ended_at(world(*steps), 3_999), ())
    assert finding.evidence["attempts"] == 2
    (last,) = timeout_source(ended_at(world(*steps), 8_999), ())
    assert last.evidence["attempts"] == 1


def test_a_socket_that_was_found_open_is_no_sign_of_life() -> None:
    trace = killed()
    trace.rows[["call_ns", "gate_ns"]] = 0
    trace = replace(trace, attempts=np.concatenate([trace.attempts, trace.attempts]))
    trace.attempts["syn_ns"][1] = trace.attempts["end_ns"][1] = 0
    assert timeout_source(trace, ()) == []


# -- closed together -----------------------------------------------------------


def together(*waits_ms: float, spread_ms: float = 1, at: float = 20_000) -> Trace:
    steps = [
        (DEAD, at - wait, at + i * spread_ms, Outcome.cancelled) for i, wait in enumerate(waits_ms)
    ]
    return world(*steps, tids=tuple(range(70, 70 + len(waits_ms))), blocking=False)


@pytest.mark.parametrize(
    ("trace", "findings"),
    [
        (together(1700, 3000, 3000), 0),
        (together(1700, 3000, spread_ms=6), 1),  # no one timer, in one finding
        (together(3000, 3001, 3002), 1),
        (together(300, 3000), 0),
        (together(3000), 1),
    ],
)
def test_sockets_closed_together_after_different_waits_have_no_timer(
    trace: Trace, findings: int
) -> None:
    found = timeout_source(trace, ())
    assert len(found) == findings


def test_a_timer_that_ends_beside_another_one_is_still_a_timer() -> None:
    # GIVEN two timers whose ends happen to meet once, and meet again elsewhere alone
    times = [(17_000.0, 20_000.0), (15_000.0, 20_001.0), (30_000.0, 33_000.0)]
    steps = [(DEAD, call, end, Outcome.cancelled) for call, end in times]
    found = timeout_source(world(*steps, blocking=False), ())
    assert attempts_and_waits(found) == [(2, 3.0)]
