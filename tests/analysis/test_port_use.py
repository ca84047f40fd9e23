"""What of the ephemeral range is taken now: towards a destination, and at all."""

from dataclasses import replace

import pytest

from porttrace.analysis.port_use import in_use, short_of_ports
from porttrace.analysis.samples import Ports
from porttrace.tracer.facts import RangeUse, Towards

PORTS = Ports(43660, 43671, 0)
OPEN = Towards("192.0.2.1", "192.0.2.77:5490", {"ESTABLISHED": 12}, whose=((7, "many", 12),))
OVER = replace(OPEN, states={"TIME_WAIT": 12}, reusable=11, frees_in_s=31.0, whose=())
LINUX = {"tcp_tw_reuse": "2", "tcp_timestamps": "1"}


def test_it_is_used_up_towards_a_destination() -> None:
    (finding,) = short_of_ports(RangeUse(11, 0, (OPEN,)), PORTS, LINUX, "ip netns exec a ")
    assert (finding.rule, finding.severity) == ("ephemeral-exhaustion", "critical")
    assert "12 of the 12 local ports from 192.0.2.1 to 192.0.2.77:5490 are taken" in finding.summary
    assert "fails with EADDRNOTAVAIL. 12 in ESTABLISHED. many (pid 7) has 12" in finding.summary
    assert finding.pids() == [7] and finding.evidence["open"] == 12
    assert all("ip netns exec a " in each for each in finding.advice)


@pytest.mark.parametrize(
    ("established", "severity"), [(12, "critical"), (11, "warning"), (10, "warning"), (9, "")]
)
def test_nearly_is_a_warning_and_less_is_nothing(established: int, severity: str) -> None:
    each = replace(OPEN, states={"ESTABLISHED": established})
    found = short_of_ports(RangeUse(established, 0, (each,)), PORTS, LINUX, "")
    assert [finding.severity for finding in found if finding.subject["source"]] == (
        [severity] if severity else []
    )


def test_what_listens_is_lost_to_every_destination() -> None:
    each = replace(OPEN, states={"ESTABLISHED": 10})
    (finding,) = short_of_ports(RangeUse(11, 2, (each,)), PORTS, LINUX, "")
    assert finding.severity == "critical" and "10 of the 10 local ports" in finding.summary


def test_time_wait_says_when_it_ends_and_may_be_used_again() -> None:
    (finding,) = short_of_ports(RangeUse(11, 0, (OVER,)), PORTS, LINUX, "")
    assert "No process has them any more. The next TIME_WAIT ends in 31.0 s" in finding.summary
    # from loopback Linux gives them away again after a second
    here = replace(OVER, source="127.0.0.1", destination="127.0.0.1:80")
    assert short_of_ports(RangeUse(11, 0, (here,)), PORTS, LINUX, "") == []
    assert short_of_ports(RangeUse(11, 0, (OVER,)), PORTS, {**LINUX, "tcp_tw_reuse": "1"}, "") == []


def test_no_port_for_a_bind_to_port_0() -> None:
    (finding,) = short_of_ports(RangeUse(12), PORTS, LINUX, "")
    assert "a bind to port 0 gets none (EADDRINUSE)" in finding.summary
    assert "IP_BIND_ADDRESS_NO_PORT" in finding.advice[0]
    assert short_of_ports(RangeUse(11), PORTS, LINUX, "") == []
    assert in_use(RangeUse(11), PORTS) == "11 of 12 have a TCP socket"


def test_a_wide_range_is_not_to_be_widened() -> None:
    wide = Ports(1024, 65535, 0)
    many = replace(OPEN, states={"ESTABLISHED": wide.number()})
    (finding,) = short_of_ports(RangeUse(5, 0, (many,)), wide, LINUX, "")
    assert not any("Widen" in each for each in finding.advice)
