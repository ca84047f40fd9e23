"""A live trace of a story: the rounds that a kernel would give, without a kernel."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from porttrace.tracer.event import Events, no_events
from porttrace.tracer.facts import Held, NotLooked, Process, Suspect
from porttrace.tracer.live import Round
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.order import FOREVER_NS, FinishedRounds
from porttrace.tracer.probe import Counters

NOTHING_COUNTED = Counters(0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass
class Story:
    """What a `FakeLive` tells: events a round, and what stands still meanwhile."""

    rounds: Sequence[Events] = ()
    held: Sequence[Held] = ()
    missing: Sequence[str] = ()
    counters: Counters = NOTHING_COUNTED
    processes: Sequence[Process] = ()
    not_looked: tuple[NotLooked, ...] = ()


class FakeLive:
    """Has the methods of `LiveTrace`; time begins at 0 unless told otherwise."""

    def __init__(self, options: TraceOptions, story: Story, start_ns: int = 0) -> None:
        self.options, self.story, self.start_ns = options, story, start_ns
        self.probe = SimpleNamespace(missing=list(story.missing), mode="tracepoint")
        self.watches: dict[int, int] = {}
        self.asked: list[int] = []
        self.reads = 0
        self.closed = False
        self._left = list(story.rounds)
        self._order = FinishedRounds()

    def __enter__(self) -> "FakeLive":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def read(self, timeout_ms: int = 50) -> Round:
        self.reads += 1
        time.sleep(0.001)
        return self._round(self._left.pop(0) if self._left else no_events(), final=False)

    def finish(self) -> Round:
        while len(self._left) > 1:
            self._order.push(self._left.pop(0), 0)
        return self._round(self._left.pop(0) if self._left else no_events(), final=True)

    def _round(self, events: Events, final: bool) -> Round:
        # A story's rounds are final as they come: its last event is its watermark.
        last = int(events["time_ns"].max(initial=self._order.watermark_ns))
        self._order.watermark_ns = FOREVER_NS if final else last
        known = {p.pid: p for p in self.story.processes} if self.reads < 2 else {}
        return Round(events, self._order.watermark_ns, known)

    def held(self) -> list[Held]:
        return list(self.story.held)

    def knows(self, pid: int) -> bool:
        return any(process.pid == pid for process in self.story.processes)

    def sweep(self) -> frozenset[int]:
        return frozenset()

    def suspects_of(self, pid: int) -> tuple[Suspect, ...]:
        self.asked.append(pid)
        return (Suspect("ptrace", "gate", f"somebody traces {pid}", f"/proc/{pid}/status"),)

    @property
    def not_looked(self) -> tuple[NotLooked, ...]:
        return self.story.not_looked

    def sampling_notes(self) -> tuple[str, ...]:
        return ()

    def counters(self) -> Counters:
        return self.story.counters
