"""A session grows by rounds and is a whole trace at any moment."""

import time
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from binding import call, listener
from builders import MS, S, events, packed
from fakelive import FakeLive, Story
from porttrace.analysis.model import Outcome, Process
from porttrace.cli import session as module
from porttrace.cli.session import LOOK_NS, Session
from porttrace.tracer.event import no_events
from porttrace.tracer.facts import Held, Looked, NotLooked
from porttrace.tracer.live import LiveTrace, Round
from porttrace.tracer.options import TraceOptions

PID_7 = TraceOptions(pids=frozenset((7,)))


def session_of(story: Story, options: TraceOptions = PID_7) -> tuple[Session, FakeLive]:
    live = FakeLive(options, story)
    return Session(cast(LiveTrace, live)), live


def held(since_ns: int) -> Held:
    return Held(9, 8, "gate", since_ns, "web", packed("192.0.2.9"), 389, ())


def test_rounds_in_rows_out() -> None:
    first = events().connect(at=S).syn_sent().in_progress()
    second = events().connect(at=S).syn_sent().in_progress().established(after_ns=2 * S)
    rest = second.array()[2:]
    session, live = session_of(Story([first.array(), rest], processes=[Process(7, comm="web")]))
    assert len(session.take(live.read(1))) == 0
    assert session.waiting()["outcome"].tolist() == [Outcome.pending]
    assert session.trace(3 * S).attempts["outcome"].tolist() == [Outcome.pending]
    assert len(session.take(live.read(1))) == 0  # its grace is not over
    assert len(session.waiting()) == 0
    assert len(session.take(live.finish())) == 1
    trace = session.trace(9 * S)
    assert trace.attempts["outcome"].tolist() == [Outcome.established]
    assert (trace.start_ns, trace.end_ns, trace.events, trace.filter) == (0, 9 * S, 3, "pid 7")
    assert trace.processes == {7: Process(7, comm="web")}


def test_suspects_are_asked_about_who_was_held_and_once() -> None:
    story = events()
    story.connect(pid=7, tid=1, at=5 * S, held_ns=S).syn_sent().established()
    story.connect(pid=7, tid=2, at=9 * S, held_ns=S).syn_sent().established()
    story.connect(pid=8, tid=3, at=9 * S, held_ns=MS).syn_sent().established()
    story.connect(pid=6, tid=4, at=9 * S, slept_ns=S).syn_sent().established()
    session, live = session_of(Story([story.array()]))
    session.take(live.finish())
    assert live.asked == [6, 7]
    assert set(session.trace(S).suspects) == {6, 7}


def test_suspects_are_asked_about_at_the_beginning_and_again_when_that_is_long_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = [
        events().connect(pid=7, at=n * S, held_ns=S).syn_sent().established().array()
        for n in (5, 9)
    ]
    session, live = session_of(Story(story, not_looked=(NotLooked("a", "b"),)))
    session.begin()
    assert live.asked == [7]
    session.take(live.read(1))
    assert live.asked == [7]
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.0)
    session.take(live.finish())
    assert live.asked == [7, 7]
    assert session.trace(S).not_looked == (NotLooked("a", "b"),)


def test_suspects_are_asked_about_whose_syn_was_sent_again() -> None:
    sent = events().connect(pid=7, at=S).syn_sent().retransmit(after_ns=S)
    session, live = session_of(Story([sent.array()]))
    session.take(live.read(1))
    assert live.asked == []
    session.look()
    assert live.asked == [7]


def test_suspects_are_asked_about_who_is_held_now() -> None:
    now_ns = time.monotonic_ns()
    session, live = session_of(Story(held=[held(now_ns - 20 * MS)]))
    session.look()
    assert live.asked == [9]
    (row,) = session.waiting()
    assert (row["pid"], row["gate_ns"], row["outcome"]) == (9, now_ns - 20 * MS, Outcome.pending)
    assert session.trace(now_ns).attempts["attempt_id"].tolist() == [1]
    briefly, live = session_of(Story(held=[held(time.monotonic_ns())]))
    briefly.look()
    assert live.asked == []


def test_losses_are_kept() -> None:
    session, live = session_of(Story([events().loss(1, 2, count=5).array()]))
    session.take(live.read(1))
    trace = session.trace(S)
    assert [loss.count for loss in trace.losses] == [5]


def test_old_rows_are_let_go_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 2)
    rounds = [events().connect(at=n * S).syn_sent().established().array() for n in range(1, 6)]
    session, live = session_of(Story(rounds))
    for _ in rounds:
        session.take(live.read(1))
    session.take(live.finish())
    trace = session.trace(9 * S)
    assert trace.attempts["attempt_id"].tolist() == [4, 5]
    assert "3 oldest attempts are not in the tables" in " ".join(trace.notes)


def test_notes_about_what_the_kernel_could_not_keep() -> None:
    session, live = session_of(Story())
    live.story.counters = replace(
        live.story.counters, attempts_full=3, calls_full=4, stacks_lost=5, attempts_peak=40_000
    )
    notes = " ".join(session.trace(S).notes)
    for part in (
        "3 attempts found all 65536",
        "4 calls of connect",
        "5 kernel stacks",
        "Up to 40000",
    ):
        assert part in notes
    quiet, _ = session_of(Story())
    assert quiet.trace(S).notes == ()


@pytest.mark.parametrize(
    ("options", "missing", "seen"),
    [
        (PID_7, [], True),
        (PID_7, ["no holds before the call are seen"], False),
        (PID_7, ["no errno of non-blocking connects"], True),
        (TraceOptions(), [], False),
    ],
)
def test_whether_gates_were_watched(options: TraceOptions, missing: list[str], seen: bool) -> None:
    session, _ = session_of(Story(missing=missing), options)
    trace = session.trace(S)
    assert trace.gates_seen is seen
    for cost in missing:
        assert f"Not available on this host: {cost}." in trace.notes
    assert any("whole host" in note for note in trace.notes) is not options.targeted


def test_a_bind_that_failed_waits_for_who_holds_the_port() -> None:
    now_ns = time.monotonic_ns()
    session, _ = session_of(Story())
    bad, good = call(at=now_ns, error=98), call(at=now_ns + 1)
    told = session.take_binds(Round(np.concatenate([bad, good]), now_ns))
    assert told["errno"].tolist() == [0]
    looked = Looked(((now_ns, 7),), (listener(),), {}, 0.001)
    told = session.take_binds(Round(no_events(), now_ns, looked=(looked,)))
    assert told["errno"].tolist() == [98]
    assert session.trace(now_ns + S).looked[now_ns, 7] == looked
    assert len(session.trace(now_ns + S).binds) == 2


def test_it_does_not_wait_for_ever() -> None:
    session, _ = session_of(Story())
    assert len(session.take_binds(Round(call(at=time.monotonic_ns(), error=98), 1))) == 0
    assert len(session.take_binds(Round(no_events(), 1), last=True)) == 1
    old = call(at=time.monotonic_ns() - LOOK_NS - 1, error=98)
    assert len(session.take_binds(Round(old, 1))) == 1


def test_old_binds_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porttrace.cli.session.MAX_BINDS", 10)
    session, _ = session_of(Story())
    for at in range(1, 31):
        looked = Looked(((at, 7),), (), {}, 0.001)
        session.take_binds(Round(call(at=at, error=98), at, looked=(looked,)))
    trace = session.trace(S)
    assert trace.binds["time_ns"].tolist() == list(range(21, 31))
    assert sorted(trace.looked) == [(at, 7) for at in range(21, 31)]
