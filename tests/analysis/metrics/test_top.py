"""Names that come and go: bounded series, and no count that ever goes down."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from porttrace.analysis.metrics.top import LINGERS, OTHER, TopNames

ONE = np.array([1], np.int64)


def counted(top: TopNames) -> dict[str, int]:
    series = list(top.series())
    assert len(series) == len({name for name, _ in series}), "a name has one series"
    return {name: int(counts[0]) for name, counts in series}


def busy(top: TopNames, name: str, times: int) -> None:
    for _ in range(times):
        top.add(name, ONE, 1.0)


def test_the_first_names_have_series_and_all_others_are_one() -> None:
    top = TopNames(2, 1)
    for name in ("a", "b", "c", "d", "a"):
        busy(top, name, 1)
    assert counted(top) == {"a": 2, "b": 1, OTHER: 2}


def test_a_busier_name_gets_a_series_and_the_old_one_stands_still() -> None:
    top = TopNames(2, 1)
    busy(top, "a", 5)
    busy(top, "b", 1)
    busy(top, "c", 9)  # under other, up to now
    top.turn()
    busy(top, "c", 3)
    busy(top, "b", 4)  # has none any more
    assert counted(top) == {"a": 5, "c": 3, "b": 1, OTHER: 13}


def test_who_is_not_clearly_busier_waits() -> None:
    top = TopNames(1, 1)
    busy(top, "a", 5)
    busy(top, "b", 10)
    top.turn()
    assert counted(top) == {"a": 5, OTHER: 10}


def test_a_name_that_comes_back_in_time_goes_on_from_where_it_was() -> None:
    top = TopNames(1, 1)
    busy(top, "a", 5)
    busy(top, "b", 50)
    top.turn()
    busy(top, "b", 7)
    for _ in range(5):  # nobody is busy for so long
        top.turn()
    busy(top, "a", 60)
    top.turn()
    busy(top, "a", 1)
    assert counted(top) == {"a": 6, "b": 7, OTHER: 110}


def test_a_series_that_stands_still_ends_after_a_while() -> None:
    top = TopNames(1, 1)
    busy(top, "a", 5)
    busy(top, "b", 50)
    for _ in range(LINGERS):
        top.turn()
        assert "a" in counted(top)
    top.turn()
    assert set(counted(top)) == {"b", OTHER}


def test_a_process_that_calls_itself_other_is_one_of_them() -> None:
    top = TopNames(3, 1)
    busy(top, OTHER, 2)
    busy(top, "a", 1)
    assert counted(top) == {"a": 1, OTHER: 2}


NAMES = st.sampled_from([*"abcdefghij", OTHER])
STEPS = st.lists(st.tuples(NAMES, st.integers(1, 40)) | st.none(), max_size=120)


@given(st.integers(1, 4), STEPS)
def test_no_count_goes_down_and_nothing_is_counted_twice(
    most: int, steps: list[tuple[str, int] | None]
) -> None:
    top, before, total = TopNames(most, 1), {OTHER: 0}, 0
    ended = 0  # counts of series that have ended
    for step in steps:
        if step is None:
            top.turn()
        else:
            total += step[1]
            top.add(step[0], np.array([step[1]], np.int64), float(step[1]))
        now = counted(top)
        # THEN the series are bounded, none that goes on has gone down, and all of them together
        # are all that was ever counted
        assert len(now) <= 2 * most + 1
        assert all(now[name] >= count for name, count in before.items() if name in now)
        ended += sum(count for name, count in before.items() if name not in now)
        assert sum(now.values()) + ended == total
        before = now


@given(st.lists(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=3), max_size=400))
def test_memory_is_bounded_whatever_comes(names: list[str]) -> None:
    top = TopNames(2, 1)
    for at, name in enumerate(names):
        top.add(name, ONE, 1.0)
        if at % 7 == 6:
            top.turn()
        assert len(top._candidates) <= 8
        assert len(top._named) <= 2 and len(top._left) <= 2
        assert top._busy.keys() == top._named.keys()
