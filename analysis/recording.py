"""From a trace file to a `Trace` and its tables: what was recorded, read again anywhere.

Needs no root, no bcc and no Linux. The file is read batch by batch through the same
`attempts.step` and `assemble` that a live trace uses, so both find the same.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from porttrace.analysis.findings import diagnose
from porttrace.analysis.growing import Growing
from porttrace.analysis.model import (
    Finding,
    Trace,
)
from porttrace.analysis.rows import joined
from porttrace.tracer.beside import TraceHeader
from porttrace.tracer.event import EVENT, Events
from porttrace.tracer.tracefile import Batch, TraceReader

if TYPE_CHECKING:
    import pandas as pd

    from porttrace.analysis.summary import Trust

_T = TypeVar("_T")

AT_ONCE = 16_384
"""Rows that are joined to attempts at once: what is done with so many stays in the cache."""


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
        growing = Growing(reader.header)
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


def in_chunks(
    batches: Iterable[Batch], rows: int = AT_ONCE, ends: Callable[[Batch], bool] | None = None
) -> Iterator[list[Batch]]:
    """Yield the batches in lists of at least `rows` events, the last one with what is left.

    A list has fewer where it `ends` with a batch.
    """
    chunk: list[Batch] = []
    for batch in batches:
        chunk.append(batch)
        full = sum(len(each.events) for each in chunk) >= rows
        if full or (ends and ends(batch)):
            yield chunk
            chunk = []
    if chunk:
        yield chunk
