"""However the rounds cut the stream, each event comes out once, in order and in time."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from porttrace.tracer.event import EVENT, Events, no_events
from porttrace.tracer.order import FOREVER_NS, FinishedRounds


def at(*times: int) -> Events:
    table = np.zeros(len(times), EVENT)
    table["time_ns"] = times
    return table


def times(events: Events) -> list[int]:
    return [int(time) for time in events["time_ns"]]


def test_what_is_newer_than_the_round_before_waits() -> None:
    order = FinishedRounds()
    assert times(order.push(at(5, 3), 10)) == []
    assert times(order.push(at(12, 9), 20)) == [3, 5, 9]
    assert order.watermark_ns == 10
    assert times(order.push(no_events(), 30)) == [12]


def test_the_end_gives_all_that_is_left() -> None:
    order = FinishedRounds()
    order.push(at(7, 5), 6)
    assert times(order.drain()) == [5, 7]
    assert order.watermark_ns == FOREVER_NS
    assert times(order.drain()) == []


def test_events_of_one_instant_keep_their_order() -> None:
    order, table = FinishedRounds(), at(1, 1, 1)
    table["sock"] = [3, 1, 2]
    order.push(table, 5)
    assert order.push(no_events(), 6)["sock"].tolist() == [3, 1, 2]


def test_nothing_comes_of_nothing() -> None:
    order = FinishedRounds()
    assert len(order.push(no_events(), 1)) == len(order.drain()) == 0
    assert order.drain().dtype == EVENT


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 20)), max_size=40),
    st.lists(st.integers(1, 30), min_size=1, max_size=15),
)
def test_any_split_into_rounds(stamps: list[tuple[int, int]], lengths: Sequence[int]) -> None:
    """Events arrive late by less than a round: then nothing is late for its watermark."""
    starts = np.cumsum(lengths).tolist()
    order, out, watermark = FinishedRounds(), [], 0
    left = [(time, time + min(delay, min(lengths) - 1)) for time, delay in stamps]
    for start in starts:
        # A round that began to drain at `start` finds all that was submitted before.
        come = [time for time, arrives in left if arrives <= start]
        left = [each for each in left if each[1] > start]
        final = times(order.push(at(*come), start))
        assert all(watermark < time <= order.watermark_ns for time in final)
        assert final == sorted(final)
        assert all(time > order.watermark_ns for time, _ in left)
        watermark = order.watermark_ns
        out += final
    out += times(order.push(at(*[time for time, _ in left]), 400)) + times(order.drain())
    assert out == sorted(time for time, _ in stamps)
