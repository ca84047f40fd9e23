"""Samples as tables."""

from dataclasses import replace

import pandas as pd

from porttrace.analysis.model import Trace, no_attempts
from porttrace.analysis.sampletables import PORT_USE, SAMPLES, port_use, samples
from porttrace.tracer.facts import Listener, PortUse, Sample, Usage

S = 1_000_000_000
SAMPLE = Sample(
    3 * S, 42, 7, {"ListenOverflows": 4, "ListenDrops": 5}, {"inuse": 6, "tw": 7},
    {"ip_local_port_range": "40000 40019", "tcp_tw_reuse": "1"}, {"count": 8, "max": 9},
    (Listener("0.0.0.0", 80, 2, 9), Listener("0.0.0.0", 81, 1, 9)),
    Usage(3 * S, 12, 0, 1, (PortUse("192.0.2.1", "192.0.2.2:80", 12, 10, 4),)), (),
)  # fmt: skip


def test_one_row_a_sample() -> None:
    bare = Sample(4 * S, 43)
    frame = samples(Trace(no_attempts(), S, 9 * S, samples=(SAMPLE, bare)))
    assert tuple(frame.columns) == SAMPLES
    assert frame.iloc[0].tolist() == [2.0, 42, 6, 7, 4, 5, 8, 9, 2]
    assert frame.iloc[1, 2:].isna().all()


def test_one_row_a_count_of_ports() -> None:
    same = replace(SAMPLE, time_ns=4 * S)  # a later sample with the same count
    frame = port_use(Trace(no_attempts(), S, 9 * S, samples=(SAMPLE, same)))
    expected = [(2.0, 42, "192.0.2.1", "192.0.2.2:80", 12, 10, 8, 19)]
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected, columns=list(PORT_USE)))


def test_without_samples_the_columns_are_there() -> None:
    nothing = Trace(no_attempts(), S, 9 * S)
    assert tuple(samples(nothing).columns) == SAMPLES and len(samples(nothing)) == 0
    assert tuple(port_use(nothing).columns) == PORT_USE
