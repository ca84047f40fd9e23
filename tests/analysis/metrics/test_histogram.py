"""Buckets that tell the rung of the SYN ladder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from porttrace.analysis.metrics.histogram import LADDER_S, Histogram

MS = 1_000_000


@pytest.mark.parametrize(
    ("length_ns", "end"),
    [
        (0, "0.0005"),
        (500_000, "0.0005"),
        (500_001, "0.001"),
        (999 * MS, "1"),  # answered at once
        (1_004 * MS, "3"),  # the SYN was sent again after 1 s
        (3_050 * MS, "7"),
        (21_000 * MS, "31"),
        (127_100 * MS, "+Inf"),
    ],
)
def test_each_length_has_its_bucket(length_ns: int, end: str) -> None:
    histogram = Histogram()
    histogram.add(np.array([length_ns]))
    assert next(name for name, count in histogram.cumulative() if count) == end


@given(st.lists(st.integers(0, 200 * 1000 * MS)))
def test_buckets_are_cumulative_and_the_sum_is_exact(lengths: list[int]) -> None:
    histogram = Histogram()
    histogram.add(np.array(lengths, np.int64))
    told = histogram.cumulative()
    counts = [count for _, count in told]
    assert counts == sorted(counts) and counts[-1] == histogram.count == len(lengths)
    assert histogram.sum_s == pytest.approx(sum(lengths) / 1e9, abs=1e-9)
    for end, count in told[:-1]:
        assert count == sum(length <= round(float(end) * 1e9) for length in lengths)


def test_it_has_the_rungs_of_linux() -> None:
    assert LADDER_S[0] == 0.0005 and {1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 127.0} <= set(LADDER_S)
