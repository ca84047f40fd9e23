"""Times in the accept queue add up, however the events are cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from builders import MS, S, events
from porttrace.analysis.accepts import accepted_of
from porttrace.analysis.model import Accepted, AcceptKey
from porttrace.tracer.event import Events, EventType


def accepting(*queued_ms: float, pid: int = 9, port: int = 80) -> Events:
    told = events()
    for number, each in enumerate(queued_ms):
        at = S + number * MS
        told.add(EventType.ACCEPT, at, pid=pid, sport=port, start_ns=at - int(each * MS))
    return told.array()


def test_times_are_summed_up() -> None:
    table = np.concatenate([accepting(1, 99, 100, 400), accepting(5, port=81), accepting(7, pid=8)])
    found = accepted_of(table)
    assert found[(9, 80)] == Accepted(9, 80, 4, 2, 600 * MS, 400 * MS)
    assert found.keys() == {(9, 80), (9, 81), (8, 80)}


def test_what_was_established_before_the_trace_is_left_out() -> None:
    table = accepting(1, 2)
    table["start_ns"][0] = 0
    assert accepted_of(table)[(9, 80)].number == 1
    assert accepted_of(table[:0]) == {}


@given(st.lists(st.floats(0, 900), min_size=1, max_size=20), st.lists(st.integers(0, 20)))
def test_cutting_changes_nothing(queued_ms: list[float], cuts: list[int]) -> None:
    table = accepting(*queued_ms)
    known: dict[AcceptKey, Accepted] = {}
    for part in np.split(table, sorted(min(cut, len(table)) for cut in cuts)):
        known = accepted_of(part, known)
    assert known == accepted_of(table)
