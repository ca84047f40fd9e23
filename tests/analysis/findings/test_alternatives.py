"""The other explanations, in words for a person who was woken up."""

import random
from dataclasses import replace

import pytest

from porttrace.analysis.findings.alternatives import Case, alternatives, by_chance
from porttrace.analysis.findings.serialized import serialized_connects
from porttrace.analysis.groups import stand_at
from porttrace.analysis.model import Loss, Outcome, Trace
from porttrace.analysis.scope import throttled_groups

from .. import simulate  # noqa: TID252
from ..simulate import MS, Client, Throttle  # noqa: TID252
from ..workloads import crowd  # noqa: TID252


def logins(slots: int = 1, place: str = "gate", seed: int = 4) -> Trace:
    clients = crowd(random.Random(seed), 1, 8, 12, service_ms=60, think_ms=30)
    trace = simulate.throttled(clients, Throttle(slots, place=place), seed)
    return simulate.preloaded(trace) if place == "user" else trace


def case_of(trace: Trace, place: str = "gate") -> Case:
    at = stand_at(trace, place)
    (group,) = throttled_groups(at)
    return Case(trace, place, group, at)


def said(case: Case) -> dict[str, str]:
    return {h.name: f"{h.verdict}. {h.why}" for h in alternatives(case)}


@pytest.mark.parametrize(
    ("p_value", "words"),
    [
        (1.0, "may well be chance"),
        (0.5, "happens about 1 in 2 times by chance"),
        (0.03, "happens about 1 in 33 times by chance"),
        (2e-5, "happens about 1 in 50,000 times by chance"),
        (1.23e-7, "happens about 1 in 8,100,000 times by chance"),
        (1e-12, "happens less than once in a billion times by chance"),
        (0.0, "happens less than once in a billion times by chance"),
    ],
)
def test_chance_is_said_in_times(p_value: float, words: str) -> None:
    assert by_chance(p_value) == words


@pytest.mark.parametrize(
    ("slots", "words"), [(1, "the slot was"), (2, "both slots were"), (3, "all 3 slots were")]
)
def test_slots_are_taken_while_somebody_waits(slots: int, words: str) -> None:
    case = case_of(logins(slots))
    told = said(case)
    handoffs = f"{case.group.verdict.handoffs} of {case.group.verdict.testable} waits ended within"
    assert told["slow supervisor"].startswith(f"refuted. {words} taken ")
    assert handoffs in told["slow supervisor"]
    assert ("another attempt was" if slots == 1 else f"{slots} others were") in told[
        "sequential code"
    ]


@pytest.mark.parametrize(
    ("busy", "share"),
    [(1.0, "all the time"), (0.9999, "99.9% of the time"), (0.93, "93% of the time")],
)
def test_a_share_is_never_rounded_up_to_all(busy: float, share: str) -> None:
    case = case_of(logins())
    verdict = replace(case.group.verdict, busy=busy)
    case = replace(case, group=replace(case.group, verdict=verdict))
    assert f"the slot was taken {share} while somebody waited" in said(case)["slow supervisor"]


def test_the_lag_that_is_told_is_never_less_than_the_one_tested() -> None:
    case = case_of(logins())
    verdict = replace(case.group.verdict, epsilon_ns=1_200_001)
    case = replace(case, group=replace(case.group, verdict=verdict))
    assert "ended within 2 ms after another connect was over" in said(case)["slow supervisor"]


def test_no_word_of_the_trade() -> None:
    for place in ("gate", "connect", "user"):
        text = " ".join(said(case_of(logins(place=place), place)).values())
        assert not [word for word in ("in service", "p =", "epsilon", "median", "victim", "100%")
                    if word in text]  # fmt: skip


def test_nobody_has_gone_on_yet() -> None:
    agent = Client(12, 13, "192.0.2.66:9100", service_ms=9000, steady=True, rounds=1, first_ms=1,
                   outcome=Outcome.timed_out)  # fmt: skip
    login = Client(12, 14, service_ms=2, rounds=1, first_ms=500)
    calls = simulate.Simulation([agent, login], 1, Throttle(1)).run()
    case = case_of(simulate.trace_of(calls, until_ns=simulate.START_NS + 5_000 * MS))
    told = said(case)
    assert told["slow supervisor"] == (
        "open. the slot was taken all the time while somebody waited, and nobody who waited has"
        " gone on yet"
    )
    assert "gone on yet" in told["late scheduling"]
    assert "then over in" not in told["same slow destination"]


def test_lost_events() -> None:
    trace = logins()
    assert said(case_of(trace))["lost events"] == "refuted. no event was lost"
    (finding,) = serialized_connects(trace, ())
    held = finding.victims[0].start_ns
    for first, verdict in ((held, "open"), (1, "refuted")):
        lossy = replace(trace, losses=(Loss(first, first + 1, 0, 3),))
        assert said(case_of(lossy))["lost events"].startswith(f"{verdict}. 3 events lost")
