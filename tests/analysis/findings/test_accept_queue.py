"""Accept queues that overflow, and queues of healthy servers that only look like it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from porttrace.analysis.findings import diagnose
from porttrace.analysis.findings.accept_queue import accept_queue
from porttrace.analysis.model import Accepted, Finding, Outcome, Sample, Trace
from porttrace.tracer.facts import Listener

from ..simulate import S  # noqa: TID252
from .shortages import NETNS, QUIET, TO, of_namespace
from .written import Step

SERVER = 77  # its namespace, where nobody is traced
GOOD = Outcome.established


def queued(
    *lengths: int, overflows: Sequence[int] = (), limit: int = 3, address: str = "0.0.0.0"
) -> list[Sample]:
    """Return a sample each second: the queue's length, and how often it has overflowed by then."""
    grown = [*overflows] + [overflows[-1] if overflows else 0] * len(lengths)
    return [
        replace(
            QUIET, time_ns=number * S, netns=SERVER, pid=9,
            counters={"ListenOverflows": 1000 + grown[number], "ListenDrops": 1000 + grown[number]},
            listeners=(Listener(address, 80, length, limit, 99, "slowd", 0),),
            serves=(TO,),
        )
        for number, length in enumerate(lengths)
    ]  # fmt: skip


def clients(number: int, lost: int) -> list[Step]:
    """Return connects, of which the last `lost` take a second."""
    took = [1] * (number - lost) + [1001] * lost
    return [(TO, 500 + 10 * n, 500 + 10 * n + each, GOOD) for n, each in enumerate(took)]


def traced(samples: Sequence[Sample], number: int = 12, lost: int = 0) -> Trace:
    trace = of_namespace(*clients(number, lost), samples=samples)
    trace.attempts["retransmits"][number - lost :] = 1
    return trace


def only(trace: Trace) -> Finding:
    (finding,) = accept_queue(trace, ())
    return finding


OVERFLOWING = queued(0, 3, 4, 3, 4, overflows=(0, 2, 9, 9, 14))


def test_a_queue_that_overflows_is_named_with_owner_limit_and_victims() -> None:
    finding = only(traced(OVERFLOWING, lost=5))
    assert (finding.rule, finding.severity) == ("accept-queue", "warning")
    assert finding.confidence >= 0.9
    assert finding.subject["listener"] == "0.0.0.0:80" and finding.subject["pid"] == 99
    assert finding.pids() == [7, 99]
    assert "0.0.0.0:80 (slowd (pid 99)) was full 4 times" in finding.summary
    assert "up to 4 connections" in finding.summary and "its limit is 3" in finding.summary
    assert "overflowed 14 times (ListenOverflows)" in finding.summary
    assert "5 connects of this host" in finding.summary
    assert [each.wait_s for each in finding.victims] == pytest.approx([1.0] * 5, rel=0.01)
    verdicts = {each.name: each.verdict for each in finding.hypotheses}
    assert verdicts == {
        "short burst": "refuted", "SYN backlog": "refuted", "SYNs lost on the network": "refuted",
    }  # fmt: skip
    assert all("Price:" in line for line in finding.advice)
    assert "the backlog of its listen(2) (3; net.core.somaxconn would allow 4096)" in (
        "\n".join(finding.advice)
    )


def test_no_other_rule_blames_the_network_for_it() -> None:
    trace = traced(OVERFLOWING, number=40, lost=20)
    assert [each.rule for each in diagnose(trace)] == ["accept-queue"]
    # without the samples it is lost SYNs, wherever that may have been
    assert [each.rule for each in diagnose(replace(trace, samples=()))] == ["syn-lost"]


def test_somaxconn_may_be_the_limit() -> None:
    settings = {**(QUIET.settings or {}), "somaxconn": "3"}
    low = [replace(each, settings=settings) for each in OVERFLOWING]
    advice = "\n".join(only(traced(low, lost=5)).advice)
    assert "nsenter -t 99 -n sysctl -w net.core.somaxconn=4096" in advice


def test_two_full_queues_share_the_counters() -> None:
    other = Listener("0.0.0.0", 81, 4, 3)
    both = [replace(e, listeners=(*(e.listeners or ()), other)) for e in OVERFLOWING]
    finding = next(
        each for each in accept_queue(traced(both, lost=5), ()) if each.subject["pid"] == 99
    )
    assert finding.confidence < 0.8
    assert "this and 1 other full queue of the namespace" in finding.summary
    assert finding.hypotheses[-1].verdict == "open"


def test_a_queue_that_stands_full_is_said_before_it_overflows() -> None:
    finding = only(traced(queued(1, 3, 3, 3, 3)))
    assert finding.severity == "info" and "Nothing was dropped yet" in finding.summary


def accepting(slow: int, number: int = 40) -> Trace:
    known = Accepted(99, 80, number, slow, slow * 300_000_000, 400_000_000)
    return replace(traced(()), accepted={(99, 80): known})


def test_late_accepts_are_told_without_an_overflow() -> None:
    finding = only(accepting(20))
    assert finding.severity == "info"
    assert "pid 99" in finding.summary and "accepts late on port 80" in finding.summary
    assert "20 of 40 connections waited 100 ms or more" in finding.summary
    assert "150 ms on average, 400 ms at worst" in finding.summary


def test_what_was_accepted_late_is_told_with_the_queue() -> None:
    trace = replace(accepting(20), samples=tuple(OVERFLOWING))
    assert "Of what it did take, 20 of 40" in only(trace).summary


# -- what is none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "samples",
    [
        queued(0, 1, 2, 1, 2, 0),  # busy
        queued(0, 0, 4, 0, 0),  # a burst that fitted
        queued(0, 0, 4, 0, 0, overflows=(0, 0, 2)),  # a burst that did not, and hurt nobody here
        queued(0, 0, 900, 40, 0, limit=4096),  # a long queue with room
        queued(1, 2, 1, 2, overflows=(0, 5, 9, 12)),  # others overflowed
        queued(3, 3, limit=3)[:2],  # looked at too seldom
    ],
)
def test_healthy_servers(samples: list[Sample]) -> None:
    assert accept_queue(traced(samples), ()) == []


def test_lost_syns_to_another_listener_are_none_of_its() -> None:
    burst = queued(0, 0, 4, 0, 0, overflows=(0, 0, 2), address="192.0.2.9")
    assert accept_queue(traced(burst, lost=5), ()) == []


def test_a_few_late_accepts() -> None:
    assert accept_queue(accepting(4), ()) == []
    assert accept_queue(accepting(20, number=4000), ()) == []


def test_without_samples() -> None:
    assert accept_queue(traced((), lost=5), ()) == []
    assert NETNS != SERVER


def test_a_destination_that_is_dead_for_its_full_queue_refers_to_it() -> None:
    # GIVEN connects of which the last ones never get an answer
    trace = traced(OVERFLOWING, lost=5)
    trace.attempts["outcome"][-5:] = Outcome.timed_out
    # WHEN both rules speak of the listener
    (dead,) = [each for each in diagnose(trace) if each.rule == "dead-destination"]
    # THEN one has the cure, and the other says where it is
    assert "The queue of its listener 0.0.0.0:80 was full" in dead.summary
    assert dead.advice == (
        "Do what accept-queue says of 0.0.0.0:80: these attempts waited for it.",
    )
    alone = diagnose(replace(trace, samples=()))
    (dead,) = [each for each in alone if each.rule == "dead-destination"]
    assert "accept-queue" not in dead.summary + "".join(dead.advice)
