"""Numbers that compare as pairs of key and time do, against Python's own comparison."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from porttrace.analysis.pairs import (
    as_numbers,
    by_key,
    in_sequence,
    parts_by_key,
    sorted_pairs,
)

# Keys and times that fit into one number together, and such that do not, nor their difference.
KEYS = st.sampled_from([0, 1, 5, -3, 1 << 22, 1 << 40, 1 << 62, -(1 << 62)])
TIMES = st.sampled_from([0, 1, 7, -5, 123_456_789, 1 << 40, 1 << 61, -(1 << 63), (1 << 63) - 1])
PAIRS = st.lists(st.tuples(KEYS, TIMES), max_size=5)


@given(st.lists(PAIRS, min_size=1, max_size=3))
def test_numbers_compare_as_their_pairs_do(tables: list[list[tuple[int, int]]]) -> None:
    columns = [np.array(table, np.int64).reshape(-1, 2).T for table in tables]
    found = as_numbers(*((keys, times) for keys, times in columns))
    assert [len(numbers) for numbers in found] == [len(table) for table in tables]
    pairs = [pair for table in tables for pair in table]
    numbers = np.concatenate(found).tolist()
    ranks = {pair: rank for rank, pair in enumerate(sorted(set(pairs)))}
    order = {number: rank for rank, number in enumerate(sorted(set(numbers)))}
    assert [ranks[pair] for pair in pairs] == [order[number] for number in numbers]


@pytest.mark.parametrize("spread", [1, 1 << 10, 1 << 50], ids=["16 bits", "more", "wide"])
def test_positions_by_key(spread: int) -> None:
    keys = np.random.default_rng(1).integers(0, 300, 2000) * spread - 7
    assert np.array_equal(by_key(keys), np.argsort(keys, kind="stable"))
    distinct, parts = parts_by_key(keys)
    assert distinct == sorted(set(keys.tolist()))
    for key, part in zip(distinct, parts, strict=True):
        assert np.array_equal(part, np.flatnonzero(keys == key))


def test_no_key_has_no_part() -> None:
    assert parts_by_key(np.empty(0, np.uint32)) == ([], [])


@pytest.mark.parametrize("span", [3, 1 << 20, 1 << 61])
def test_positions_in_sequence(span: int) -> None:
    values = np.random.default_rng(3).integers(-span, span, 500)
    assert in_sequence(values).tolist() == np.argsort(values, kind="stable").tolist()
    assert in_sequence(values[:0]).tolist() == []


@pytest.mark.parametrize("span", [5, 1 << 30, 1 << 61])
def test_pairs_sorted_by_key_then_time(span: int) -> None:
    random = np.random.default_rng(4)
    keys, times = random.integers(-9, 9, 300), random.integers(0, span, 300)
    wanted = sorted(zip(keys.tolist(), times.tolist(), strict=True))
    found = sorted_pairs(keys, times)
    assert list(zip(*(each.tolist() for each in found), strict=True)) == wanted


def test_rare_keys_are_left_out() -> None:
    keys, parts = parts_by_key(np.array([7, 9, 7, 8, 7, 9]), 2)
    assert keys == [7, 9] and [part.tolist() for part in parts] == [[0, 2, 4], [1, 5]]
