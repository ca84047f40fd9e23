"""The connection tracking fills, is full, drops; and what is none of it.

Facts are synthetic: this limit is one for the whole machine on most kernels, so a test that lowered
it would cut off everybody else.
"""

from dataclasses import replace

import pytest

from porttrace.analysis.findings.conntrack import conntrack_pressure
from porttrace.analysis.model import Finding, Outcome, Sample, Trace

from ..simulate import S  # noqa: TID252
from .shortages import NETNS, QUIET, TO, of_namespace


def tracked(*counts: int, **dropped: tuple[int, ...]) -> list[Sample]:
    return [
        replace(
            QUIET, time_ns=number * S,
            conntrack={"count": count, "max": 1000, "drop": 0, "early_drop": 0, "insert_failed": 0,
                       **{name: values[number] for name, values in dropped.items()}},
        )
        for number, count in enumerate(counts)
    ]  # fmt: skip


def traced(samples: list[Sample]) -> Trace:
    return of_namespace((TO, 500, 501, Outcome.established), samples=samples)


def only(samples: list[Sample]) -> Finding:
    (finding,) = conntrack_pressure(traced(samples), ())
    return finding


def test_it_is_foretold() -> None:
    finding = only(tracked(500, 700, 810, 900))
    assert (finding.severity, finding.subject["netns"]) == ("warning", NETNS)
    assert finding.pids() == [7] and finding.confidence >= 0.8
    assert "had 900 of 1000 entries (90 %)" in finding.summary
    # 400 entries in 3 s
    assert "full in about 750 ms" in finding.summary
    assert "sysctl -w net.netfilter.nf_conntrack_max=65536" in finding.advice[0]
    assert all("Price:" in line for line in finding.advice)


@pytest.mark.parametrize("name", ["drop", "early_drop"])
def test_drops_are_critical(name: str) -> None:
    finding = only(tracked(900, 1000, 1000, **{name: (5, 6, 19)}))
    assert finding.severity == "critical" and "14 packets found no room" in finding.summary
    assert finding.evidence[name] == 14


@pytest.mark.parametrize(
    "samples",
    [
        tracked(100, 700, 790),
        tracked(100, 900, 300),  # a burst
        tracked(100, 120, 110, insert_failed=(0, 40, 90)),  # races of equal packets
        tracked(100, 120, drop=(7, 7)),  # dropped before the trace began
        tracked(100, 120, drop=(7, 9)),  # dropped for something else: there was room
        [QUIET, replace(QUIET, time_ns=S)],  # no tracking at all
        [replace(QUIET, conntrack=None)],
    ],
)
def test_what_is_none(samples: list[Sample]) -> None:
    assert conntrack_pressure(traced(samples), ()) == []
