"""Unions and measures against a count of single instants."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from porttrace.analysis.timeline import contains, measure, union

INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)))


@given(INTERVALS, st.integers(-3, 45), st.integers(0, 20))
def test_union_and_measure_equal_a_slow_count(
    intervals: list[tuple[int, int]], start: int, length: int
) -> None:
    table = np.array(intervals, np.int64).reshape(-1, 2)
    knots = union(table[:, 0], table[:, 0] + table[:, 1])
    instants = {t for a, n in intervals for t in range(a, a + n)}
    times = np.arange(-3, 45)
    assert contains(knots, times).tolist() == [int(t) in instants for t in times]
    covered = measure(knots, np.array([start]), np.array([start + length]))
    assert covered.tolist() == [sum(t in instants for t in range(start, start + length))]


def test_a_union_has_no_empty_or_touching_parts() -> None:
    knots = union(np.array([1, 3, 7, 9]), np.array([3, 5, 7, 10]))
    assert knots.tolist() == [1, 5, 9, 10]
