"""Types, units and values survive, and so does a table without rows."""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from porttrace.analysis import tables
from porttrace.analysis.export.parquet import attempts_file, events_file
from porttrace.tracer.event import no_events
from recordings import story
from traces import trace_of


def read(pieces: Iterator[bytes]) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(b"".join(pieces)))


def test_attempts() -> None:
    trace = trace_of(story(), wall_offset_ns=10**18)
    table = read(attempts_file(trace)).read()
    frame = tables.attempts(trace)
    assert table.column_names == [*frame.columns, "gate_stack", "connect_stack", "resent_us"]
    for name in ("attempt_id", "comm", "destination", "outcome", "held_ns", "start_time"):
        assert table[name].to_pylist() == frame[name].tolist(), name
    assert table["gate_ns"].null_count == frame["gate_ns"].isna().sum() > 0


def test_events() -> None:
    records = story()
    table = read(events_file(records)).read()
    assert table["time_ns"].to_pylist() == records["time_ns"].tolist()
    assert set(table["event"].to_pylist()) == {"START", "END", "RETURN", "RETRANSMIT", "ERROR"}


def test_types() -> None:
    schema = read(attempts_file(trace_of(story()))).schema_arrow
    assert schema.field("outcome").type == pa.string()
    assert schema.field("blocking").type == pa.bool_()
    assert schema.field("dport").type == pa.uint16()
    assert schema.field("start_time").type == pa.timestamp("ns", "UTC")
    times = {name: schema.field(name).type for name in schema.names if name.endswith("_ns")}
    assert set(times.values()) == {pa.int64()}
    assert len(times) > 10


def test_compressed_with_zstd() -> None:
    group = read(attempts_file(trace_of(story()))).metadata.row_group(0)
    assert {group.column(n).compression for n in range(group.num_columns)} == {"ZSTD"}


def test_no_rows_have_the_same_types() -> None:
    some, none = trace_of(story()), trace_of(no_events())
    assert read(attempts_file(none)).schema_arrow == read(attempts_file(some)).schema_arrow
    assert read(events_file(no_events())).schema_arrow == read(events_file(story())).schema_arrow


def test_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porttrace.analysis.export.parquet._CHUNK", 11)
    file = read(attempts_file(trace_of(story(30))))
    assert file.num_row_groups == 3
    assert file.metadata.num_rows == 30
