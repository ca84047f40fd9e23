"""When a destination counts as dead, and how that is said."""

from dataclasses import replace

import numpy as np
import pytest

from porttrace.analysis.findings.dead_destination import dead_destination
from porttrace.analysis.findings.serialized import RULE as THROTTLE
from porttrace.analysis.model import Answer, Finding, Outcome, Party

from ..simulate import MS, S  # noqa: TID252
from .written import DEAD, Step, world

TO = "192.0.2.9:80"
GOOD, REFUSED = Outcome.established, Outcome.refused
LOST, GIVEN_UP, OPEN = Outcome.timed_out, Outcome.cancelled, Outcome.pending
Short = tuple[float, float, Outcome]


def one(*steps: Short, to: str = TO, tids: tuple[int, ...] = ()) -> Finding:
    (finding,) = dead_destination(world(*((to, *step) for step in steps), tids=tids), ())
    return finding


def every(
    period_ms: float, number: int, wait_ms: float, outcome: Outcome, first: float = 0
) -> list[Short]:
    """Return attempts at a fixed period, the first one a moment after `first` (ms)."""
    times = [first + i * period_ms + 1 for i in range(number)]
    return [(at, at + wait_ms, outcome) for at in times]


def test_a_dead_destination_has_a_period_and_a_sum() -> None:
    finding = one(*every(10_000, 5, 3000, GIVEN_UP), to=DEAD)
    assert (finding.severity, finding.confidence) == ("warning", 0.95)
    assert finding.evidence["period_s"] == pytest.approx(10)
    assert finding.evidence["spent_s"] == pytest.approx(15, rel=0.01)
    assert finding.summary == (
        "192.0.2.66:9100 answered none of 5 attempts of web (pid 7) (5 given up; 15.0 s in all)."
        " It is tried again every 10.0 s."
    )


@pytest.mark.parametrize(
    ("steps", "severity"),
    [
        ([(1, 2, REFUSED)], None),
        ([(1, 2, REFUSED), (50, 51, REFUSED)], "info"),
        ([(1, 2, REFUSED), (50, 51, GOOD)], None),
        ([(1, 500, GIVEN_UP), (600, 900, GIVEN_UP)], None),
        ([(1, 0, OPEN)], None),
        ([(1, 3500, LOST)], "warning"),
        # answered before: three without an answer, or two long ones
        ([(1, 2, GOOD), (50, 51, REFUSED), (60, 61, REFUSED)], None),
        ([(1, 2, GOOD), *every(10, 3, 1, REFUSED, 50)], "info"),
        ([(1, 2, GOOD), (50, 1100, LOST), (1200, 2300, GIVEN_UP)], "warning"),
        ([(1, 2, GOOD), (50, 3100, LOST)], None),
        ([(1, 2, GOOD), (50, 500, LOST), (600, 1000, LOST)], None),
        ([(1, 2, GOOD), *every(2000, 4, 1500, LOST, 50), (9000, 9001, GOOD)], None),
        # on their way when the answer came
        ([(2, 5000, GIVEN_UP)] * 3 + [(1, 900, GOOD)], None),
    ],
)
def test_when_a_destination_counts_as_dead(steps: list[Short], severity: str | None) -> None:
    found = dead_destination(world(*((TO, *step) for step in steps)), ())
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_nothing_of_nothing_and_each_destination_for_itself() -> None:
    bad = every(2000, 3, 1500, LOST)
    trace = world(*((to, *step) for to in (TO, DEAD) for step in bad), (TO, 1, 2, GOOD))
    assert [f.subject["destination"] for f in dead_destination(trace, ())] == [TO, DEAD]
    assert dead_destination(replace(trace, attempts=trace.attempts[:0]), ()) == []


def test_it_died_in_the_middle_of_the_trace() -> None:
    finding = one(*every(1000, 5, 2, GOOD), *every(4000, 5, 3000, GIVEN_UP, 12_300))
    assert finding.confidence == 0.9
    assert finding.evidence["answered_before"] == 5
    assert finding.summary.startswith(
        "192.0.2.9:80 answered 5 attempts, then none of the last 5, since 12.3 s into the trace"
        " (web (pid 7); 5 given up; 15.0 s in all)."
    )
    assert "wrong address" not in finding.advice[0]


def test_it_failed_before_it_died() -> None:
    finding = one(*every(10, 2, 1, REFUSED), (30, 31, GOOD), *every(10, 4, 1, REFUSED, 2000))
    assert finding.summary.startswith(
        "192.0.2.9:80 answered 1 of 3 attempts, then refused the last 4, since 2.0 s into the trace"
    )
    assert (finding.severity, "answered none" in finding.summary) == ("info", False)


def test_it_died_with_refusals_and_silence() -> None:
    finding = one((1, 2, GOOD), (10, 11, REFUSED), (20, 21, REFUSED), (30, 2030, GIVEN_UP))
    assert (
        "answered 1 attempt; of the last 3, since 10 ms into the trace, it refused 2 and did not"
        " answer 1 (web (pid 7); 2 refused, 1 given up; 2.0 s in all)" in finding.summary
    )


def test_lost_events_make_it_less_sure() -> None:
    steps: list[Short] = [(1, 2, GOOD), *every(4000, 5, 3000, LOST, 100)]
    assert one(*steps).confidence == 0.9
    assert one(*steps, (30_000, 30_001, Outcome.unknown)).confidence == 0.75


def test_a_refusal_is_an_answer() -> None:
    finding = one(*every(1000, 4, 0.1, REFUSED), to="127.0.0.1:9")
    assert finding.severity == "info"
    assert finding.summary == (
        "127.0.0.1:9 refused all 4 attempts of web (pid 7). It is tried again every 1.0 s."
    )
    assert finding.advice == (
        "Nobody listens at 127.0.0.1:9 (ss -ltn shows who listens): start the service there or stop"
        " trying.",
    )


def test_a_slow_refusal_is_a_warning() -> None:
    finding = one(*every(2000, 2, 800, REFUSED))
    assert finding.severity == "warning"
    assert "refused all 2 attempts of web (pid 7) (1.6 s in all)." in finding.summary


@pytest.mark.parametrize(
    ("columns", "said", "look"),
    [
        ({"syn_ns": 0}, "No SYN was sent: this host has no route", "ip route get 192.0.2.9."),
        ({"watched": True}, "No SYN left: nobody on its network", "ip neigh show 192.0.2.9 "),
        ({"answer": Answer.icmp}, "answered that it is unreachable", "route to 192.0.2.9, or"),
        ({"watched": True, "wire_count": 1}, "(2 unreachable; 6.0 s in all).", "does not answer"),
        ({}, "(2 unreachable; 6.0 s in all).", "does not answer"),
    ],
)
def test_how_it_is_unreachable(columns: dict[str, int], said: str, look: str) -> None:
    trace = world(*((TO, *step) for step in every(4000, 2, 3000, Outcome.unreachable)))
    for name, value in columns.items():
        trace.rows[name] = value
    (finding,) = dead_destination(trace, ())
    assert said in finding.summary and look in finding.advice[0]


def test_refusals_and_silence_are_told_apart() -> None:
    finding = one((1, 2, REFUSED), (10, 3010, LOST), (4000, 4001, REFUSED))
    assert finding.summary.startswith(
        "192.0.2.9:80 refused 2 of 3 attempts of web (pid 7) and did not answer 1 (2 refused, 1"
        " timed out; 3.0 s in all)."
    )
    assert [line.split()[0] for line in finding.advice] == ["Nobody", "Find"]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([(3000, 0, OPEN)], "has not answered its only attempt (4.0 s so far), of web (pid 7)."),
        ([(1, 3040, GIVEN_UP)], "did not answer its only attempt (given up after 3.0 s)"),
        (
            [(1, 3040, LOST), (9, 10, GIVEN_UP)],
            "did not answer one attempt (timed out after 3.0 s)",
        ),
    ],
)
def test_a_single_attempt(steps: list[Short], said: str) -> None:
    trace = replace(world(*((TO, *step) for step in steps)), end_ns=7 * S)
    (finding,) = dead_destination(trace, ())
    assert said in finding.summary
    assert "1 attempt " not in finding.summary


@pytest.mark.parametrize(
    ("tids", "said", "period_s"),
    [
        ((1, 1, 1, 1, 1, 1), "It is tried again every 2.0 s.", 2),
        ((1, 2, 1, 2, 1, 2), "Each of 2 threads tries it again every 4.0 s.", 4),
        ((1, 1, 1, 1, 2, 3), "One thread tries it again every 2.0 s.", 2),
        ((1, 1, 2, 2, 3, 3), "", None),
        ((1, 2, 2, 2, 1, 1), "Each of 2 threads tries it again every 2.0 s to 5.0 s.", 3.5),
    ],
)
def test_the_period_is_that_of_a_thread(
    tids: tuple[int, ...], said: str, period_s: float | None
) -> None:
    finding = one(*every(2000, 6, 1500, GIVEN_UP), tids=tids)
    assert finding.summary.endswith(said or "in all).")
    assert finding.evidence["period_s"] == pytest.approx(period_s) if said else True
    assert (finding.evidence["period_s"] is None) == (not said)


@pytest.mark.parametrize("steps", [every(0.1, 9, 3000, GIVEN_UP), every(5000, 2, 3000, GIVEN_UP)])
def test_attempts_at_once_or_only_two_have_no_period(steps: list[Short]) -> None:
    assert "again" not in one(*steps).summary


@pytest.mark.parametrize(
    ("to", "host_down"), [("127.0.0.1:80", False), ("127.9.9.9:80", False), (TO, True)]
)
def test_what_may_be_wrong(to: str, host_down: bool) -> None:
    (advice,) = one(*every(5000, 2, 3000, GIVEN_UP), to=to).advice
    assert "queue is full (ss -ltn shows it)" in advice
    assert ("host down" in advice) == ("wrong address" in advice) == host_down


def test_ipv6_loopback_is_never_a_host_that_is_down() -> None:
    steps: list[Step] = [(TO, *step) for step in every(5000, 2, 3000, GIVEN_UP)]
    trace = world(*steps)
    trace.rows["daddr"] = np.void(b"\0" * 15 + b"\1")
    (finding,) = dead_destination(trace, ())
    assert finding.summary.startswith("[::1]:80 answered none of 2 attempts")
    assert "host down" not in finding.advice[0]


def party(number: int, to: str, start_ms: float, wait_ms: float) -> Party:
    return Party(number, 7, 70, "t", to, "established", wait_ms / 1e3, int(start_ms * MS))


def throttle(*victims: Party, blocker: str = TO) -> Finding:
    ahead = (party(99, blocker, 0, 3000),)
    return Finding(THROTTLE, "critical", 0.9, {}, "", victims=victims, blockers=ahead)


def test_who_waited_meanwhile_is_counted_and_not_listed_again() -> None:
    trace = world((TO, 1000, 4000, LOST), (TO, 9000, 12_000, LOST))
    found = throttle(
        party(11, "192.0.2.2:389", 1500, 2500),
        party(12, "192.0.2.2:389", 3000, 2000),  # 1 s of it behind somebody else
        party(13, "192.0.2.2:389", 6000, 1000),  # between the two
        party(14, TO, 2000, 2000),
    )
    (finding,) = dead_destination(trace, (found,))
    assert (finding.evidence["blocked"], finding.victims) == (2, ())
    assert (
        "2 other connects had to wait for it, up to 2.5 s (named under serialized-connects)."
        in finding.summary
    )
    assert "stop the retries" in finding.advice[-1]
    (alone,) = dead_destination(trace, (replace(found, blockers=()),))
    assert alone.evidence["blocked"] == 0


def test_quick_refusals_that_others_wait_for_are_a_warning() -> None:
    trace = world(*((TO, *step) for step in every(100, 3, 20, REFUSED)))
    (finding,) = dead_destination(trace, (throttle(party(9, DEAD, 1, 20)),))
    assert finding.severity == "warning"
    assert "1 other connect had to wait for it, up to 20 ms" in finding.summary


def test_more_waited_than_are_named() -> None:
    trace = world((TO, 1000, 4000, LOST), (TO, 9000, 12_000, LOST))
    many = (party(i, DEAD, 2000, 1000) for i in range(100))
    (finding,) = dead_destination(trace, (throttle(*many),))
    assert "At least 100 other connects had to wait for it" in finding.summary
