"""The matrix once more over its recordings, with events taken out of them at random."""

from __future__ import annotations

import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

from porttrace.lab.errors import LabError
from porttrace.lab.matrix import Case
from porttrace.lab.matrix_run import Row, files_of, findings_of
from porttrace.lab.matrix_table import verdict
from porttrace.lab.site import read_records
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.event import EVENT, Events, EventType
from porttrace.tracer.tracefile import TraceReader, TraceWriter

_OURS = (EventType.SEED, EventType.LOSS, EventType.WATCH)  # made in user space, where none is lost


def judge_again(case: Case, folder: Path, share: float, counted: bool) -> Row:
    """Judge the recording of one case, which `folder` holds, without `share` of its events."""
    recording, truth = files_of(case, folder)
    with tempfile.TemporaryDirectory(prefix="porttrace-matrix-") as private:
        less = Path(private) / "less.ptrace"
        try:
            drop_events(recording, less, share, zlib.crc32(case.key.encode()), counted)
            argv = [sys.executable, "-m", "porttrace.cli", "report", "--json", str(less)]
            row = verdict(case, findings_of(argv), read_records(truth.read_text()))
        except (PorttraceError, LabError, OSError, ValueError) as error:
            return {**verdict(case, [], []), "error": str(error)}
    return {**row, "error": ""}


def drop_events(source: Path, target: Path, share: float, seed: int, counted: bool = True) -> int:
    """Copy a recording without `share` (0..1) of its events and return how many were left out.

    With `counted` each batch has a LOSS record, as the tracer writes it; without, nobody can know.
    Raises TraceFileError when `source` cannot be read.
    """
    draw = np.random.default_rng(seed)
    lost = 0
    with TraceReader(source) as reader, target.open("wb") as file:
        writer = TraceWriter(file.write, reader.header)
        for batch in reader:
            kept = draw.random(len(batch.events)) >= share
            kept |= np.isin(batch.events["type"], _OURS)
            missing = int(np.count_nonzero(~kept))
            events = batch.events[kept]
            if missing and counted:
                events = np.concatenate([events, _loss(batch.events, missing)])
            writer.write(events, batch.beside)
            lost += missing
        writer.close()
    return lost


def _loss(events: Events, missing: int) -> Events:
    record = np.zeros(1, EVENT)
    record["type"] = EventType.LOSS
    record["start_ns"], record["time_ns"] = events["time_ns"].min(), events["time_ns"].max()
    record["in_flight"] = missing
    return record
