"""Step functions by hand, against a slow count, and under permutation."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from porttrace.analysis import concurrency
from porttrace.analysis.concurrency import (
    at_start,
    count_at,
    demand,
    highest_demand,
    highest_in_flight,
    in_flight,
    open_at_start,
    peaks,
    steps,
)
from porttrace.analysis.model import ATTEMPT, Attempts, Origin, Outcome, no_attempts, start_ns

from .simulate import Client, row

INTERVALS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(0, 8)))


def columns(intervals: list[tuple[int, int, int]]) -> tuple[concurrency.Ints, ...]:
    """Return keys, starts and ends of (key, start, length)."""
    table = np.array(intervals, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 1] + table[:, 2]


@given(INTERVALS)
def test_steps_equal_a_slow_count(intervals: list[tuple[int, int, int]]) -> None:
    table = steps(*columns(intervals))
    for key in range(3):
        times = np.arange(-1, 30)
        slow = [sum(k == key and a <= t < a + n for k, a, n in intervals) for t in times]
        assert count_at(table, np.full(len(times), key), times).tolist() == slow


@given(INTERVALS, st.randoms(use_true_random=False))
def test_the_order_of_intervals_has_no_say(intervals: list[tuple[int, int, int]], rng) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(intervals)
    rng.shuffle(shuffled)
    assert np.array_equal(steps(*columns(intervals)), steps(*columns(shuffled)))


@given(INTERVALS)
def test_a_step_is_a_change_of_time_within_its_scope(intervals: list[tuple[int, int, int]]) -> None:
    table = steps(*columns(intervals))
    assert all(a["scope"] < b["scope"] or a["time_ns"] < b["time_ns"] for a, b in pairwise(table))


def test_an_end_makes_room_for_a_start_at_the_same_time() -> None:
    zero = np.zeros(2, np.int64)
    assert peaks(steps(zero, np.array([1, 5]), np.array([5, 9]))) == {0: 1}
    assert peaks(steps(zero, np.array([1, 4]), np.array([5, 9]))) == {0: 2}


def attempts(*marks: dict[str, int], pids: tuple[int, ...] = ()) -> Attempts:
    """Return attempts with these marks; those without an end are pending."""
    clients = [Client(pid, 10 * pid + i) for i, pid in enumerate(pids or (1,) * len(marks))]
    rows = [
        row(i, c, m, Outcome.established if "end_ns" in m else Outcome.pending)
        for i, (c, m) in enumerate(zip(clients, marks, strict=True), 1)
    ]
    return np.array(rows, ATTEMPT)


def test_demand_counts_the_held_and_in_flight_does_not() -> None:
    table = attempts(
        {"call_ns": 10, "syn_ns": 12, "end_ns": 100},
        {"gate_ns": 50, "call_ns": 101, "syn_ns": 102, "end_ns": 110},
    )
    assert peaks(in_flight(table, "process", 200)) == {1: 1}
    assert peaks(demand(table, "process", 200)) == {1: 2}


def test_a_pending_attempt_is_open_until_the_trace_ends() -> None:
    table = attempts({"call_ns": 10, "syn_ns": 12}, {"gate_ns": 50})
    assert in_flight(table, "host", 200)["time_ns"].tolist() == [12, 200]
    assert demand(table, "host", 200)["count"].tolist() == [1, 2, 0]


def test_at_start_counts_itself_and_its_own_process_only() -> None:
    table = attempts(
        {"call_ns": 10, "syn_ns": 12, "end_ns": 100},
        {"gate_ns": 50, "call_ns": 60, "syn_ns": 62},
        {"call_ns": 70, "end_ns": 71},
        {"call_ns": 80, "syn_ns": 82, "end_ns": 90},
        pids=(1, 1, 1, 2),
    )
    filled = at_start(table)
    assert filled["in_flight_at_start"].tolist() == [1, 2, 2, 1]
    assert filled["demand_at_start"].tolist() == [1, 2, 3, 1]
    assert not table["demand_at_start"].any()


def test_scopes_keep_apart_what_differs() -> None:
    table = attempts({"call_ns": 1}, {"call_ns": 2}, pids=(1, 2))
    table["tid"], table["origin"][1], table["tid"][1] = [5, 5], Origin.seeded, 0
    keys = {scope: concurrency.scope_keys(table, scope) for scope in concurrency.SCOPES}
    assert len(set(keys["thread"])) == len(set(keys["process"])) == 2
    assert len(set(keys["destination"])) == len(set(keys["user"])) == len(set(keys["host"])) == 1


@pytest.mark.parametrize(
    "others", [[], [bytes(15) + b"\1", bytes(range(16))]], ids=["4", "4 and 6"]
)
def test_destinations_are_ranked_by_address_and_port(others: list[bytes]) -> None:
    addresses = [bytes(10) + b"\xff\xff" + bytes([192, 0, 2, n]) for n in (9, 1, 9, 200)] + others
    ports = [80, 443, 80, 80, 53, 80][: len(addresses)]
    table = np.zeros(2 * len(addresses), ATTEMPT)
    table["daddr"] = np.frombuffer(b"".join(2 * addresses), "V16")
    table["dport"] = ports + [port + 1 for port in ports]
    ends = [
        (*np.frombuffer(a.tobytes(), "<u8"), p)
        for a, p in zip(table["daddr"], table["dport"], strict=True)
    ]
    ranks = [sorted(set(ends)).index(end) for end in ends]
    assert concurrency.scope_keys(table, "destination").tolist() == ranks


@given(INTERVALS)
def test_the_highest_counts_are_the_peaks(intervals: list[tuple[int, int, int]]) -> None:
    key, start, end = columns(intervals)
    table = np.zeros(len(key), ATTEMPT)
    table["pid"], table["syn_ns"], table["end_ns"] = key, start + 1, end + 1
    table["outcome"] = Outcome.established
    for made, highest in ((in_flight, highest_in_flight), (demand, highest_demand)):
        assert highest(table, "process", 99) == peaks(made(table, "process", 99))


@given(INTERVALS)
def test_open_at_start_is_what_the_steps_say(intervals: list[tuple[int, int, int]]) -> None:
    key, start, end = columns(intervals)
    table = np.zeros(len(key), ATTEMPT)
    table["pid"], table["syn_ns"], table["end_ns"] = key, start + 1, end + 1
    table["gate_ns"] = np.where(start > 9, start - 5, 0)
    table["outcome"] = np.where(end % 3 == 0, Outcome.pending, Outcome.established)
    flying, wanting = open_at_start(table)
    seen = count_at(in_flight(table, "process", 1 << 40), key, table["syn_ns"])
    wanted = count_at(demand(table, "process", 1 << 40), key, start_ns(table))
    assert flying.tolist() == np.maximum(seen, 1).tolist()
    assert wanting.tolist() == np.maximum(wanted, 1).tolist()


def test_no_attempts_make_no_steps() -> None:
    for scope in concurrency.SCOPES:
        assert len(demand(no_attempts(), scope, 9)) == len(in_flight(no_attempts(), scope, 9)) == 0
    assert peaks(demand(no_attempts(), "host", 9)) == {}
    assert len(at_start(no_attempts())) == 0
