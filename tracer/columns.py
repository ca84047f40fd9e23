"""Events to columns and back: one Arrow column for each field of `EVENT`, nothing lost.

Numbers keep their types. Raw bytes (addresses) become fixed_size_binary. Names become
dictionary<utf8>, since `read_pandas()` shouldn't show bytes; but a name is any 16 bytes, so what
is no UTF-8 is written as \\xNN, and a backslash as two of them. No pandas: pyarrow.array() would
import it, so columns are made from buffers.
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from porttrace.tracer.event import Events

Columns = dict[str, npt.NDArray[Any]]
"""Fields of events by name, each in one piece."""

_AT_ONCE = 2048
_NAMES = pa.dictionary(pa.int32(), pa.utf8())
_ESCAPE = re.compile(rb"\\(?:\\|x([0-9a-f]{2}))")


def fields(dtype: np.dtype[np.void]) -> list[Any]:
    """Return the Arrow fields of a record type, in its order."""
    return [pa.field(name, _type(dtype[name]), nullable=False) for name in dtype.names or ()]


def _type(field: np.dtype[Any]) -> Any:
    if field.kind == "S":
        return _NAMES
    return pa.binary(field.itemsize) if field.kind == "V" else pa.from_numpy_dtype(field)


def to_batch(events: Events, schema: Any) -> Any:
    """Return events as one Arrow record batch of `schema`, whose fields are those of the dtype."""
    return pa.RecordBatch.from_arrays(
        [_to_column(events[name]) for name in events.dtype.names or ()], schema=schema
    )


def _to_column(values: Any) -> Any:
    if values.dtype.kind == "S":
        return _to_names(values)
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(_type(values.dtype), len(values), [None, buffer])


def _to_names(values: Any) -> Any:
    names, index = _distinct(values)
    texts = [_text(name).encode() for name in names.tolist()]
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
    dictionary = pa.Array.from_buffers(pa.utf8(), len(texts), buffers)
    indices = pa.py_buffer(index.astype(np.int32))
    return pa.DictionaryArray.from_arrays(
        pa.Array.from_buffers(pa.int32(), len(values), [None, indices]), dictionary
    )


def _distinct(values: Any) -> tuple[Any, Any]:
    # As np.unique(values, return_inverse=True), which sorts every row: mostly one thread makes
    # many events in a row, so that only those where the name changes need be sorted.
    begins = np.ones(len(values), bool)
    begins[1:] = values[1:] != values[:-1]
    names, index = np.unique(values[begins], return_inverse=True)
    return names, np.repeat(index, np.diff(np.flatnonzero(np.append(begins, True))))


def _text(name: bytes) -> str:
    return name.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


def _name(text: str) -> bytes:
    return _ESCAPE.sub(lambda m: bytes.fromhex(m[1].decode()) if m[1] else b"\\", text.encode())


def from_batch(batch: Any, dtype: np.dtype[np.void]) -> Events:
    """Return the events of one record batch, which may have columns that `dtype` has not.

    Raises ValueError when a column is not there, has another type, or holds what cannot be.
    """
    return as_rows(columns_of(batch, dtype), dtype)


def columns_of(batch: Any, dtype: np.dtype[np.void]) -> Columns:
    """Return the fields of `dtype` in one record batch, each in one piece; raises as `from_batch`.

    Not copies, but for names: they are the batch's own memory.
    """
    batch.validate(full=True)  # raises pyarrow.ArrowInvalid, a ValueError
    columns = {}
    for name in dtype.names or ():
        found = batch.schema.get_all_field_indices(name)
        if len(found) != 1 or batch.schema.field(found[0]).type != _type(dtype[name]):
            raise ValueError(f"no column {name!r} of the type that its header says")
        columns[name] = _from_column(batch.column(found[0]), dtype[name])
    return columns


def as_rows(columns: Columns, dtype: np.dtype[np.void]) -> Events:
    """Return the rows of all columns of `dtype`; what lies between its fields is zero."""
    number = len(next(iter(columns.values()), ()))
    events = np.zeros(number, dtype)
    # So many rows stay in the cache while one column after the other is put into them.
    for at in range(0, number, _AT_ONCE):
        some = events[at : at + _AT_ONCE]
        for name, values in columns.items():
            some[name] = values[at : at + _AT_ONCE]
    return events


def _from_column(column: Any, field: np.dtype[Any]) -> Any:
    if column.null_count:
        raise ValueError("a value is missing")
    if field.kind != "S":
        return np.frombuffer(column.buffers()[1] or b"", field, len(column))
    if not len(column):
        return np.empty(0, field)
    names = np.array([_name(text) for text in column.dictionary.to_pylist()], field)
    return names[np.frombuffer(column.indices.buffers()[1], np.int32, len(column))]
