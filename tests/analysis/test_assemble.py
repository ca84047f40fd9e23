"""A trace holds what is over, what is open and what is held, in order and counted."""

import numpy as np
import pytest

from builders import MS, S, events, packed
from porttrace.analysis.assemble import assemble, exits_of, held_rows, losses_of
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.model import Loss, Outcome, Trace, no_attempts, start_ns
from porttrace.tracer.event import EventType, Flag, no_events
from porttrace.tracer.facts import Held

ABOUT = Trace(no_attempts(), 0, 60 * S)


def held(tid: int = 8, place: str = "gate", since_ns: int = S, **more: object) -> Held:
    fields = {"comm": "web", "daddr": packed("192.0.2.9"), "dport": 389, "frames": (), **more}
    return Held(7, tid, place, since_ns, **fields)  # type: ignore[arg-type]


def test_losses() -> None:
    story = events().loss(1, 2, count=3, cpu=4).loss(5, 6)
    story.connect().syn_sent()
    assert losses_of(story.array()) == (Loss(1, 2, 4, 3), Loss(5, 6, 0, 1))
    assert losses_of(no_events()) == ()


def test_exits() -> None:
    story = events()
    story.add(EventType.EXIT, 9 * S, pid=7, tid=71, flags=Flag.LAST_THREAD)
    story.add(EventType.EXIT, 5 * S, pid=7, tid=7)  # the main thread, before the last one
    story.add(EventType.EXIT, 3 * S, pid=8, tid=8)  # where the kernel marks no last thread
    story.add(EventType.EXIT, 2 * S, pid=9, tid=91)
    story.connect(pid=9).syn_sent().established()
    assert exits_of(story.array()) == {7: 9 * S, 8: 3 * S}
    assert exits_of(no_events()) == {}


@pytest.mark.parametrize("place", ["gate", "connect"])
def test_a_held_thread_is_a_pending_row(place: str) -> None:
    (row,) = held_rows([held(place=place)])
    marks = {"gate": (S, 0), "connect": (0, S)}[place]
    assert (row["gate_ns"], row["call_ns"]) == marks
    assert (row["pid"], row["tid"], row["comm"], row["dport"]) == (7, 8, b"web", 389)
    assert row["daddr"].tobytes() == packed("192.0.2.9")
    assert (row["family"], row["outcome"], row["complete"]) == (2, Outcome.pending, True)
    assert (row["fd"], row["blocking"], row["gate_stack"]) == (-1, -1, -1)


def test_a_held_thread_may_have_any_name() -> None:
    name = b"\xff\x1b\xe2\x80\xae"
    (row,) = held_rows([held(comm=name.decode(errors="surrogateescape"))])
    assert bytes(row["comm"]) == name


def test_nothing_assembles_to_nothing() -> None:
    trace = assemble(ABOUT, [], Open())
    assert len(trace.attempts) == len(held_rows([])) == 0


def test_rows_are_in_order_of_their_first_mark_with_ids_of_their_own() -> None:
    story = events()
    story.connect(tid=1, at=10 * S).syn_sent().established()
    story.connect(tid=2, at=5 * S).syn_sent().in_progress()
    story.connect(tid=3, at=20 * S, held_ns=19 * S).syn_sent().established()
    rows, still = step(story.array(), Open(), 50 * S)
    trace = assemble(ABOUT, [rows], still, [held(tid=4, since_ns=15 * S)])
    assert trace.attempts["tid"].tolist() == [3, 2, 1, 4]
    assert (np.diff(start_ns(trace.attempts)) > 0).all()
    assert sorted(trace.attempts["attempt_id"].tolist()) == [1, 2, 3, 4]
    assert trace.attempts["demand_at_start"].tolist() == [1, 2, 3, 3]
    assert trace.attempts["in_flight_at_start"].tolist() == [2, 1, 2, 1]


def test_losses_touch_rows() -> None:
    story = events()
    story.connect(tid=1, at=S).syn_sent().established(after_ns=MS)
    story.connect(tid=2, at=S).syn_sent()
    rows, still = step(story.array(), Open(), 50 * S)
    about = Trace(no_attempts(), 0, 60 * S, losses=(Loss(10 * S, 11 * S, 0, 1),))
    trace = assemble(about, [rows], still)
    assert [Outcome(int(o)).name for o in trace.attempts["outcome"]] == ["established", "unknown"]
    assert trace.attempts["complete"].tolist() == [True, False]


def test_nothing_is_changed_in_place() -> None:
    story = events()
    story.connect().syn_sent().established()
    rows, still = step(story.array(), Open(), 50 * S)
    before = rows.copy()
    assemble(ABOUT, [rows], still)
    assert rows.tolist() == before.tolist()
    assert len(ABOUT.attempts) == 0
