"""Rounds to a trace file, in a thread of its own: reading never waits for encoding or disk.

The queue in front of that thread is bounded. What does not fit is dropped, counted, and stands
in the file as a record of type LOSS once writing goes on; facts about processes are kept.
"""

import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from porttrace.tracer.beside import Beside, End, TraceHeader, trimmed
from porttrace.tracer.conditions import gates_seen, host, notes
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.event import EVENT, Events, EventType, Flag, no_events, together
from porttrace.tracer.facts import Held, Looked, Process, Sample, Suspect
from porttrace.tracer.live import LiveTrace, Round
from porttrace.tracer.memory import most_waiting, spare_bytes
from porttrace.tracer.parts import Parts
from porttrace.tracer.tracefile import TraceWriter

Carry = Callable[[Events, Events, int], Events]
"""(events still open, new events, watermark) -> events still open after them."""

_EVERY_CPU = 0xFFFF
_HEARTBEAT_NS = 10_000_000_000
_MOST_SAMPLES = 1000  # that wait for a disk that stands still


@dataclass(frozen=True)
class Pace:
    """How much is written at once, and how much may wait."""

    flush_s: float = 0.2
    least_rows: int = 16_384  # a batch is written sooner when so many wait
    most_rows: int = 16_384  # and has no more than these
    queue_bytes: int = 64 << 20


@dataclass
class _Waiting:
    # What the writer has not taken yet.
    events: list[Events] = field(default_factory=list)
    rows: int = 0
    watermark_ns: int = 0
    processes: dict[int, Process] = field(default_factory=dict)
    stacks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    suspects: dict[int, tuple[Suspect, ...]] = field(default_factory=dict)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=_MOST_SAMPLES))
    held: tuple[Held, ...] | None = None
    looked: list[Looked] = field(default_factory=list)
    end: End | None = None


class Recorder:
    """Writes rounds to `parts` until `finish`. Use as a context manager.

    Leaving it without `finish` ends the file as it stands: readable, and not complete. With
    rotation, `carry` tells which events the next part needs.
    """

    def __init__(
        self,
        parts: Parts,
        header: TraceHeader,
        carry: Carry | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.parts = parts
        self.error: BaseException | None = None
        self.events = self.lost = 0  # written; lost in the kernel or on the way to the disk
        room = most_waiting(spare_bytes(), Pace.queue_bytes)
        self._pace = pace or Pace(queue_bytes=room)
        self._file = _File(parts, header, carry)
        self._waiting = _Waiting()
        self._dropped = _Dropped()
        self._told: dict[int, tuple[Suspect, ...]] = {}
        self._stopped = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def put(self, done: Round) -> None:
        """Queue a round; returns at once. After an error nothing is kept: see `error`."""
        with self._wake:
            if self.error:
                return
            waiting = self._waiting
            waiting.processes.update(done.processes)
            waiting.stacks.update(done.stacks)
            waiting.looked += done.looked
            waiting.samples.extend(done.samples)
            waiting.watermark_ns = done.watermark_ns
            self._queue(done.events)
            if waiting.rows >= self._pace.least_rows:
                self._wake.notify()

    def _queue(self, events: Events) -> None:
        room = self._pace.queue_bytes - self._waiting.rows * EVENT.itemsize
        if events.nbytes > room:
            self._dropped.add(events)
            return
        for part in (self._dropped.taken(), events):
            if len(part):
                self._waiting.events.append(part)
                self._waiting.rows += len(part)

    def look(self, held: list[Held], suspects: Mapping[int, tuple[Suspect, ...]]) -> None:
        """Queue which threads are held now, and each census that is new."""
        with self._wake:
            self._waiting.held = tuple(held)
            new = {pid: found for pid, found in suspects.items() if self._told.get(pid) != found}
            self._waiting.suspects.update(new)
            self._told.update(new)

    def finish(self, end: End) -> None:
        """Write what waits and the end, bring it to the disk, and close the file.

        Raises what kept the recording from being written: OutputError, BrokenPipeError.
        """
        with self._wake:
            self._waiting.end = end
            self._queue(no_events())
        self._stop()
        if self.error:
            raise self.error

    def _stop(self) -> None:
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join()

    # -- the writer's thread -----------------------------------------------------

    def _run(self) -> None:
        try:
            while self._round():
                pass
            self._file.close()
        except BaseException as error:
            with self._wake:
                self.error, self._waiting = error, _Waiting()
            self._file.give_up()

    def _round(self) -> bool:
        with self._wake:
            if not self._stopped and self._waiting.rows < self._pace.least_rows:
                self._wake.wait(self._pace.flush_s)
            taken, self._waiting = self._waiting, _Waiting(watermark_ns=self._waiting.watermark_ns)
            stopped = self._stopped
        self._write(taken)
        return not stopped

    def _write(self, taken: _Waiting) -> None:
        events = together(taken.events)
        self.events += len(events)
        self.lost += lost_in(events)
        most = self._pace.most_rows
        pieces = [events[at : at + most] for at in range(0, len(events), most)] or [events]
        facts = Beside(
            processes=taken.processes,
            stacks=taken.stacks,
            suspects=taken.suspects,
            looked=tuple(taken.looked),
        )
        for number, piece in enumerate(pieces[:-1], 1):
            # Sorted by time: nothing older than what is next will come.
            watermark_ns = min(int(pieces[number]["time_ns"][0]), taken.watermark_ns)
            self._file.write(piece, dataclasses.replace(facts, watermark_ns=watermark_ns))
            facts = Beside()
        last = dataclasses.replace(
            facts,
            watermark_ns=taken.watermark_ns,
            samples=tuple(taken.samples),
            held=taken.held,
            end=taken.end,
        )
        self._file.write(pieces[-1], last)


class _Dropped:
    # Events that found the queue full, until they are told as one LOSS record.
    def __init__(self) -> None:
        self._count = self._first_ns = self._last_ns = 0

    def add(self, events: Events) -> None:
        """Count the rows, at least one, of a batch not kept; LOSS rows as what they tell of."""
        times = events["time_ns"]
        self._first_ns = self._first_ns if self._count else int(times.min())
        self._last_ns = max(self._last_ns, int(times.max()))
        losses = int((events["type"] == EventType.LOSS).sum())
        self._count += len(events) - losses + lost_in(events)

    def taken(self) -> Events:
        """Return one LOSS row for all since the last time, no row for none."""
        if not self._count:
            return no_events()
        events = np.zeros(1, EVENT)
        events["type"], events["cpu"], events["in_flight"] = EventType.LOSS, _EVERY_CPU, self._count
        events["start_ns"], events["time_ns"] = self._first_ns, self._last_ns
        events["fd"] = events["gate_stack"] = events["connect_stack"] = -1
        self._count = self._first_ns = self._last_ns = 0
        return events


def lost_in(events: Events) -> int:
    """Return how many events the LOSS records among `events` stand for."""
    return int(events["in_flight"][events["type"] == EventType.LOSS].sum())


class _File:
    # The open part, and what the next one must begin with.
    def __init__(self, parts: Parts, header: TraceHeader, carry: Carry | None) -> None:
        self._parts, self._header = parts, header
        self._carry = carry if parts.rotation else None
        self._open = no_events()
        self._facts = _Facts()
        self._samples = _Samples()
        self._held: tuple[Held, ...] = ()
        self._written_ns = 0  # the first batch, which brings the header, is written at once
        self._begin(header)

    def _begin(self, header: TraceHeader) -> None:
        header = dataclasses.replace(header, part=self._parts.number)
        self._ended = False
        self._writer = TraceWriter(lambda data: self._parts.open.write(data), header)

    def write(self, events: Events, beside: Beside) -> None:
        """Write a batch if it tells something, and begin the next part if this one is full."""
        if self._is_idle(events, beside):
            return
        self._written_ns = time.monotonic_ns()
        self._held = self._held if beside.held is None else beside.held
        samples = self._samples.trimmed(beside.samples)
        beside = dataclasses.replace(beside, wall_offset_ns=wall_offset_ns(), samples=samples)
        turning = bool(self._parts.rotation) and self._parts.full and not beside.end
        if self._carry:
            self._open = self._carry(self._open, events, beside.watermark_ns)
            self._facts.add(beside, events)
        if not turning:
            self._writer.write(events, beside)
            self._ended = beside.end is not None
            return
        end = End(beside.watermark_ns, notes=self._header.notes, continues=True)
        self._writer.write(events, dataclasses.replace(beside, end=end))
        self._turn(beside)

    def _is_idle(self, events: Events, beside: Beside) -> bool:
        # Nothing to tell but that time goes on, which is told now and then.
        told = (beside.processes, beside.stacks, beside.suspects, beside.looked, beside.samples)
        news = any(told) or beside.end
        held = beside.held if beside.held is not None else self._held
        if len(events) or news or held != self._held:
            return False
        return time.monotonic_ns() - self._written_ns < _HEARTBEAT_NS

    def _turn(self, beside: Beside) -> None:
        self._writer.close()
        self._parts.next()
        start_ns, offset_ns = beside.watermark_ns, beside.wall_offset_ns
        self._begin(dataclasses.replace(self._header, start_ns=start_ns, wall_offset_ns=offset_ns))
        about = self._facts.beside(beside.watermark_ns, self._held, len(self._open))
        self._writer.write(self._open, dataclasses.replace(about, samples=self._samples.latest()))
        self._facts.forget_gone()

    def close(self) -> None:
        """Close the part, with the mark behind the last batch that says that all are there."""
        if self._ended:
            self._writer.close()
        self._parts.open.close()

    def give_up(self) -> None:
        """Close the part as it is, without a mark behind it, after an error."""
        with contextlib.suppress(PorttraceError):
            self._parts.open.close()


class _Samples:
    # The latest of each namespace: what the next one need not say again.
    def __init__(self) -> None:
        self._latest: dict[int, Sample] = {}

    def trimmed(self, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        """Return samples without what the last one of their namespace said already."""
        found = []
        for sample in samples:
            found.append(trimmed(sample, self._latest.get(sample.netns)))
            self._latest[sample.netns] = sample
        return tuple(found)

    def latest(self) -> tuple[Sample, ...]:
        """Return the last sample of each namespace, whole."""
        return tuple(self._latest.values())


class _Facts:
    # Everything told in the parts so far that still matters.
    def __init__(self) -> None:
        self._processes: dict[int, Process] = {}
        self._stacks: dict[int, tuple[str, ...]] = {}
        self._suspects: dict[int, tuple[Suspect, ...]] = {}
        self._gone: set[int] = set()

    def add(self, beside: Beside, events: Events) -> None:
        """Keep what came beside a batch, and note which processes ended in it."""
        self._processes.update(beside.processes)
        self._stacks.update(beside.stacks)
        self._suspects.update(beside.suspects)
        ended = (events["type"] == EventType.EXIT) & ((events["flags"] & Flag.LAST_THREAD) != 0)
        self._gone |= set(events["pid"][ended].tolist())
        self._gone -= beside.processes.keys()

    def beside(self, watermark_ns: int, held: tuple[Held, ...], carried: int) -> Beside:
        """Return what a new part begins with; its first `carried` events are of open attempts."""
        return Beside(
            watermark_ns, wall_offset_ns(), dict(self._processes), dict(self._stacks),
            dict(self._suspects), held, carried,
        )  # fmt: skip

    def forget_gone(self) -> None:
        """Forget those that ended; only now: an attempt that was open may have been theirs."""
        for pid in self._gone:
            self._processes.pop(pid, None)
            self._suspects.pop(pid, None)
        self._gone.clear()


def wall_offset_ns() -> int:
    """Return what a mark needs added to be wall clock time, ns."""
    return time.time_ns() - time.monotonic_ns()


def header(live: LiveTrace) -> TraceHeader:
    """Return the header of a recording of `live`, part 1 if it has parts."""
    options, missing = live.options, live.probe.missing
    return TraceHeader(
        start_ns=live.start_ns,
        wall_offset_ns=wall_offset_ns(),
        host=host(live.probe, bool(live.watches)),
        filter=options.describe(),
        gates_seen=gates_seen(options, missing),
        notes=notes(options, missing, live.counters()),
        watches={str(number): since_ns for number, since_ns in live.watches.items()},
    )


def end(live: LiveTrace, end_ns: int) -> End:
    """Return what is to be said at the end of a recording of `live`."""
    counters = live.counters()
    said = (*notes(live.options, live.probe.missing, counters), *live.sampling_notes())
    counted = dataclasses.asdict(counters)
    return End(end_ns, counted, said, not_looked=live.not_looked)
