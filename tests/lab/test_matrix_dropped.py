"""A recording without some of its events: how many, and whether anything says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from porttrace.lab.matrix import Case
from porttrace.lab.matrix_dropped import drop_events, judge_again
from porttrace.lab.matrix_run import files_of
from porttrace.lab.story import Settings
from porttrace.tracer.event import EventType
from porttrace.tracer.tracefile import TraceReader
from recordings import batches_of, story, written


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "whole.ptrace"
    path.write_bytes(written(batches_of(story(400), [500])))
    return path


def types_in(path: Path) -> list[int]:
    with TraceReader(path) as reader:
        return [int(kind) for batch in reader for kind in batch.events["type"]]


@pytest.mark.parametrize("counted", [True, False])
def test_so_many_are_left_out_and_counted_if_asked(
    recording: Path, tmp_path: Path, counted: bool
) -> None:
    less = tmp_path / "less.ptrace"
    lost = drop_events(recording, less, 0.1, 7, counted)
    before, after = types_in(recording), types_in(less)
    assert 0.07 * len(before) < lost < 0.13 * len(before)
    assert after.count(EventType.LOSS) == (2 if counted else 0)
    assert len(after) - after.count(EventType.LOSS) == len(before) - lost
    with TraceReader(less) as reader:
        events = [each for batch in reader for each in batch.events]
    told = sum(int(each["in_flight"]) for each in events if each["type"] == EventType.LOSS)
    assert told == (lost if counted else 0)


def test_the_same_seed_takes_the_same(recording: Path, tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("1", "2", "3"))
    for path, seed in ((one, 7), (two, 7), (other, 8)):
        drop_events(recording, path, 0.1, seed)
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()


def test_a_recording_that_is_not_there_is_a_run_that_failed(tmp_path: Path) -> None:
    row = judge_again(Case("control/lock/1", "lock", Settings(), None), tmp_path, 0.1, True)
    assert "cannot read" in row["error"] or "No such file" in row["error"], row


def test_it_is_judged_by_what_is_left(recording: Path, tmp_path: Path) -> None:
    case = Case("control/lock/1", "lock", Settings(), None)
    kept, truth = files_of(case, tmp_path)
    recording.rename(kept)
    truth.write_text("")
    row = judge_again(case, tmp_path, 0.1, True)
    assert (row["error"], row["found"], row["control"]) == ("", None, True)
