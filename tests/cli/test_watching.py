"""What is watched is counted once, kept for a while only, and never more than so much."""

import time
from collections.abc import Sequence
from typing import Self, cast

import numpy as np
import pytest

from builders import S, events
from fakelive import FakeLive, Story
from porttrace.analysis.model import Process
from porttrace.analysis.top import Now
from porttrace.cli import session as session_module
from porttrace.cli import watching as module
from porttrace.cli.session import Session
from porttrace.cli.watching import Watch
from porttrace.tracer.event import Events
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.options import TraceOptions

ALL = TraceOptions()


class Looks:
    """Keeps every look that it is shown."""

    over = False

    def __init__(self) -> None:
        self.seen: list[Now] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, now: Now, about: Sequence[str]) -> None:
        self.seen.append(now)

    def turn(self) -> None:
        pass


def watch_of(
    story: Story,
    interval_s: float = 1e-6,
    options: TraceOptions = ALL,
    looks: Looks | None = None,
) -> Watch:
    live = cast(LiveTrace, FakeLive(options, story, time.monotonic_ns()))
    return Watch(live, looks or Looks(), interval_s, 300)


def rounds(number: int, each: int, since_ns: int = 0) -> list[Events]:
    told = []
    for at in range(number):
        story = events()
        for tid in range(each):
            story.connect(pid=7, tid=tid + 1, at=since_ns + (at + 1) * S).syn_sent().established()
        # a later event finishes them
        story.connect(pid=8, tid=99, at=since_ns + (at + 1) * S + S // 2).syn_sent().refused()
        told.append(story.array())
    return told


def test_every_attempt_is_counted_once() -> None:
    looks = Looks()
    watch = watch_of(Story(rounds(5, 3)), looks=looks)
    for _ in range(8):
        watch.turn()
    assert len(looks.seen) == 8
    counted = {7: 0.0, 8: 0.0}
    for each in looks.seen:
        for row in each.processes:
            counted[row.process.pid] += row.connects_per_s * each.interval_s
    # the very last one may still be changed by what follows
    assert counted == {7: pytest.approx(15), 8: pytest.approx(4)}


def test_a_look_comes_when_it_is_due() -> None:
    looks = Looks()
    watch = watch_of(Story(rounds(2, 1)), interval_s=1000, looks=looks)
    for _ in range(4):
        watch.turn()
    assert watch.last is None and not looks.seen


def test_lost_events_are_summed() -> None:
    lost = [events().loss(S, S, 4).array(), events().loss(2 * S, 2 * S, 3).array()]
    watch = watch_of(Story(lost), interval_s=1000)
    for _ in range(3):
        watch.turn()
    watch.show()
    assert watch.last and watch.last.lost_events == 7


def test_without_a_target_it_says_what_does_not_show() -> None:
    assert "do not show" in watch_of(Story()).about[-1]
    targeted = watch_of(Story(), options=TraceOptions(pids=frozenset((7,)))).about
    assert len(targeted) == 1 and targeted[0].startswith("pid 7; tracepoint mode")


def test_it_says_how_far_back_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ATTEMPTS", 20)
    watch = watch_of(Story(rounds(5, 8, time.monotonic_ns())))
    assert watch.about[0].endswith("last 300s")
    for _ in range(8):
        watch.turn()
    assert watch.about[0].endswith("last 20 attempts")


def test_what_is_kept_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ATTEMPTS", 20)
    monkeypatch.setattr(module, "MOST_PROCESSES", 5)
    monkeypatch.setattr(session_module, "MANY_PROCESSES", 5)
    told, now_ns = [], time.monotonic_ns()
    for at in range(30):
        story = events()
        for pid in range(10):
            number = 5_000_000 + 10 * at + pid  # above the kernel's largest: nobody has it
            story.connect(pid=number, tid=number, at=now_ns + (at + 1) * S).syn_sent().established()
        told.append(story.array())
    known = [Process(5_000_000 + number, comm="web") for number in range(300)]
    watch = watch_of(Story(told, processes=known))
    for _ in range(32):
        watch.turn()
    session = watch._session
    assert 0 < sum(map(len, session._rows)) <= 20
    assert len(watch._seen_s) <= 5
    assert len(session.processes) <= 20


def test_a_session_lets_go_of_what_was() -> None:
    live = FakeLive(ALL, Story(rounds(4, 2)), S)
    session = Session(cast(LiveTrace, live))
    for _ in range(4):
        session.take(live.read())
    assert len(np.concatenate(session._rows)) > 4
    session.keep_only(3 * S, 100)
    (kept,) = session._rows
    assert len(kept) and kept["end_ns"].min() >= 3 * S
    assert len(session.trace(9 * S).attempts) >= len(kept)
