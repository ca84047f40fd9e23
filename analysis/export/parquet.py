"""Attempts, binds and events as Parquet: typed, compressed, units in the names of the columns.

A file each, since the tables have little in common: a row an attempt, a row a bind, and several
records for each. Text is plain text in the schema; Parquet's own dictionaries keep it small.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from porttrace.analysis import exported, tables
from porttrace.analysis.model import Trace
from porttrace.tracer.event import Events
from porttrace.tracer.tracefile import Sink

# Of binds; a column of nothing would have no type.
_TEXTS = ("protocol", "options", "error", "holders", "advice")
_CHUNK = 131_072  # rows that are converted and written at once: one row group


def attempts_file(trace: Trace) -> Iterator[bytes]:
    """Yield the file of the attempts of `trace`: the columns of `tables.attempts`, and `carried`.

    `exported.load_exported` makes a trace of it again.
    """
    frame, extra = tables.attempts(trace), exported.carried(trace.attempts)
    return _written(
        _table(frame.iloc[at : at + _CHUNK], exported.beside(trace), extra, at)
        for at in _starts(len(frame))
    )


def events_file(records: Events) -> Iterator[bytes]:
    """Yield the file of the kernel's records: the columns of `tables.events`."""
    return _file(tables.events(records[at : at + _CHUNK]) for at in _starts(len(records)))


def binds_file(trace: Trace) -> Iterator[bytes]:
    """Yield the file of the calls of bind(2) and listen(2): the columns of `tables.binds`."""
    frame = tables.binds(trace)
    frame = frame.astype(dict.fromkeys(_TEXTS, "string"))
    return _file(frame.iloc[at : at + _CHUNK] for at in _starts(len(frame)))


def _starts(count: int) -> Iterable[int]:
    # A table without rows is written too: its columns are there, and nobody has to ask.
    return range(0, max(count, 1), _CHUNK)


def _file(frames: Iterator[pd.DataFrame]) -> Iterator[bytes]:
    return _written(_table(frame) for frame in frames)


def _written(tables_: Iterator[pa.Table]) -> Iterator[bytes]:
    pieces, first = Sink(), next(tables_)
    with pq.ParquetWriter(pieces, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for table in tables_:
            yield pieces.taken()
            writer.write_table(table)
    yield pieces.taken()


def _table(
    frame: pd.DataFrame,
    metadata: Mapping[bytes, bytes] | None = None,
    extra: Mapping[str, Any] | None = None,
    at: int = 0,
) -> pa.Table:
    # `extra` columns are those of the whole file, of which this is the part from row `at` on.
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for name, column in (extra or {}).items():
        table = table.append_column(name, pa.array(column[at : at + len(frame)]))
    # Without pandas' own notes: they tell of categories that the file does not have.
    fields = [field.with_type(_plain(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields, metadata))


def _plain(kind: pa.DataType) -> pa.DataType:
    # Categories of no rows have no type at all.
    if pa.types.is_dictionary(kind):
        return pa.string()
    return kind
