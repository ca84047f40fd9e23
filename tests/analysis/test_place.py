"""The words that enter a network namespace of a trace: by name, or by somebody alive."""

from dataclasses import replace

import pytest

from porttrace.analysis.findings.exhaustion import ephemeral_exhaustion
from porttrace.analysis.model import Outcome, Sample, Trace
from porttrace.analysis.place import ruleset, within

from .findings.shortages import NETNS, QUIET, TO, counted, of_namespace, use
from .simulate import S


def trace_of(*samples: Sample, exits: tuple[int, ...] = ()) -> Trace:
    trace = of_namespace((TO, 500, 501, Outcome.no_port), samples=samples)
    return replace(trace, exits=dict.fromkeys(exits, S))


def test_a_process_that_lives_is_the_way_in() -> None:
    assert within(trace_of(QUIET), NETNS) == "nsenter -t 7 -n "
    assert within(trace_of(QUIET), NETNS, [99]) == "nsenter -t 99 -n "


@pytest.mark.parametrize(
    ("exits", "text"),
    [
        ((7,), "nsenter -t 8 -n "),
        ((7, 8), "nsenter -t PID -n "),
        ((8,), "nsenter -t 7 -n "),
    ],
)
def test_a_process_that_has_ended_is_none(exits: tuple[int, ...], text: str) -> None:
    trace = trace_of(replace(QUIET, pid=8), QUIET, exits=exits)
    assert within(trace, NETNS, [7]) == text


def test_a_name_outlives_all_of_them() -> None:
    named = replace(QUIET, name="red blue", own=False)
    assert within(trace_of(named, exits=(7,)), NETNS) == "ip netns exec 'red blue' "
    # and is that of this namespace alone
    assert within(trace_of(named, exits=(7,)), NETNS + 1) == "nsenter -t PID -n "


def test_the_tracers_own_needs_no_way_in() -> None:
    assert within(trace_of(replace(QUIET, name="", own=True)), NETNS) == ""
    assert within(trace_of(replace(QUIET, name="", own=False)), NETNS) == "nsenter -t 7 -n "


def test_a_finding_names_nobody_who_is_dead() -> None:
    full = counted((1, use(20, 0)), (2, use(20, 0)))
    (dead,) = ephemeral_exhaustion(trace_of(*full, exits=(7,)), ())
    assert "nsenter -t PID -n ss -tnp" in dead.advice[0]
    named = [replace(each, name="blue", own=False) for each in full]
    (finding,) = ephemeral_exhaustion(trace_of(*named, exits=(7,)), ())
    assert "ip netns exec blue ss -tnp" in finding.advice[0]
    assert "nsenter" not in "".join(finding.advice)


def test_the_packet_filter_of_a_process_is_shown_by_somebody_alive() -> None:
    trace = trace_of(QUIET, exits=(99,))
    trace = replace(trace, processes={99: replace(trace.processes[7], pid=99)})
    assert ruleset(trace, 99) == "nsenter -t 7 -n nft list ruleset"
    assert ruleset(trace, 98) == "nsenter -t 98 -n nft list ruleset"
