"""The process table and the trust line count what is there."""

import math
from dataclasses import replace

import numpy as np

from builders import MS, NEVER, S, Story, events
from porttrace.analysis.assemble import assemble
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.model import ATTEMPT, Loss, Outcome, Process, Trace, no_attempts
from porttrace.analysis.summary import Trust, by_outcome, duration_s, process_table, trust


def trace_of(story: Story) -> Trace:
    rows, still = step(story.array(), Open(), NEVER)
    return assemble(Trace(no_attempts(), S, 61 * S, events=len(story.array())), [rows], still)


def two_processes() -> Story:
    story = events()
    for tid, length in enumerate((10, 20, 30), 1):
        attempt = story.connect(pid=7, tid=tid, at=S, comm=b"web", held_ns=tid * MS)
        attempt.syn_sent(after_ns=MS).established(length * MS)
    story.connect(pid=7, tid=4, at=30 * S, comm=b"web").syn_sent().refused()
    story.connect(pid=5, at=2 * S, comm=b"agent").syn_sent().in_progress()
    return story


def test_one_row_a_process_the_busiest_first() -> None:
    table = process_table(trace_of(two_processes()))
    assert table["pid"].tolist() == [7, 5]
    assert table["attempts"].tolist() == [4, 1]
    assert table["comm"].tolist() == ["web", "agent"]
    assert table["established"].tolist() == [3, 0]
    assert table["refused"].tolist() == [1, 0]
    assert table["pending"].tolist() == [0, 1]
    assert table["max_in_flight"].tolist() == [3, 1]
    assert table["max_demand"].tolist() == [3, 1]
    assert table["worst_wait_ns"].tolist() == [4 * MS, 9_000]
    assert table["p50_ns"].tolist()[0] == 20 * MS
    assert math.isnan(table["p99_ns"].tolist()[1])


def test_the_worst_hold_is_at_any_place_on_this_host() -> None:
    trace = trace_of(two_processes())
    late = np.array(trace.attempts)
    # Of one whose SYN stood at egress; the others were not watched, and have no such place.
    late["watched"][0], late["wire_ns"][0] = 1, late["syn_ns"][0] + 5 * MS
    shown = process_table(replace(trace, attempts=late))
    held = late["call_ns"][0] - late["gate_ns"][0] + late["syn_ns"][0] - late["call_ns"][0]
    assert shown["worst_wait_ns"].tolist() == [held + 5 * MS, 9_000]


def test_a_process_goes_by_its_own_name_when_it_is_known() -> None:
    trace = replace(
        trace_of(two_processes()), processes={7: Process(7, comm="nginx"), 5: Process(5)}
    )
    assert process_table(trace)["comm"].tolist() == ["nginx", "agent"]


def test_no_attempts_no_table() -> None:
    empty = Trace(no_attempts(), 0, 0)
    assert process_table(empty).to_dict("records") == []
    assert by_outcome(empty.attempts) == {}


def test_outcomes_by_frequency() -> None:
    counts = by_outcome(trace_of(two_processes()).attempts)
    assert list(counts.items()) == [("established", 3), ("pending", 1), ("refused", 1)]


def test_trust() -> None:
    trace = trace_of(two_processes())
    assert trust(trace) == Trust(trace.events, 0, 0, True)
    assert duration_s(trace) == 60.0
    lossy = replace(trace, losses=(Loss(0, 9, 0, 4), Loss(0, 9, 1, 5)), notes=("n",))
    assert trust(lossy) == Trust(trace.events, 9, 0, False, ("n",))


def test_an_unknown_end_is_incomplete_without_a_loss() -> None:
    story = events()
    story.connect().syn_sent(untracked=True).in_progress()
    found = trust(trace_of(story))
    assert (found.attempts_unknown, found.complete) == (1, False)


def test_quantiles_are_those_of_each_process() -> None:
    random = np.random.default_rng(2)
    rows = np.zeros(4000, ATTEMPT)
    rows["pid"] = random.choice([3, 4, 70_000, 5], 4000, p=[0.5, 0.4, 0.0995, 0.0005])
    rows["syn_ns"] = 10 * S
    rows["end_ns"] = 10 * S + random.lognormal(15, 1, 4000).astype(np.int64)
    rows["outcome"] = np.where(random.random(4000) < 0.9, Outcome.established, Outcome.refused)
    table = process_table(Trace(rows, S, 61 * S)).set_index("pid")
    assert len(table) >= 3
    for pid in table.index.tolist():
        mine = rows[(rows["pid"] == pid) & (rows["outcome"] == Outcome.established)]
        took_ns = mine["end_ns"] - mine["syn_ns"]
        for share in (50, 95, 99) if len(mine) else ():
            assert table[f"p{share}_ns"][pid] == np.percentile(took_ns, share)
