"""What lies near a hold, against the same looked for everywhere."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from porttrace.analysis.backlog import Backlog, backlog
from porttrace.analysis.holds import HELD_NS, Queue, Spans
from porttrace.analysis.timeline import contains, lasting, union, within

TIMES = st.lists(st.integers(0, 40), max_size=8)
INTERVALS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=6)
REACH_NS = 3 * HELD_NS


@given(TIMES, st.integers(1, 9))
def test_a_union_of_equal_lengths_is_the_union(starts: list[int], length: int) -> None:
    begun = np.sort(np.array(starts, np.int64))
    assert np.array_equal(lasting(begun, length), union(begun, begun + length))


@given(TIMES, INTERVALS)
def test_times_within_a_set(times: list[int], intervals: list[tuple[int, int]]) -> None:
    table = np.array(intervals, np.int64).reshape(-1, 2)
    knots, ordered = union(table[:, 0], table.sum(axis=1)), np.sort(np.array(times, np.int64))
    assert np.array_equal(within(ordered, knots), ordered[contains(knots, ordered)])


def queue(attempts: list[tuple[int, int, int]]) -> Queue:
    """Return a queue of attempts (asked, held for, in service for), in tens of ms from 1 s on."""
    asked, held, served = (np.array(attempts, np.int64).reshape(-1, 3) * HELD_NS).T
    asked = asked + 1_000_000_000
    closed = np.ones(len(asked), np.bool_)
    hold = Spans(asked, asked + held, closed)
    return Queue(hold, Spans(hold.stop, hold.stop + served, closed))


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_a_backlog_knows_all_that_matters(attempts: list[tuple[int, int, int]]) -> None:
    line = queue(attempts)
    seen = backlog(line, REACH_NS)
    held = line.held()
    assert (seen is None) == (not held.any())
    if seen is None:
        return
    assert seen.waits.rows.tolist() == np.flatnonzero(held).tolist()
    assert_latest_ends(line, seen)
    assert_in_service(line, seen)


def assert_latest_ends(line: Queue, seen: Backlog) -> None:
    # Of each release: the latest end of all, where it is not too long ago to matter.
    ends = line.service.stop[line.service.lengths() > 0]
    for release, end in zip(seen.waits.release.tolist(), seen.waits.end.tolist(), strict=True):
        latest = max([each for each in ends.tolist() if each <= release], default=-1)
        assert end == latest or release - latest > REACH_NS


def assert_in_service(line: Queue, seen: Backlog) -> None:
    pieces, held = seen.pieces, line.held()
    for start, stop, count in zip(pieces.start, pieces.stop, pieces.count, strict=True):
        middle = (start + stop) / 2
        assert count == np.sum((line.service.start <= middle) & (middle < line.service.stop))
    in_hold = union(line.hold.start[held], line.hold.stop[held])
    assert int((pieces.stop - pieces.start).sum()) == int(np.diff(in_hold)[::2].sum())
