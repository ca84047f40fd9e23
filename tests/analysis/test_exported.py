"""A recording that was exported is read back as the trace it was, but for what its page lists."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from porttrace.analysis import tables
from porttrace.analysis.export.parquet import attempts_file, events_file
from porttrace.analysis.exported import load_exported
from porttrace.analysis.findings import diagnose
from porttrace.analysis.model import Trace
from porttrace.analysis.recording import load
from porttrace.tracer.event import no_events
from porttrace.tracer.tracefile import DamagedError, NotATraceError, TraceFileError
from recordings import story
from traces import trace_of

DATA = Path(__file__).parent.parent / "data"
FILES = sorted(DATA.glob("v*-*.ptrace"))
# What the file does not have, and what it has of each process.
_LEFT_OUT = ("attempts", "binds", "looked", "accepted", "samples", "processes")
_NOT_IN_IT = ("kernel_in_flight",)


def exported(trace: Trace, folder: Path) -> Path:
    path = folder / "a.parquet"
    path.write_bytes(b"".join(attempts_file(trace)))
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_there_and_back(path: Path, tmp_path: Path) -> None:
    before = load(path).trace
    after = load_exported(exported(before, tmp_path)).trace
    for each in fields(Trace):
        if each.name not in _LEFT_OUT:
            assert getattr(after, each.name) == getattr(before, each.name), each.name
    for name in before.rows.dtype.names or ():
        if name not in _NOT_IN_IT:
            assert np.array_equal(after.attempts[name], before.attempts[name]), name
    assert {pid: each.exe for pid, each in after.processes.items()} == {
        pid: each.exe for pid, each in before.processes.items()
    }
    about_binds = ("bind-conflict", "port-shared", "accept-queue")
    wanted = [each for each in diagnose(before) if each.rule not in about_binds]
    assert [(each.rule, each.summary) for each in diagnose(after)] == [
        (each.rule, each.summary) for each in wanted
    ]


def test_command_lines_stay_out(tmp_path: Path) -> None:
    trace = load(FILES[-1]).trace
    assert any(each.cmdline for each in trace.processes.values())
    found = load_exported(exported(trace, tmp_path)).trace.processes
    assert found and not any(each.cmdline for each in found.values())


def test_without_metadata_the_columns_tell(tmp_path: Path) -> None:
    trace = load(FILES[-1]).trace
    table = pq.read_table(exported(trace, tmp_path)).replace_schema_metadata({})
    table = table.drop_columns(["gate_stack", "connect_stack", "resent_us"])
    pq.write_table(table, tmp_path / "bare.parquet")
    bare = load_exported(tmp_path / "bare.parquet").trace
    assert bare.host.name == trace.host.name
    assert bare.notes
    one, other = tables.attempts(bare), tables.attempts(trace)
    for name in ("destination", "outcome", "held_ns", "exe", "container", "retransmits"):
        assert one[name].tolist() == other[name].tolist(), name


def test_no_attempts(tmp_path: Path) -> None:
    assert not len(load_exported(exported(trace_of(no_events()), tmp_path)).trace.attempts)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.events.parquet"
    path.write_bytes(b"".join(events_file(story())))
    with pytest.raises(NotATraceError, match="it lacks the columns"):
        load_exported(path)
    whole = exported(trace_of(story()), tmp_path)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(DamagedError, match=r"cut\.parquet is damaged"):
        load_exported(cut)
    with pytest.raises(TraceFileError, match="it is not there"):
        load_exported(tmp_path / "gone.parquet")
