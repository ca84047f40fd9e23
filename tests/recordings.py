"""Trace files for tests, made without a kernel."""

import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from builders import MS, S, events
from porttrace.tracer.beside import Beside, End, TraceHeader
from porttrace.tracer.event import EVENT, Events
from porttrace.tracer.facts import Held, Host, NotLooked, Process, Suspect
from porttrace.tracer.order import FOREVER_NS
from porttrace.tracer.tracefile import Batch, TraceReader, TraceWriter

HEADER = TraceHeader(
    start_ns=S // 2,
    wall_offset_ns=10**18,
    host=Host("web-1", "6.1", sysctls={"tcp_syn_retries": 6}),
    filter="pid 7",
    notes=("no errno of non-blocking connects.",),
)
END = End(
    99 * S, {"events": 5}, ("Said at the end.",), not_looked=(NotLooked("modules", "no \udcff"),)
)
ODD = "odd \udcff\n\x00 name"  # as os.fsdecode gives it
PROCESS = Process(7, 1, ODD, "/bin/wéb", "web -x", 1000, "me", "/a", "c0ffee", 42, ("/lib/x.so",))
HELD = Held(9, 8, "gate", 5 * S, ODD, bytes(range(16)), 389, ("seccomp", "entry"))
SUSPECT = Suspect("ptrace", "gate", "somebody traces it", "/proc/9/status", 5)


def any_events(most: int = 40) -> st.SearchStrategy[Events]:
    """Arrays of arbitrary bytes."""
    rows = st.integers(0, most).flatmap(
        lambda n: st.binary(min_size=n * EVENT.itemsize, max_size=n * EVENT.itemsize)
    )
    return rows.map(lambda raw: np.frombuffer(raw, EVENT))


def story(attempts: int = 30) -> Events:
    """Attempts of three threads that overlap and end in different ways."""
    told = events()
    for number in range(attempts):
        attempt = told.connect(
            tid=20 + number % 3, at=S + number * 7 * MS, held_ns=MS * (number % 4)
        )
        attempt.syn_sent()
        if number % 5 == 1:
            attempt.in_progress().refused()
        elif number % 5 == 2:
            attempt.retransmit(after_ns=50 * MS).established()
        elif number % 5 != 3:
            attempt.established(after_ns=number * MS)
    return told.array()


def batches_of(table: Events, cuts: Sequence[int], end: End | None = END) -> list[Batch]:
    """Cut events, sorted by time, at `cuts` into batches as a recorder would write them."""
    parts = np.split(table, sorted(cuts))
    found = []
    for number, part in enumerate(parts):
        rest = np.concatenate([table[:0], *parts[number + 1 :]])
        watermark_ns = int(rest["time_ns"][0]) if len(rest) else FOREVER_NS
        last = number == len(parts) - 1
        found.append(Batch(part, Beside(watermark_ns, 10**18, end=end if last else None)))
    return found


def written(batches: Sequence[Batch], header: TraceHeader = HEADER, close: bool = True) -> bytes:
    """Return the bytes of a file of these batches."""
    sink = io.BytesIO()
    writer = TraceWriter(sink.write, header)
    for batch in batches:
        writer.write(batch.events, batch.beside)
    if close:
        writer.close()
    return sink.getvalue()


def read(path: Path) -> tuple[list[Batch], TraceReader]:
    """Return all batches of a file, and its reader as it was left."""
    with TraceReader(path) as reader:
        return list(reader), reader


def with_header(data: bytes, **changes: Any) -> bytes:
    """Return a stream whose header says something else, its checksum right, and no rows."""
    with pa.ipc.open_stream(data) as stream:
        values = {**json.loads(stream.schema.metadata[b"porttrace"]), **changes}
        text = json.dumps(values).encode()
        schema = stream.schema.with_metadata(
            {"porttrace": text, "crc32": f"{zlib.crc32(text):08x}"}
        )
    sink = pa.BufferOutputStream()
    pa.ipc.new_stream(sink, schema).close()
    return bytes(sink.getvalue())
