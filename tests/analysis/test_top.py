"""Rows of the moment: who waits, for how long, where; and what is kept of a long trace."""

import numpy as np
import pytest

from builders import MS, NEVER, S, events, packed
from porttrace.analysis.assemble import held_rows
from porttrace.analysis.attempts import Open, pending, step
from porttrace.analysis.model import ATTEMPT, Attempts, Finding, Party, Process, no_attempts
from porttrace.analysis.top import (
    SORTS,
    ProcessNow,
    Tally,
    in_order,
    latest,
    look,
    newest,
    place,
    sorted_by,
)
from porttrace.tracer.event import Events
from porttrace.tracer.facts import Held


def waiting_of(story: Events) -> Attempts:
    return pending(step(story, Open(), 0)[1])


def finished_of(story: Events) -> Attempts:
    return step(story, Open(), NEVER)[0]


def rows_of(waiting: Attempts, tally: Tally | None = None, **more: object) -> dict[int, ProcessNow]:
    told = {"known": {}, "pids": (), "findings": (), "now_ns": 10 * S, "interval_s": 2.0, **more}
    rows = look(waiting, tally or Tally(), **told)  # type: ignore[arg-type]
    return {row.process.pid: row for row in rows}


def at_gate(pid: int, since_ns: int) -> Attempts:
    return held_rows([Held(pid, pid, "gate", since_ns, "web", packed("192.0.2.2"), 389, ())])


def test_one_in_flight_and_one_held() -> None:
    story = events()
    story.connect(pid=7, tid=7, at=9 * S).syn_sent()
    waiting = np.concatenate([waiting_of(story.array()), at_gate(7, 4 * S)])
    row = rows_of(waiting)[7]
    assert (row.in_flight, row.demand, row.held) == (1, 2, 1)
    assert (row.worst_ns, row.worst_at) == (6 * S, "gate")


def test_one_that_was_held_and_went_on_is_not_held_now() -> None:
    story = events()
    story.connect(pid=7, at=9 * S, held_ns=3 * S).syn_sent()
    row = rows_of(waiting_of(story.array()))[7]
    assert (row.in_flight, row.demand, row.held, row.worst_at) == (1, 1, 0, "sent")
    assert row.worst_ns == 10 * S - 6 * S  # the wait of its caller began at the gate


def test_a_moment_at_the_gate_is_no_hold() -> None:
    assert rows_of(at_gate(7, 10 * S - 9 * MS))[7].held == 0
    assert rows_of(at_gate(7, 10 * S - 10 * MS))[7].held == 1


def standing(**marks: int) -> np.void:
    row = np.zeros(1, ATTEMPT)
    for name, value in {"call_ns": 1, "syn_ns": 2, **marks}.items():
        row[name] = value
    found: np.void = row[0]
    return found


@pytest.mark.parametrize(
    ("marks", "where"),
    [
        ({"call_ns": 0, "syn_ns": 0, "gate_ns": 1}, "gate"),
        ({"syn_ns": 0}, "connect"),
        ({}, "sent"),
        ({"watched": 1}, "sent"),
        ({"watched": 1, "retransmits": 1}, "egress"),
        ({"wire_ns": 3}, "network"),
        ({"wire_ns": 3, "answer_ns": 4, "answer": 3}, "network"),  # an ICMP error may be ignored
        ({"wire_ns": 3, "answer_ns": 4, "answer": 1}, "ingress"),
    ],
)
def test_where_it_stands(marks: dict[str, int], where: str) -> None:
    assert place(standing(**marks)) == where


def test_rates_are_of_the_interval_and_counted_once() -> None:
    story, tally = events(), Tally()
    for number in range(5):
        story.connect(pid=7, tid=number + 1, at=number * S, comm=b"web").syn_sent().established()
    story.connect(pid=7, tid=9, at=6 * S, comm=b"web").syn_sent().refused()
    story.connect(pid=8, tid=10, at=6 * S).syn_sent().cancelled()
    for row in finished_of(story.array()):
        tally.add(np.array([row]))
    rows = rows_of(no_attempts(), tally)
    assert (rows[7].connects_per_s, rows[7].failures_per_s) == (3.0, 0.5)
    assert (rows[8].connects_per_s, rows[8].failures_per_s) == (0.5, 0.5)
    assert rows[7].process == Process(7, comm="web")
    assert rows_of(no_attempts(), tally) == {}


def test_the_process_has_its_own_name() -> None:
    known = {7: Process(7, comm="website")}
    assert rows_of(at_gate(7, S), known=known)[7].process.comm == "website"
    assert rows_of(at_gate(7, S))[7].process.comm == "web"


def finding(severity: str, confidence: float, pid: int = 0, victim: int = 0) -> Finding:
    victims = (Party(1, victim, victim, "web", "192.0.2.2:80", "established", 1.0, 0),)
    return Finding(
        "serialized-connects", severity, confidence, {"pids": [pid]} if pid else {}, "web waits",
        victims=victims if victim else (),
    )  # fmt: skip


def test_verdicts_stand_by_those_they_are_about() -> None:
    worst, likely = finding("critical", 0.9, pid=7), finding("warning", 0.6, victim=8)
    both = finding("critical", 0.6, pid=8)
    rows = rows_of(no_attempts(), findings=[likely, both, worst])
    assert rows[7].findings == (worst,)
    assert rows[8].findings == (both, likely)
    assert in_order([likely, both, worst]) == [worst, both, likely]


def test_those_that_were_asked_for_are_there_when_idle() -> None:
    assert rows_of(no_attempts(), pids=[7])[7].demand == 0


def now(pid: int, **numbers: object) -> ProcessNow:
    told = {"in_flight": 0, "demand": 0, "held": 0, "worst_ns": 0, "worst_at": "",
            "connects_per_s": 0.0, "failures_per_s": 0.0, **numbers}  # fmt: skip
    return ProcessNow(Process(pid, comm=f"p{9 - pid}"), **told)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SORTS)
def test_every_order(name: str) -> None:
    fields = {
        "in-flight": "in_flight", "demand": "demand", "held": "held", "worst": "worst_ns",
        "connects": "connects_per_s", "failures": "failures_per_s",
    }  # fmt: skip
    if name == "verdict":
        rows = [now(1), now(2, findings=(finding("info", 0.9),)),
                now(3, findings=(finding("critical", 0.9),))]  # fmt: skip
    else:
        rows = [now(pid, **({fields[name]: pid} if name in fields else {})) for pid in (1, 2, 3)]
    expected = [1, 2, 3] if name == "pid" else [3, 2, 1]
    assert [row.process.pid for row in sorted_by(rows, name)] == expected
    assert [row.process.pid for row in sorted_by(rows, name, True)] == expected[::-1]


def test_equal_rows_are_in_order_of_pids() -> None:
    assert [row.process.pid for row in sorted_by([now(3), now(1), now(2)], "held")] == [1, 2, 3]


def test_the_keys_are_first_letters() -> None:
    letters = [name[0] for name in SORTS]
    assert len({*letters, "q", "r"}) == len(letters) + 2


def many(*pids: int) -> Attempts:
    rows = np.zeros(len(pids), ATTEMPT)
    rows["pid"], rows["end_ns"] = pids, np.arange(len(pids)) + 1
    return rows


def test_one_that_storms_does_not_push_out_the_others() -> None:
    rows = many(*[7] * 500, 8, *[7] * 500, 8, 9)
    kept = newest(rows, 100)
    assert len(kept) <= 100
    pids, counts = np.unique(kept["pid"], return_counts=True)
    assert dict(zip(pids.tolist(), counts.tolist(), strict=True)) == {7: 97, 8: 2, 9: 1}
    assert kept["end_ns"].tolist() == sorted(kept["end_ns"].tolist())
    assert kept["end_ns"][kept["pid"] == 7].tolist() == [*range(905, 1002)]


def test_of_one_that_storms_the_latest_are_kept() -> None:
    kept = newest(many(*[7] * 10, *[8] * 2), 6)
    assert kept["end_ns"].tolist() == [7, 8, 9, 10, 11, 12]


def test_more_processes_than_rows() -> None:
    assert len(newest(many(*range(1, 50)), 10)) == 10


def test_few_are_kept_as_they_are() -> None:
    assert len(newest(many(1, 2, 3), 3)) == 3


def test_what_is_over_for_long_is_let_go() -> None:
    assert latest([many(1, 2), many(3)], 2, 10)["pid"].tolist() == [2]
    assert len(latest([], 0, 10)) == 0
