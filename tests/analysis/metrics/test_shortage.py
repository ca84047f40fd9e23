"""Shares of ports, queues and tables, by samples written out by hand."""

from dataclasses import replace

import pytest

from porttrace.analysis.metrics.shortage import (
    Spaces,
    conntrack_share,
    ephemeral_share,
    queue_shares,
)
from porttrace.analysis.model import Sample
from porttrace.tracer.facts import Listener, PortUse, Usage

RANGE = {"ip_local_port_range": "30000 30999", "tcp_tw_reuse": "0"}
QUIET = Sample(
    1, 42, 7, {"ListenOverflows": 5}, {"inuse": 60, "tw": 40}, RANGE,
    {"count": 10, "max": 100, "drop": 1, "early_drop": 0}, (), Usage(), (),
)  # fmt: skip


def test_where_nobody_counted_all_sockets_stand_for_one_destination() -> None:
    assert ephemeral_share(QUIET) == pytest.approx(0.1)
    assert ephemeral_share(replace(QUIET, sockets={"inuse": 5000})) == 1.0
    assert ephemeral_share(replace(QUIET, settings={})) == 0.0


def test_the_fullest_destination_counts_without_what_can_be_had_again() -> None:
    groups = (
        PortUse("192.0.2.1", "192.0.2.2:80", 850, 400, 400),
        PortUse("192.0.2.1", "192.0.2.3:80", 300),
    )
    counted = replace(QUIET, usage=Usage(5, 1150, groups=groups))
    assert ephemeral_share(counted) == pytest.approx(0.85)
    again = replace(counted, settings={**RANGE, "tcp_tw_reuse": "1"})
    assert ephemeral_share(again) == pytest.approx(0.45)


def test_queues_by_port_the_fullest_of_each_and_not_too_many() -> None:
    full = Listener("192.0.2.1", 80, 64, 128)
    samples = [
        replace(QUIET, listeners=(full, Listener("[::]", 80, 12, 16), Listener("::1", 81, 0, 0))),
        replace(QUIET, listeners=tuple(Listener("0.0.0.0", n, 9, 10) for n in range(1000, 1100))),
    ]
    shares = queue_shares(samples[:1])
    assert shares == {80: 0.75, 81: 0.0}
    assert len(queue_shares(samples)) == 20


def test_counters_grow_by_what_each_namespace_grew() -> None:
    spaces = Spaces()
    later = replace(
        QUIET, counters={"ListenOverflows": 9}, conntrack={"count": 90, "max": 100, "drop": 4}
    )
    anew = replace(QUIET, counters={"ListenOverflows": 2})  # another namespace, the same number
    spaces.take([QUIET, replace(QUIET, netns=43), later, anew])
    assert (spaces.overflows, spaces.conntrack_drops) == (4, 3)
    assert spaces.gauges()["conntrack"] == conntrack_share(QUIET) == 0.1
    spaces.take([later])
    assert spaces.gauges()["conntrack"] == 0.9
    spaces.keep({43})
    assert set(spaces.latest) == {43} and spaces.gauges()["conntrack"] == 0.1
