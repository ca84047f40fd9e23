"""Events survive their way through columns, whatever bytes they have."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from builders import events
from porttrace.tracer.columns import fields, from_batch, to_batch
from porttrace.tracer.event import EVENT, Events
from recordings import any_events

SCHEMA = pa.schema(fields(EVENT))


@given(any_events())
def test_no_field_loses_a_byte(table: Events) -> None:
    assert from_batch(to_batch(table, SCHEMA), EVENT).tobytes() == table.tobytes()


def test_a_column_for_each_field_of_its_type() -> None:
    assert SCHEMA.names == list(EVENT.names or ())
    assert SCHEMA.field("time_ns").type == pa.uint64()
    assert SCHEMA.field("error").type == pa.int32()
    assert SCHEMA.field("daddr").type == pa.binary(16)
    assert SCHEMA.field("comm").type == pa.dictionary(pa.int32(), pa.utf8())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"wget", "wget"),
        ("wéb".encode(), "wéb"),
        (b"\xff\x9b", "\\xff\\x9b"),
        (b"a\\xff", "a\\\\xff"),
        (b"\x1b[31m\n", "\x1b[31m\n"),
        (b"", ""),
    ],
)
def test_names_are_readable_where_they_are_text(name: bytes, text: str) -> None:
    table = events().connect(comm=name).syn_sent().array()
    batch = to_batch(table, SCHEMA)
    assert batch.column("comm").to_pylist() == [text]
    assert from_batch(batch, EVENT)["comm"].tolist() == [name]


def test_columns_that_nobody_knows_are_left_out() -> None:
    table = events().connect().syn_sent().array()
    batch = to_batch(table, SCHEMA).append_column("new", pa.nulls(1))
    assert from_batch(batch, EVENT).tobytes() == table.tobytes()


def test_columns_that_cannot_be() -> None:
    batch = to_batch(events().connect().syn_sent().array(), SCHEMA)
    with pytest.raises(ValueError, match="'pid'"):
        from_batch(batch.drop_columns(["pid"]), EVENT)
    at = batch.schema.get_field_index("pid")
    wrong = batch.set_column(at, "pid", batch.column(at).cast(pa.int64()))
    with pytest.raises(ValueError, match="'pid'"):
        from_batch(wrong, EVENT)
    empty = batch.set_column(at, pa.field("pid", pa.uint32()), pa.nulls(1, pa.uint32()))
    with pytest.raises(ValueError, match="missing"):
        from_batch(empty, EVENT)


def test_of_no_events() -> None:
    assert len(from_batch(to_batch(np.empty(0, EVENT), SCHEMA), EVENT)) == 0
