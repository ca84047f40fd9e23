"""A trace file says what was written, or what is wrong with it: never anything else."""

import json
import os
import random
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import events
from porttrace.tracer import tracefile
from porttrace.tracer.beside import Beside
from porttrace.tracer.event import EVENT, Events, EventType
from porttrace.tracer.tracefile import (
    Batch,
    DamagedError,
    NewerFormatError,
    NotATraceError,
    TraceFileError,
    TraceReader,
)
from recordings import (
    END,
    HEADER,
    HELD,
    PROCESS,
    any_events,
    batches_of,
    read,
    story,
    with_header,
    written,
)

VERSION = version("porttrace")
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(batches: list[Batch]) -> bytes:
    return b"".join(batch.events.tobytes() for batch in batches)


@shared_folder
@given(st.lists(any_events(), max_size=4))
def test_no_field_is_lost(tmp_path: Path, tables: list[Events]) -> None:
    batches = [Batch(table, Beside(n)) for n, table in enumerate(tables)]
    batches.append(Batch(np.empty(0, EVENT), Beside(end=END, held=(HELD,), processes={7: PROCESS})))
    path = tmp_path / "a.ptrace"
    path.write_bytes(written(batches))
    found, reader = read(path)
    assert rows_of(found) == rows_of(batches)
    assert [batch.beside for batch in found] == [batch.beside for batch in batches]
    assert (reader.complete, reader.why_incomplete) == (True, "")


def test_the_header_and_its_units(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(written(batches_of(story(), [])))
    with TraceReader(path) as reader:
        assert reader.header.host == HEADER.host
        assert (reader.header.filter, reader.header.notes) == (HEADER.filter, HEADER.notes)
        assert reader.header.version == VERSION
    with pa.ipc.open_stream(path.read_bytes()) as stream:
        values = json.loads(stream.schema.metadata[b"porttrace"])
    assert values["format"] == tracefile.FORMAT
    assert values["units"]["time_ns"] == "ns"
    assert values["event_type"]["START"] == EventType.START
    assert values["clock"] == "CLOCK_MONOTONIC"


def test_pandas_reads_the_events_without_us(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    table = np.concatenate(
        [events().connect(comm=name).syn_sent().array() for name in (b"web", b"web", b"\xff", b"")]
    )
    path.write_bytes(written(batches_of(table, [1, 2, 3])))
    with path.open("rb") as handle:
        frame = pa.ipc.open_stream(handle).read_pandas()
    assert frame["comm"].tolist() == ["web", "web", "\\xff", ""]
    assert frame["time_ns"].tolist() == table["time_ns"].tolist()
    assert list(frame.columns) == list(EVENT.names or ())


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(written(batches_of(story(), [5, 9])))
    with path.open() as handle:
        monkeypatch.setattr(sys, "stdin", handle)
        with TraceReader("-") as reader:
            assert rows_of(list(reader)) == story().tobytes()
        assert not handle.closed


# -- cut and changed ---------------------------------------------------------------


def test_every_cut_gives_a_prefix_and_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "cut.ptrace"
    table = story(2)
    data = written(batches_of(table, [3]))
    first = None
    # Within the header each cut is like the next.
    header = data.index(b"beside") - 2000
    for size in [*range(0, header, 31), *range(header, len(data))]:
        path.write_bytes(data[:size])
        try:
            batches, reader = read(path)
        except TraceFileError as error:
            assert first is None, "once there is a header, every cut can be read"
            assert str(path) in error.message
            continue
        first = size if first is None else first
        assert table.tobytes().startswith(rows_of(batches))
        whole = len(batches) == 2
        assert reader.complete is whole
        assert bool(reader.why_incomplete) is not whole
        if not whole:
            assert f"after {len(batches)} whole" in reader.why_incomplete
    assert first is not None


def test_a_tail_of_zeros_is_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "zeros.ptrace"
    for zeros in (1, 4, 8, 4096):
        path.write_bytes(written(batches_of(story(), [5], end=None), close=False) + bytes(zeros))
        batches, reader = read(path)
        assert rows_of(batches) == story().tobytes()
        assert not reader.complete


def test_2000_changed_bytes_never_give_wrong_rows(tmp_path: Path) -> None:
    path = tmp_path / "flipped.ptrace"
    table = story(20)
    batches = batches_of(table, [6, 25, 40])
    data = written(batches)
    said = [batch.beside for batch in batches]
    chance = random.Random(4711)
    for _ in range(2000):
        at = chance.randrange(len(data))
        changed = bytes([data[at] ^ chance.randrange(1, 256)])
        path.write_bytes(data[:at] + changed + data[at + 1 :])
        try:
            found, reader = read(path)
        except TraceFileError as error:
            assert str(path) in error.message
            continue
        assert rows_of(found) == table.tobytes(), f"byte {at}"
        assert [batch.beside for batch in found] == said
        assert reader.complete


def test_no_error_of_a_library_gets_through(tmp_path: Path) -> None:
    path = tmp_path / "torn.ptrace"
    data = written(batches_of(story(20), [6, 25, 40]))
    chance = random.Random(23)
    for _ in range(500):
        begin, size = chance.randrange(len(data)), chance.randrange(1, 400)
        torn = data[:begin] + chance.randbytes(size) + data[begin + chance.choice((size, 0, 7)) :]
        path.write_bytes(torn)
        try:
            read(path)
        except TraceFileError as error:
            assert str(path) in error.message


def test_batches_that_are_missing_or_exchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    pieces: list[bytes] = []
    writer = tracefile.TraceWriter(pieces.append, HEADER)
    for batch in batches_of(story(), [5, 9, 20]):
        writer.write(batch.events, batch.beside)
    writer.close()
    for order in ([0, 2, 3, 4], [0, 2, 1, 3, 4], [0, 1, 1, 2, 3, 4]):
        path.write_bytes(b"".join(pieces[i] for i in order))
        with pytest.raises(DamagedError, match="stands in its place"):
            read(path)
    path.write_bytes(b"".join(pieces) * 2)
    with pytest.raises(DamagedError, match="follows behind its end"):
        read(path)


# -- other files ---------------------------------------------------------------------


GOOD = written(batches_of(story(), []))


def arrow_stream() -> bytes:
    sink = pa.BufferOutputStream()
    pa.ipc.new_stream(sink, pa.schema([("x", pa.int8())])).close()
    return bytes(sink.getvalue())


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"x": [1]}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"hello\n", "something else"),
        (b"\0" * 100, "something else"),
        (b"\xff" * 100, "beginning cannot be read"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x" * 100, ""),
        (arrow_stream(), "Arrow stream of something else"),
        (parquet(), "Parquet"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)
    with pytest.raises(TraceFileError) as caught:
        read(path)
    assert str(path) in caught.value.message and says in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_a_newer_format_names_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(with_header(GOOD, format=2, version="9.1"))
    with pytest.raises(NewerFormatError) as caught:
        read(path)
    message = caught.value.message
    assert "format 2" in message and "porttrace 9.1" in message and "up to 1" in message
    assert VERSION in message


@pytest.mark.parametrize(
    "changes", [{"format": "x"}, {"layout": {}}, {"layout": None}, {"host": 3}]
)
def test_a_header_that_cannot_be(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(with_header(GOOD, **changes))
    with pytest.raises(DamagedError, match="header"):
        read(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotATraceError, match="is a directory"):
        TraceReader(tmp_path)
    with pytest.raises(TraceFileError, match="No such file") as caught:
        TraceReader(tmp_path / "nothing")
    assert "record -o" in caught.value.hint


def test_who_names_a_rotated_recording_is_told_of_its_parts(tmp_path: Path) -> None:
    for number in (9, 10):
        (tmp_path / f"watch-{number:04}.ptrace").touch()
    with pytest.raises(TraceFileError) as caught:
        TraceReader(tmp_path / "watch.ptrace")
    assert caught.value.hint == (
        f"it was recorded in parts: {tmp_path}/watch-0009.ptrace .. watch-0010.ptrace"
        "; report takes one, fleet all of them"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(TraceFileError, match="Permission denied") as caught:
        TraceReader(path)
    assert "sudo" in caught.value.hint


def test_no_rows_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(written(batches_of(story()[:0], [])))
    batches, reader = read(path)
    assert rows_of(batches) == b"" and reader.complete


# -- other versions --------------------------------------------------------------------


def test_columns_of_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a file of a version without `sport` and with a column that is not known here
    names = [name for name in EVENT.names or () if name != "sport"]
    other = np.dtype([*((name, EVENT[name]) for name in names), ("mood", "<u4")])
    table = np.zeros(2, other)
    table["pid"], table["mood"], table["comm"] = 7, 5, b"web"
    monkeypatch.setattr(tracefile, "EVENT", other)
    path = tmp_path / "a.ptrace"
    path.write_bytes(written([Batch(table, Beside(end=END))]))
    monkeypatch.setattr(tracefile, "EVENT", EVENT)
    # WHEN it is read
    (batch,), reader = read(path)
    # THEN what both know is there, and the rest is zero
    assert batch.events.dtype == EVENT and reader.complete
    assert batch.events["pid"].tolist() == [7, 7]
    assert batch.events["comm"].tolist() == [b"web", b"web"]
    assert not batch.events["sport"].any()
