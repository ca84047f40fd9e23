"""A trace as the Parquet file of its attempts, read back: the other way round of `tables.attempts`.

What stands beside the rows (host, suspects, stacks, processes without their command lines) is JSON
in the file's metadata, and three columns carry what the table for people leaves out. Binds,
accepted connections and samples of the host are not in it: rules about them find nothing.
"""

import ipaddress
import json
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from porttrace.analysis.model import (
    ATTEMPT,
    RESENT_KEPT,
    Answer,
    Attempts,
    Loss,
    Origin,
    Outcome,
    Table,
    Trace,
    resent_us,
)
from porttrace.analysis.recording import Recording
from porttrace.tracer.beside import (
    Beside,
    End,
    TraceHeader,
    from_json,
    header_of,
    header_values,
    to_json,
)
from porttrace.tracer.facts import Process
from porttrace.tracer.tracefile import DamagedError, NotATraceError, TraceFileError

KEY = b"porttrace"
"""Of the JSON in the metadata: `attempts` is its version."""

VERSION = 1
_AS_THEY_ARE = (
    "attempt_id", "pid", "tid", "uid", "cgroup", "fd", "sport", "dport", "errno", "retransmits",
    "in_flight_at_start", "demand_at_start", "complete", "watched", "wire_count", "answers",
    "icmp_type", "icmp_code", "wire_sport", "wire_dport",
)  # fmt: skip
_MARKS = tuple(name for name in ATTEMPT.names or () if name.endswith("_ns"))
_STACKS = ("gate_stack", "connect_stack")
_ADDRESSES = ("saddr", "daddr", "wire_saddr", "wire_daddr")
_WORDS: dict[str, type[IntEnum]] = {"origin": Origin, "outcome": Outcome, "answer": Answer}
_OF_PROCESS = ("exe", "user", "container", "container_name", "ns_pid", "netns")
_BROKEN = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError)


def carried(rows: Table) -> dict[str, Any]:
    """Return the columns that a file has besides those of `tables.attempts`.

    `gate_stack`, `connect_stack`: keys of the stacks in the metadata, negative none; `resent_us`:
    when the SYN was sent again, us since syn_ns.
    """
    again = resent_us(rows)
    lengths = (again > 0).sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(offsets, pa.array(again[again > 0], pa.uint32()))
    return {**{name: rows[name] for name in _STACKS}, "resent_us": lists}


def beside(trace: Trace) -> dict[bytes, bytes]:
    """Return the metadata of the file of a trace: what findings rest on besides its attempts."""
    header = TraceHeader(
        trace.start_ns, trace.wall_offset_ns, trace.host, trace.filter, trace.gates_seen,
        trace.notes, {str(netns): since for netns, since in trace.watches.items()},
    )  # fmt: skip
    # No command lines: such files are passed on, and they may hold passwords.
    known = {pid: replace(each, cmdline="") for pid, each in trace.processes.items()}
    end = End(trace.end_ns, notes=trace.notes, not_looked=trace.not_looked)
    batch = Beside(trace.end_ns, trace.wall_offset_ns, known, trace.stacks, trace.suspects, end=end)
    values = {
        "attempts": VERSION,
        "header": header_values(header),
        "beside": json.loads(to_json(batch, 0)),
        "losses": [vars(loss) for loss in trace.losses],
        "exits": dict(trace.exits),
        "events": trace.events,
    }
    return {KEY: json.dumps(values).encode()}


def load_exported(path: str | Path, name: str = "") -> Recording:
    """Read the Parquet file of attempts that `porttrace export` wrote; `name` is for messages.

    Raises TraceFileError.
    """
    shown = name or str(path)
    try:
        file = pq.ParquetFile(path)
        _check_columns(file.schema_arrow.names, shown)
        columns = _Columns(file)
        return _recording(shown, columns, file.schema_arrow.metadata or {})
    except TraceFileError:
        raise
    except FileNotFoundError:
        raise TraceFileError(f"cannot read {shown}: it is not there", "check the name") from None
    except _BROKEN as error:
        why = str(error).split("\n")[0]
        raise DamagedError(f"{shown} is damaged: {why}", "export it anew") from None


def _check_columns(names: list[str], path: str) -> None:
    lacking = sorted({"attempt_id", "daddr", "outcome", *_MARKS} - set(names))
    if lacking:
        raise NotATraceError(
            f"{path} has no attempts of porttrace: it lacks the columns {', '.join(lacking[:3])}",
            "name files that 'porttrace export -f parquet' wrote, not their .binds or .events",
        )


def _recording(path: str, columns: "_Columns", metadata: dict[bytes, bytes]) -> Recording:
    told = json.loads(metadata[KEY]) if KEY in metadata else {}
    if told.get("attempts", 0) > VERSION:
        raise TraceFileError(
            f"{path} was exported by a newer porttrace", "read it with one at least as new"
        )
    trace = _told(told) if told else _untold(columns)
    trace = replace(trace, attempts=_attempts(columns, trace))
    header = TraceHeader(trace.start_ns, trace.wall_offset_ns, trace.host, trace.filter)
    return Recording(path, header, trace, True, "")


def _told(values: dict[str, Any]) -> Trace:
    header = header_of(values["header"])
    batch, _ = from_json(json.dumps(values["beside"]).encode())
    return Trace(
        np.empty(0, ATTEMPT),
        header.start_ns,
        batch.end.end_ns if batch.end else batch.watermark_ns,
        batch.processes,
        batch.stacks,
        tuple(Loss(**each) for each in values["losses"]),
        header.host,
        batch.suspects,
        batch.end.not_looked if batch.end else (),
        header.filter,
        header.wall_offset_ns,
        header.gates_seen,
        int(values["events"]),
        header.notes,
        {int(pid): time for pid, time in values["exits"].items()},
        {int(netns): time for netns, time in header.watches.items()},
    )


# Of a file without metadata: what its columns say.
def _untold(columns: "_Columns") -> Trace:
    marks = np.stack([columns.numbers(name) for name in _MARKS])
    there = marks[marks > 0]
    host = next(iter(columns.texts("host")[1]), "") if "host" in columns.names else ""
    trace = Trace(
        np.empty(0, ATTEMPT), int(there.min(initial=0)), int(there.max(initial=0)),
        notes=("The file does not say what else was known of its host.",),
    )  # fmt: skip
    return replace(
        trace, host=replace(trace.host, name=host), processes=_processes(columns),
        start_ns=int(there.min()) if len(there) else 0,
    )  # fmt: skip


def _processes(columns: "_Columns") -> dict[int, Process]:
    names = [name for name in _OF_PROCESS if name in columns.names]
    if not names:
        return {}
    frame = columns.frame(["pid", *names]).drop_duplicates("pid").fillna({"ns_pid": 0, "netns": 0})
    return {
        int(pid): Process(int(pid), **dict(zip(names, map(_plain, each), strict=True)))
        for pid, *each in frame.to_numpy().tolist()
    }


def _attempts(columns: "_Columns", trace: Trace) -> Attempts:
    rows = np.zeros(columns.count, ATTEMPT)
    for name in (*_AS_THEY_ARE, *_MARKS):
        rows[name] = columns.numbers(name)
    for name in _STACKS:
        rows[name] = columns.numbers(name) if name in columns.names else -1
    for name in _ADDRESSES:
        rows[name] = columns.packed(name)
    for name, kind in _WORDS.items():
        rows[name] = columns.coded(name, {each.name: each.value for each in kind}.__getitem__)
    rows["family"] = np.where(columns.numbers("family") == 4, 2, 10)
    rows["comm"] = columns.comms()
    rows["blocking"] = columns.flags("blocking")
    numbers = {reason: int(number) for number, reason in trace.host.drop_reasons.items()}
    rows["drop_reason"] = columns.coded("drop_reason", lambda word: _reason(word, numbers))
    rows["resent"] = columns.resent()
    return rows


def _reason(word: str, numbers: dict[str, int]) -> int:
    number = word.removeprefix("reason ")
    return numbers.get(word, int(number) if number.isdecimal() else 0)


class _Columns:
    # The columns of a file, each read when it is asked for: never all of them at once.
    def __init__(self, file: Any) -> None:
        self._file = file
        self.names = set(file.schema_arrow.names)
        self.count = file.metadata.num_rows

    def frame(self, names: list[str]) -> pd.DataFrame:
        frame: pd.DataFrame = self._file.read(names).to_pandas()
        return frame

    def numbers(self, name: str) -> npt.NDArray[np.int64]:
        column = self._column(name)
        if column.null_count:
            column = column.fill_null(0)
        values: npt.NDArray[np.int64] = column.to_numpy()
        return values

    def flags(self, name: str) -> npt.NDArray[np.int8]:
        column = self._column(name).cast(pa.int8())
        flags: npt.NDArray[np.int8] = column.fill_null(-1).to_numpy()
        return flags

    def texts(self, name: str) -> tuple[npt.NDArray[np.intp], list[str]]:
        # Which of the distinct texts each row has.
        coded = self._column(name).combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        return coded.indices.to_numpy(zero_copy_only=False), coded.dictionary.to_pylist()

    def coded(self, name: str, code: Callable[[str], int]) -> npt.NDArray[np.int64]:
        which, words = self.texts(name)
        return np.array([code(word) for word in words], np.int64)[which] if words else which

    def packed(self, name: str) -> npt.NDArray[np.void]:
        which, words = self.texts(name)
        known = np.array([*map(_packed, words), bytes(16)], "V16")
        return known[which]

    def comms(self) -> npt.NDArray[np.bytes_]:
        which, words = self.texts("comm")
        return np.array([*(word.encode()[:16] for word in words), b""], "S16")[which]

    def resent(self) -> npt.NDArray[np.void]:
        again = np.zeros((self.count, RESENT_KEPT), "<u4")
        if "resent_us" in self.names:
            lists = self._column("resent_us").combine_chunks()
            lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
            row = np.repeat(np.arange(self.count), lengths)
            place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            again[row, place] = lists.flatten().to_numpy(zero_copy_only=False)
        return again.view(f"V{4 * RESENT_KEPT}").reshape(-1)

    def _column(self, name: str) -> Any:
        return self._file.read([name]).column(0)


def _plain(value: Any) -> Any:
    # Where a column of numbers has gaps, pandas makes fractions of them.
    return int(value) if isinstance(value, float) else value


def _packed(text: str) -> bytes:
    if not text:
        return bytes(16)
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
