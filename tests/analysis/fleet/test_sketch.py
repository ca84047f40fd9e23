"""A percentile is within the promised share of the true one, however sketches were merged."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from porttrace.analysis.fleet.sketch import ERROR, Sketch, merged, sketch_of

lengths = st.lists(st.integers(0, 2**62), min_size=1, max_size=60)
shares = st.floats(0, 1)


def true(values: list[int], share: float) -> int:
    return sorted(values)[math.floor(share * (len(values) - 1))]


@given(lengths, shares)
def test_it_is_within_the_error(values: list[int], share: float) -> None:
    found, wanted = sketch_of(np.array(values)).percentile(share), true(values, share)
    assert abs(found - wanted) <= (ERROR + 1e-9) * wanted


@given(st.lists(lengths, min_size=1, max_size=5), shares)
def test_merging_is_as_if_all_were_at_one_place(parts: list[list[int]], share: float) -> None:
    whole = sketch_of(np.array([value for values in parts for value in values]))
    for order in (parts, parts[::-1]):
        together = Sketch()
        for values in order:
            together = merged(together, sketch_of(np.array(values)))
        assert together.count == whole.count
        assert together.percentile(share) == whole.percentile(share)
        assert (together.smallest, together.largest) == (whole.smallest, whole.largest)


@given(lengths)
def test_the_ends_are_exact(values: list[int]) -> None:
    sketch = sketch_of(np.array(values))
    assert (sketch.smallest, sketch.largest) == (min(values), max(values))
    # a percentile is a float: whole numbers above 2^53 are rounded
    assert sketch.percentile(1.0) <= float(max(values))
    assert sketch.percentile(0.0) >= float(min(values))


def test_none_has_no_percentile() -> None:
    assert math.isnan(Sketch().percentile(0.5))
    assert math.isnan(merged(Sketch(), Sketch()).percentile(0.5))


def test_it_stays_small() -> None:
    assert len(sketch_of(np.array([1, 2**63 - 1])).counts) < 2_200
