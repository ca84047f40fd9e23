"""Events of several arrays are told as those of one, by column and as rows."""

import numpy as np
import pytest

from porttrace.analysis.eventcolumns import EventColumns
from porttrace.analysis.grouped import grouped
from porttrace.tracer.event import EVENT, Events, EventType

RANDOM = np.random.default_rng(7)
SOCKS = (0, 5, 0xFFFF_8880_0000_0000, 0xFFFF_8880_0000_0040, 0xFFFF_FFFF_0000_0000)


def some(number: int, late: int = 0) -> Events:
    events = np.zeros(number, EVENT)
    events["time_ns"] = late + RANDOM.integers(1, 50, number)
    events["sock"] = RANDOM.choice(np.array(SOCKS, np.uint64), number)
    events["start_ns"] = RANDOM.integers(0, 4, number)
    events["tid"] = RANDOM.integers(1, 9, number)
    events["error"] = RANDOM.integers(-3, 3, number)
    events["type"] = RANDOM.choice([EventType.START, EventType.END, EventType.RETURN], number)
    return events


def columns(events: Events) -> EventColumns:
    by_column = {name: events[name].copy() for name in EVENT.names or ()}
    half = len(events) // 2
    first = {name: values[:half] for name, values in by_column.items()}
    return EventColumns([(events[:half], first), (events[half:], {}), (events[:0], {})])


def test_parts_read_as_one() -> None:
    events = some(101)
    parts, which = columns(events), np.array([0, 49, 50, 51, 100])
    assert len(parts) == 101 and parts.some("sock") and not parts.some("wire_ns")
    assert all(parts[name].tobytes() == events[name].tobytes() for name in EVENT.names or ())
    assert parts.rows(which).tobytes() == events[which].tobytes()


def test_only_those_that_are_wanted() -> None:
    events, which = some(40), np.array([3, 20, 39])
    parts = EventColumns([(events[:20], {}), (events[20:], {})], which)
    assert len(parts) == 3 and parts["pid"].tolist() == events["pid"][which].tolist()
    assert parts.rows(np.array([1, 2])).tobytes() == events[[20, 39]].tobytes()


@pytest.mark.parametrize("number", [0, 1, 2, 300])
@pytest.mark.parametrize("spread", [1, 1000])
def test_groups_are_sorted_as_by_all_their_columns(number: int, spread: int) -> None:
    for _ in range(20):
        events = some(number)
        events["time_ns"] *= spread
        if spread > 1:  # hardly any ties, and a socket's attempts one after the other
            events["start_ns"] = np.where(events["start_ns"] > 0, events["time_ns"] // 9000, 0)
        start, sock = events["start_ns"].copy(), events["sock"].copy()
        alone = start == 0
        start[alone], sock[alone] = events["time_ns"][alone], events["tid"][alone]
        wanted = np.lexsort((events["error"], events["type"], events["time_ns"], start, sock))
        found = grouped(columns(events))
        fields = ["sock", "start_ns", "time_ns", "type", "error", "tid"]
        assert events[fields][found.order].tolist() == events[fields][wanted].tolist()
