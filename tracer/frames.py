"""The frames of an Arrow stream, looked at before they are unpacked: a small file stays small.

zstd makes a gigabyte of a few kilobytes, and pyarrow takes what a frame says of itself as it is.
Layout: the encapsulated message format of Arrow; Message.fbs, Schema.fbs of apache/arrow. Whatever
cannot be read here is left to pyarrow, which then says what is wrong.
"""

import io
import struct
from collections.abc import Iterator

from porttrace.tracer.input import Source

_ODD = (struct.error, ValueError, IndexError)
_CONTINUES = b"\xff\xff\xff\xff"
_MOST_METADATA = 4 << 20
_DICTIONARY, _BATCH = 2, 3  # MessageHeader
# What a frame may come to. A batch of a recorder has 16,384 rows, the first one of a part more,
# and none takes less than a few bytes a row.
_ROWS, _BYTES_A_ROW = 1 << 18, 8
_BYTES, _TIMES = 64 << 20, 64


class Frames(io.RawIOBase):
    """What pyarrow reads from: `source`, a checked frame at a time.

    Raises ValueError for a frame that would take much more memory than its bytes.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source, self._ready = source, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer at the end."""
        while len(self._ready) < size and (frame := self._frame()):
            self._ready += frame
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _frame(self) -> bytes:
        head = self._source.read(8)
        if len(head) < 8 or head[:4] != _CONTINUES:
            return head
        (length,) = struct.unpack_from("<I", head, 4)
        if not length:
            return head
        if length > _MOST_METADATA:
            raise ValueError(f"a frame says that {length} bytes describe it")
        described = self._source.read(length)
        try:
            size = _body_size(described)
        except _ODD:
            return head + described
        body = self._source.read(size) if size > 0 else b""
        _check(described, body)
        return head + described + body


def _check(described: bytes, body: bytes) -> None:
    try:
        found = _batch(described)
        if found is None:
            return
        rows, sizes = _int64(described, *found[:2]), list(_unpacked(described, found, body))
    except _ODD:
        return
    if rows > _ROWS + len(body) // _BYTES_A_ROW:
        raise ValueError(f"{rows} rows in {len(body)} bytes cannot be")
    if sum(sizes) > _BYTES + len(body) * _TIMES:
        raise ValueError(f"{len(body)} bytes would become {sum(sizes)}")


# -- flatbuffers: a table is a place with the place of a list of where its fields are ---------


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a field of a table stands, 0 where it has its default."""
    (back,) = struct.unpack_from("<i", data, table)
    fields = table - back
    if fields < 0:
        raise ValueError("it points out of itself")
    (size,) = struct.unpack_from("<H", data, fields)
    at = 4 + 2 * number
    offset: int = struct.unpack_from("<H", data, fields + at)[0] if at < size else 0
    return table + offset if offset else 0


def _follow(data: bytes, at: int) -> int:
    to: int = at + struct.unpack_from("<I", data, at)[0]
    return to


def _int64(data: bytes, table: int, number: int) -> int:
    at = _field(data, table, number)
    value: int = struct.unpack_from("<q", data, at)[0] if at else 0
    return value


def _body_size(data: bytes) -> int:
    return _int64(data, _follow(data, 0), 3)


def _batch(data: bytes) -> tuple[int, int] | None:
    # The table of the batch in a frame and its field `length`; None where it has none.
    message = _follow(data, 0)
    kind, at = _field(data, message, 1), _field(data, message, 2)
    if not kind or not at or data[kind] not in (_DICTIONARY, _BATCH):
        return None
    table = _follow(data, at)
    if data[kind] == _DICTIONARY:
        inner = _field(data, table, 1)
        if not inner:
            return None
        table = _follow(data, inner)
    return table, 0


def _unpacked(data: bytes, batch: tuple[int, int], body: bytes) -> Iterator[int]:
    # Each packed buffer begins with its size before it was packed; -1: it is as it was.
    table = batch[0]
    buffers = _field(data, table, 2)
    if not buffers or not _field(data, table, 3):
        return
    vector = _follow(data, buffers)
    (number,) = struct.unpack_from("<I", data, vector)
    for index in range(number):
        at, length = struct.unpack_from("<qq", data, vector + 4 + 16 * index)
        if length >= 8 and 0 <= at <= len(body) - 8:
            yield max(0, struct.unpack_from("<q", body, at)[0])
