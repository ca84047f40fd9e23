"""A connect from a port of its program's choice, which has a connection to that peer already."""

from dataclasses import replace

import pytest

from porttrace.analysis.findings import diagnose
from porttrace.analysis.findings.exhaustion import ephemeral_exhaustion
from porttrace.analysis.findings.source_port import source_port_taken
from porttrace.analysis.model import Finding, Outcome, Trace

from .shortages import SOURCE, TO, of_namespace
from .test_exhaustion import FILLING, GOOD, LACKING
from .written import Step

TWICE: tuple[Step, ...] = ((TO, 500, 501, GOOD), (TO, 600, 600.1, LACKING))


def from_port(*ports: int, steps: tuple[Step, ...] = TWICE) -> Trace:
    """Return a trace whose attempts have these source ports when they are over."""
    trace = of_namespace(*steps)
    trace.rows["sport"] = ports
    return trace


def only(trace: Trace) -> Finding:
    (finding,) = source_port_taken(trace, ())
    return finding


def test_it_is_no_shortage() -> None:
    trace = from_port(8380, 8380)
    assert [each.rule for each in diagnose(trace)] == ["source-port-taken"]
    finding = only(trace)
    assert finding.severity == "warning" and finding.confidence >= 0.9
    assert finding.summary.startswith(
        "web (pid 7) could not connect from 192.0.2.1:8380 to 192.0.2.2:80 (EADDRNOTAVAIL): "
        "its own source port 8380, to which it had bound the socket before, already has a "
        "connection to that peer: that of web (pid 7), made 100 ms before"
    )
    assert finding.subject["port"] == 8380 and finding.subject["source"] == SOURCE
    assert finding.evidence == {"failed": 1, "attempts": 2, "holder_pid": 7}
    assert finding.advice[0].startswith("Use another source port")
    wanted = "nsenter -t 7 -n ss -tanpo 'sport = :8380 and dst 192.0.2.2 and dport = :80'"
    assert wanted in finding.advice[-1]


def test_of_a_connection_older_than_the_trace_nobody_is_named() -> None:
    finding = only(from_port(8380, steps=TWICE[1:]))
    assert finding.evidence["holder_pid"] is None
    assert "an open one, or one that ended less than 60 s ago (TIME_WAIT)" in finding.summary


def test_no_command_enters_a_process_that_has_ended() -> None:
    trace = replace(from_port(8380, 8380), exits={7: 10**10})
    assert "nsenter" not in " ".join(only(trace).advice)


@pytest.mark.parametrize("ports", [(8380, 8381), (8381, 8380)])
def test_a_connection_of_another_port_is_not_the_one(ports: tuple[int, int]) -> None:
    assert only(from_port(*ports)).evidence["holder_pid"] is None


def test_who_left_the_choice_to_the_kernel_lacks_the_range() -> None:
    trace = from_port(41_000, 0)
    assert source_port_taken(trace, ()) == []
    assert ephemeral_exhaustion(trace, ())


def test_a_shortage_beside_it_is_still_told() -> None:
    steps = (*TWICE, *[(TO, 3900 + i, 3900.1 + i, LACKING) for i in range(3)])
    trace = replace(from_port(8380, 8380, 0, 0, 0, steps=steps), samples=FILLING)
    (finding,) = ephemeral_exhaustion(trace, ())
    assert finding.evidence["failed"] == 3 and only(trace).evidence["failed"] == 1


def test_a_port_that_was_refused_or_is_good_is_none() -> None:
    steps: tuple[Step, ...] = ((TO, 500, 501, GOOD), (TO, 600, 601, Outcome.refused))
    assert source_port_taken(from_port(8380, 8380, steps=steps), ()) == []
