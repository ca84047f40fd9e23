"""A trace while its recording is read, batch by batch, through what a live trace uses."""

import dataclasses

import numpy as np

from porttrace.analysis import attempts
from porttrace.analysis.accepts import accepted_of
from porttrace.analysis.assemble import assemble_columns, exits_of, losses_of, watches_of
from porttrace.analysis.binds import binds_of, joined_binds
from porttrace.analysis.eventcolumns import EventColumns, Part
from porttrace.analysis.held import still_held
from porttrace.analysis.model import (
    Accepted,
    AcceptKey,
    Binds,
    Columns,
    Looked,
    Loss,
    Process,
    Suspect,
    Trace,
    no_attempts,
)
from porttrace.analysis.samples import MOST_SAMPLES, thinned
from porttrace.tracer.beside import Beside, End, TraceHeader, filled
from porttrace.tracer.event import Events, EventType
from porttrace.tracer.facts import Held, Sample
from porttrace.tracer.tracefile import Batch

_UNENDING_NS = 1 << 61
_IS_OTHER = ~np.isin(np.arange(256), attempts.KINDS)  # by type
_ENDS = (EventType.END, EventType.ERROR)


class Growing:
    """A trace while its file is read; each part of it as in a live session."""

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
        self.finished = 0  # attempts that ended since the last cut
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
        self.finished += len(rows)

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

    def cut(self) -> tuple[Trace, int]:
        """Return what was read since the last cut as one `Trace`, and the number of the next.

        Attempts that can still change stand in it with that number or a higher one (or 0), as
        they are now, and in what the next cut returns once more.
        """
        trace = self.trace(())
        self._about = dataclasses.replace(self._about, start_ns=trace.end_ns)
        first_ns = int(self._open.events["time_ns"].min(initial=trace.end_ns))
        self._losses = tuple(loss for loss in self._losses if loss.last_ns >= first_ns)
        self._samples = list(self._latest.values())
        self._binds, self._looked, self._exits, self._accepted = [], {}, {}, {}
        self._events = self.finished = 0
        return trace, self._open.next_id

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
