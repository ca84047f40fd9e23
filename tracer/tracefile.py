"""The trace file: an Arrow IPC stream of events that proves what it says.

    schema    one column per field of EVENT; metadata: `porttrace` (JSON, below) and its CRC-32
    batch 0   metadata: `beside` (JSON), `crc32` over the rows' bytes in the layout of the
    batch 1   header, then over `beside`
    ...
    batch n   `beside` has `end`: the recording is complete
    0xFFFFFFFF 00000000

The CRC is of the rows as they are rebuilt from the columns: reading verifies what it decodes. A
file cut anywhere is read up to its last whole batch and says why it ends there. Adding a column
needs no new FORMAT: the header carries the layout, columns unknown here are ignored and those
that are not there are zero. `pyarrow.ipc.open_stream(path).read_pandas()` reads the events, too.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from porttrace.tracer.beside import (
    Beside,
    TraceHeader,
    from_json,
    header_of,
    header_values,
    to_json,
)
from porttrace.tracer.columns import as_rows, columns_of, fields, to_batch
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.event import EVENT, Events, EventType, Flag
from porttrace.tracer.frames import Frames
from porttrace.tracer.input import END_OF_STREAM, Source
from porttrace.tracer.parts import parts_of

FORMAT = 1
"""Raised when the meaning of what is there changes, not when a column is added."""

# What pyarrow, json and numpy raise at bytes that are not what they should be.
_BROKEN = (
    *(pa.ArrowException, MemoryError, OSError, ValueError, TypeError, KeyError),
    *(AttributeError, OverflowError, RecursionError),
)
_MOST_ITEM = 4096  # bytes of a row that any version may have
_KINDS = {b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file, not a stream"}


class TraceFileError(PorttraceError):
    """A trace file cannot be read."""


class NotATraceError(TraceFileError):
    """The file is of another kind."""


class NewerFormatError(TraceFileError):
    """A newer porttrace wrote the file."""


class DamagedError(TraceFileError):
    """The file's bytes are not those that were written."""


@dataclass(frozen=True)
class Batch:
    """Some events, sorted by time within the batch, and what came beside them.

    `columns`, where they are at hand, are the same events, each field in one piece.
    """

    events: Events
    beside: Beside
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


# -- writing -------------------------------------------------------------------


class TraceWriter:
    """Encodes a recording; hands whole batches, and nothing less, to `write`."""

    def __init__(self, write: Callable[[bytes], object], header: TraceHeader) -> None:
        self._write, self._sink, self._number = write, Sink(), 0
        self._schema = pa.schema(fields(EVENT), metadata=_header_metadata(header))
        # Level 3 takes a tenth less room than 1, pyarrow's own, in the same time.
        zstd = pa.Codec("zstd", compression_level=3)
        options = pa.ipc.IpcWriteOptions(compression=zstd, use_threads=False)
        # pyarrow writes the schema with the first batch.
        self._stream = pa.ipc.new_stream(self._sink, self._schema, options=options)

    def write(self, events: Events, beside: Beside) -> None:
        """Write one batch: its events (dtype EVENT, any number) and what came beside them."""
        text = to_json(beside, self._number)
        metadata = {"beside": text, "crc32": f"{_crc(events, text):08x}"}
        self._stream.write_batch(to_batch(events, self._schema), custom_metadata=metadata)
        self._number += 1
        self._write(self._sink.taken())

    def close(self) -> None:
        """Write the mark behind the last batch."""
        self._stream.close()
        self._write(self._sink.taken())


class Sink:
    """What pyarrow writes a file to that is handed on piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._total = 0

    def write(self, data: Any) -> int:
        """Keep `data`, of any type of buffer; returns how many bytes it has."""
        self._parts.append(bytes(data))
        self._total += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        """Return how many bytes were written in all, those handed on included."""
        return self._total

    def flush(self) -> None:
        """Keep all of it until `taken`: pyarrow asks for this, and it means nothing here."""

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _crc(events: Events, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(np.ascontiguousarray(events).view(np.uint8).data))


def _header_metadata(header: TraceHeader) -> dict[str, str]:
    values = {
        "format": FORMAT,
        **header_values(header),
        "version": version("porttrace"),
        "layout": _layout(EVENT),
        "units": {name: "ns" for name in EVENT.names or () if name.endswith("_ns")},
        "event_type": {each.name: each.value for each in EventType},
        "event_flag": {each.name: each.value for each in Flag},
    }
    text = json.dumps(values)
    return {"porttrace": text, "crc32": f"{zlib.crc32(text.encode()):08x}"}


def _layout(dtype: np.dtype[np.void]) -> dict[str, Any]:
    offsets: Any = dtype.fields
    rows = [(name, dtype[name].str, offsets[name][1]) for name in dtype.names or ()]
    return {"size": dtype.itemsize, "fields": rows}


def _dtype(layout: dict[str, Any]) -> np.dtype[np.void]:
    names, formats, offsets = zip(*layout["fields"], strict=True)
    described: Any = {"names": names, "formats": formats, "offsets": offsets}
    described["itemsize"] = layout["size"]
    dtype: np.dtype[np.void] = np.dtype(described)
    if dtype.itemsize > _MOST_ITEM:
        raise ValueError(f"a row of {dtype.itemsize} bytes")
    return dtype


# -- reading -------------------------------------------------------------------


class TraceReader:
    """Iterates over the batches of a file, one in memory at a time. Use as a context manager.

    `path` may be `-`, standard input. After the last batch `complete` and `why_incomplete` (one
    sentence, "" when complete) are set. Raises TraceFileError, also while iterating.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.complete, self.why_incomplete = False, "it has not been read to its end"
        self._source = self._opened()
        try:
            self._check_kind()
            self.header, self._dtype, self._stream = self._header()
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> "TraceReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def __iter__(self) -> Iterator[Batch]:
        number = 0
        while (batch := self._next(number)) is not None:
            yield batch
            number += 1
            if batch.beside.end:
                self._finish()
                return

    def _opened(self) -> Source:
        try:
            return Source(self.path)
        except IsADirectoryError:
            raise NotATraceError(
                f"{self.path} is a directory, not a trace", "name a file that 'record' wrote"
            ) from None
        except OSError as error:
            hint = _hint(error, str(self.path))
            raise TraceFileError(f"cannot read {self.path}: {error.strerror}", hint) from None

    def _check_kind(self) -> None:
        head = self._source.peek(8)
        if self._source.error:
            raise self._unreadable()
        if not head:
            raise NotATraceError(
                f"{self.path} is empty", "its recording ended before it began; record again"
            )
        if not head.startswith(END_OF_STREAM[:4]):
            known = [what for magic, what in _KINDS.items() if head.startswith(magic)]
            raise self._not_a_trace(f"it is {known[0] if known else 'something else'}")

    def _not_a_trace(self, why: str) -> NotATraceError:
        return NotATraceError(
            f"{self.path} is no trace of porttrace: {why}",
            "traces are what 'porttrace record -o FILE' writes",
        )

    def _header(self) -> tuple[TraceHeader, np.dtype[np.void], Any]:
        try:
            stream = pa.ipc.open_stream(Frames(self._source))
            metadata = stream.schema.metadata or {}
        except _BROKEN:
            if self._source.short:
                raise self._damaged("it ends within its header; nothing can be read") from None
            raise self._not_a_trace("its beginning cannot be read") from None
        if b"porttrace" not in metadata:
            raise self._not_a_trace("it is an Arrow stream of something else")
        return *self._described(metadata), stream

    def _described(self, metadata: dict[bytes, bytes]) -> tuple[TraceHeader, np.dtype[np.void]]:
        text = metadata[b"porttrace"]
        if metadata.get(b"crc32") != b"%08x" % zlib.crc32(text):
            raise self._damaged("its header does not have the checksum that it was written with")
        try:
            values = json.loads(text)
            if values["format"] > FORMAT:
                raise self._newer(values)
            return header_of(values), _dtype(values["layout"])
        except _BROKEN as error:
            raise self._damaged(f"its header says what cannot be: {error}") from None

    def _newer(self, values: dict[str, Any]) -> NewerFormatError:
        return NewerFormatError(
            f"{self.path} has format {values['format']}, written by porttrace "
            f"{values.get('version', '?')}; this is porttrace {version('porttrace')}, which reads "
            f"formats up to {FORMAT}",
            "read it with a porttrace at least as new",
        )

    def _next(self, number: int) -> Batch | None:
        try:
            batch, metadata = self._stream.read_next_batch_with_custom_metadata()
            return self._verified(batch, dict(metadata or {}), number)
        except StopIteration:
            self._stopped(number)
            return None
        except _BROKEN as error:
            self._broke(number, error)
            return None

    def _verified(self, batch: Any, metadata: dict[bytes, bytes], number: int) -> Batch:
        if {b"beside", b"crc32"} - set(metadata):
            raise ValueError("what stands beside the rows is not there")
        columns, text = columns_of(batch, self._dtype), metadata[b"beside"]
        events = as_rows(columns, self._dtype)
        if metadata[b"crc32"] != b"%08x" % _crc(events, text):
            raise ValueError("its rows do not have the checksum that they were written with")
        beside, written = from_json(text)
        if written != number:
            raise ValueError(f"batch {written} stands in its place")
        if events.dtype == EVENT:
            return Batch(events, beside, columns)
        return Batch(_as_event(events), beside)

    # Without `end`. A cut file just stops; whatever stops before its bytes do was changed.
    def _stopped(self, number: int) -> None:
        if not self._source.rest_is_nothing() or self._source.tail(8) == END_OF_STREAM:
            raise self._damaged_after(number, "the stream ends there, before its recording does")
        self._is_cut(number)

    def _broke(self, number: int, error: BaseException) -> None:
        if self._source.error:
            raise self._unreadable()
        if not self._source.short or self._source.tail(8) == END_OF_STREAM:
            raise self._damaged_after(number, str(error).split("\n")[0])
        self._is_cut(number)

    def _is_cut(self, number: int) -> None:
        self.why_incomplete = (
            f"the file ends after {number} whole {'batch' if number == 1 else 'batches'}, without "
            "the mark that a recording ends with: it was killed, its disk was full, or it goes on"
        )

    def _finish(self) -> None:
        # Behind the end stands the end of the stream; should that be missing, no row is.
        if len(self._source.read(64)) > len(END_OF_STREAM):
            raise self._damaged("something follows behind its end; it is not one recording")
        self.complete, self.why_incomplete = True, ""

    def _damaged(self, why: str) -> DamagedError:
        return DamagedError(
            f"{self.path} is damaged: {why}", "copy it anew from where it was recorded"
        )

    def _damaged_after(self, number: int, why: str) -> DamagedError:
        return self._damaged(f"after {number} whole batches: {why}")

    def _unreadable(self) -> TraceFileError:
        return TraceFileError(
            f"cannot read {self.path}: {self._source.error}", "the disk or the pipe failed"
        )


def _hint(error: OSError, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        parts = parts_of(path)
        if not parts:
            return "check the name; 'porttrace record -o FILE' makes such files"
        last = f" .. {Path(parts[-1]).name}" if len(parts) > 1 else ""
        return f"it was recorded in parts: {parts[0]}{last}; report takes one, fleet all of them"
    if isinstance(error, PermissionError):
        return "read it as the user who recorded it, or with sudo"
    return ""


def _as_event(events: Events) -> Events:
    # Recorded by another version: columns of its own are left out, those it lacked stay zero.
    result = np.zeros(len(events), EVENT)
    for name in set(EVENT.names or ()) & set(events.dtype.names or ()):
        result[name] = events[name]
    return result
