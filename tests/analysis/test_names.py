"""How addresses, processes and lengths of time are written."""

import ipaddress

import pytest

from porttrace.analysis import names
from porttrace.analysis.model import Process, Trace, no_attempts

from .simulate import packed


def test_addresses() -> None:
    assert names.address(packed("192.0.2.2")) == "192.0.2.2"
    assert names.address(ipaddress.IPv6Address("2001:db8::1").packed) == "[2001:db8::1]"


def test_processes_keep_their_raw_name() -> None:
    trace = Trace(no_attempts(), 0, 1, {12: Process(12, comm="we\x1bb")})
    assert names.process(trace, 12) == "we\x1bb (pid 12)"
    assert names.process(trace, 13) == "pid 13"


@pytest.mark.parametrize(
    ("ns", "text"),
    [(4e5, "under 1 ms"), (1.4e6, "1 ms"), (736e6, "736 ms"), (5.24e9, "5.2 s"), (131e9, "131 s")],
)
def test_durations(ns: float, text: str) -> None:
    assert names.duration(ns) == text
