"""From a trace file to a `Trace` and its tables: what was recorded, read again anywhere.

Needs no root, no bcc and no Linux. The file is read batch by batch through the same
`attempts.step` and `assemble` that a live trace uses, so both find the same.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from porttrace.analysis import attempts
from porttrace.analysis.accepts import accepted_of
from porttrace.analysis.assemble import assemble_columns, exits_of, losses_of, watches_of
from porttrace.analysis.binds import binds_of, joined_binds
from porttrace.analysis.eventcolumns import EventColumns, Part
from porttrace.analysis.findings import diagnose
from porttrace.analysis.held import still_held
from porttrace.analysis.model import (
    Accepted,
    AcceptKey,
    Binds,
    Columns,
    Finding,
    Looked,
    Loss,
    Process,
    Suspect,
    Trace,
    no_attempts,
)
from porttrace.analysis.rows import joined
from porttrace.analysis.samples import MOST_SAMPLES, thinned
from porttrace.tracer.beside import Beside, End, TraceHeader, filled
from porttrace.tracer.event import EVENT, Events, EventType
from porttrace.tracer.facts import Held, Sample
from porttrace.tracer.tracefile import Batch, TraceReader

if TYPE_CHECKING:
    import pandas as pd

    from porttrace.analysis.summary import Trust

_T = TypeVar("_T")

# Rows that are joined to attempts at once: what is done with so many stays in the cache.
_AT_ONCE = 16_384
_UNENDING_NS = 1 << 61
_IS_OTHER = ~np.isin(np.arange(256), attempts.KINDS)  # by type
_ENDS = (EventType.END, EventType.ERROR)


@dataclass(frozen=True)
class Recording:
    """One trace file as it was read: `trace` at once, tables and findings when asked for."""

    path: str
    header: TraceHeader
    trace: Trace
    complete: bool
    why_incomplete: str  # one sentence, "" when complete

    @cached_property
    def events(self) -> Events:
        """All events, dtype EVENT, in the order of the file; read from it again when asked for.

        Raises TraceFileError; standard input cannot be read twice.
        """
        with TraceReader(self.path) as reader:
            return joined((batch.events for batch in reader), EVENT)

    @cached_property
    def attempts(self) -> "pd.DataFrame":
        """One row per attempt, see `frames.attempts_table`."""
        from porttrace.analysis.frames import attempts_table

        return attempts_table(self.trace)

    @cached_property
    def accepts(self) -> "pd.DataFrame":
        """One row per connection that was accepted, see `tables.accepts`; reads the file again."""
        from porttrace.analysis.tables import accepts

        return accepts(self.events)

    @cached_property
    def binds(self) -> "pd.DataFrame":
        """One row per call of bind(2) or listen(2), see `frames.binds_table`."""
        from porttrace.analysis.frames import binds_table

        return binds_table(self.trace)

    @cached_property
    def samples(self) -> "pd.DataFrame":
        """One row per sample of a network namespace, see `sampletables.samples`."""
        from porttrace.analysis.sampletables import samples

        return samples(self.trace)

    @cached_property
    def port_use(self) -> "pd.DataFrame":
        """One row per count of local ports in use, see `sampletables.port_use`."""
        from porttrace.analysis.sampletables import port_use

        return port_use(self.trace)

    def concurrency(self, scope: str = "process") -> "pd.DataFrame":
        """Return how many are in flight and in demand: columns scope, time_ns, in_flight, demand.

        Raises ValueError for an unknown scope.
        """
        from porttrace.analysis.frames import concurrency_table

        return concurrency_table(self.trace, scope)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What all rules find."""
        return diagnose(self.trace)

    @cached_property
    def trust(self) -> "Trust":
        """What limits the statements of this recording; a cut file is never complete."""
        from porttrace.analysis.summary import trust

        found = trust(self.trace)
        return dataclasses.replace(found, complete=found.complete and self.complete)


def load(path: str | Path) -> Recording:
    """Read a trace file (`-`: standard input). Memory is that of its attempts, not its events.

    Raises TraceFileError, which says what is wrong with the file and what to do.
    """
    with TraceReader(path) as reader:
        growing = _Growing(reader.header)
        chunks = in_chunks(reader)
        # Who waits for a pipe can be interrupted only where no thread does it for him.
        for chunk in ahead(chunks) if Path(path).is_file() else chunks:
            growing.add(chunk)
        why = f"The recording is incomplete: {reader.why_incomplete}."
        trace = growing.trace(() if reader.complete else (why,))
        return Recording(reader.path, reader.header, trace, reader.complete, reader.why_incomplete)


def ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Yield the items while a thread gets the next one: reading a file and joining it overlap.

    What getting one raises is raised here.
    """
    coming = iter(items)
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, coming, None)
        while (item := following.result()) is not None:
            following = reader.submit(next, coming, None)
            yield item


def in_chunks(batches: Iterable[Batch], rows: int = _AT_ONCE) -> Iterator[list[Batch]]:
    """Yield the batches in lists of at least `rows` events, the last one with what is left."""
    chunk: list[Batch] = []
    for batch in batches:
        chunk.append(batch)
        if sum(len(each.events) for each in chunk) >= rows:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Growing:
    # A trace while its file is read; each part of it as in a live session.
    def __init__(self, header: TraceHeader) -> None:
        self._about = Trace(
            no_attempts(), header.start_ns, header.start_ns, host=header.host,
            filter=header.filter, wall_offset_ns=header.wall_offset_ns,
            gates_seen=header.gates_seen, notes=header.notes,
        )  # fmt: skip
        self._open = attempts.Open()
        self._waiting: list[Part] = []  # not joined to attempts yet
        self._watermark_ns = 0
        self._rows: list[Columns] = []
        self._binds: list[Binds] = []
        self._looked: dict[tuple[int, int], Looked] = {}
        self._losses: tuple[Loss, ...] = ()
        self._exits: dict[int, int] = {}
        self._accepted: dict[AcceptKey, Accepted] = {}
        self._watches = {int(number): since for number, since in header.watches.items()}
        self._processes: dict[int, Process] = {}
        self._stacks: dict[int, tuple[str, ...]] = {}
        self._suspects: dict[int, tuple[Suspect, ...]] = {}
        self._samples: list[Sample] = []
        self._latest: dict[int, Sample] = {}  # of each network namespace
        self._offset_ns = header.wall_offset_ns
        self._held: list[Held] = []
        self._events = 0
        self._seen_ns, self._end_ns = header.start_ns, 0
        self._continues = False

    def add(self, chunk: list[Batch]) -> None:
        """Take the next batches of the file, at least one. Their events may be joined later."""
        for batch in chunk:
            self._beside(batch.beside, batch.events)
            self._waiting.append((batch.events, batch.columns))
        self._watermark_ns = chunk[-1].beside.watermark_ns
        # What is open is looked at anew each time: never many times for a few events more.
        if sum(len(events) for events, _ in self._waiting) >= len(self._open.events):
            self._join()

    def _join(self) -> None:
        parts, self._waiting = self._waiting, []
        everything = EventColumns(parts)
        if len(everything):
            self._events += len(everything)
            self._seen_ns = max(self._seen_ns, int(everything["time_ns"].max()))
            self._others(everything.rows(np.flatnonzero(_IS_OTHER[everything["type"]])))
        rows, self._open = attempts.step_columns(parts, self._open, self._watermark_ns)
        self._rows.append(rows)

    def _others(self, events: Events) -> None:
        # What tells of no attempt: few among many.
        self._losses += losses_of(events)
        self._binds.append(binds_of(events))
        self._exits.update(exits_of(events))
        self._watches.update(watches_of(events))
        self._accepted = accepted_of(events, self._accepted)

    def _beside(self, beside: Beside, events: Events) -> None:
        self._processes.update(beside.processes)
        self._stacks.update(beside.stacks)
        self._suspects.update(beside.suspects)
        self._looked.update({key: each for each in beside.looked for key in each.keys})
        for sample in beside.samples:
            whole = self._latest[sample.netns] = filled(sample, self._latest.get(sample.netns))
            self._samples.append(whole)
        if len(self._samples) > 2 * MOST_SAMPLES:
            self._samples = [*thinned(self._samples)]
        self._offset_ns = beside.wall_offset_ns or self._offset_ns
        self._held = still_held(self._held if beside.held is None else beside.held, events)
        if beside.watermark_ns < _UNENDING_NS:
            self._seen_ns = max(self._seen_ns, beside.watermark_ns)
        if beside.end:
            self._end(beside.end)

    def _end(self, end: End) -> None:
        self._end_ns = end.end_ns
        self._about = dataclasses.replace(self._about, notes=end.notes, not_looked=end.not_looked)
        self._continues = end.continues

    def trace(self, notes: tuple[str, ...]) -> Trace:
        """Return what was read as one `Trace`, with more notes."""
        if self._waiting:
            self._join()
        about = dataclasses.replace(
            self._about,
            end_ns=self._end_ns or self._seen_ns,
            processes=self._processes,
            stacks=self._stacks,
            suspects=self._suspects,
            accepted=self._accepted,
            samples=thinned(self._samples),
            losses=self._losses,
            exits=self._exits,
            watches=self._watches,
            wall_offset_ns=self._offset_ns,
            binds=joined_binds(self._binds),
            looked=self._looked,
            events=self._events,
            notes=(*self._about.notes, *notes),
        )
        rows, self._rows = self._rows, []
        return assemble_columns(about, rows, self._still_open(), self._held)

    def _still_open(self) -> attempts.Open:
        # The next part begins with all events of what is not finished here, and tells its
        # outcome: what is known of it by now may lack the last word.
        if not self._continues:
            return self._open
        events = self._open.events
        kept = events[~np.isin(events["type"], _ENDS)]
        return dataclasses.replace(self._open, events=kept)
