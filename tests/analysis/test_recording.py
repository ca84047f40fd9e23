"""A trace file becomes the trace that was recorded, however it was cut into batches."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import MS, NEVER, S, events, packed
from porttrace.analysis import load, recording
from porttrace.analysis.assemble import assemble
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.model import Attempts, Trace, no_attempts
from porttrace.tracer.beside import Beside, End
from porttrace.tracer.event import Events
from porttrace.tracer.facts import Held, Sample, Usage
from porttrace.tracer.live import Round
from porttrace.tracer.parts import Parts, Rotation
from porttrace.tracer.recorder import Pace, Recorder
from porttrace.tracer.tracefile import Batch, TraceFileError
from recordings import END, HEADER, PROCESS, SUSPECT, batches_of, story, written

TABLE = story(40)


def whole(table: Events, end_ns: int = END.end_ns) -> Attempts:
    rows, carried = step(table, Open(), NEVER)
    return assemble(Trace(no_attempts(), 0, end_ns), [rows], carried).rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, len(TABLE)), max_size=12), at_once=st.sampled_from([1, 20, 10_000])
)
def test_cuts_change_nothing(tmp_path: Path, cuts: list[int], at_once: int) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(written(batches_of(TABLE, cuts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "AT_ONCE", at_once)
        found = load(path)
    assert np.asarray(found.trace.attempts).tobytes() == whole(TABLE).tobytes()
    assert found.complete and found.why_incomplete == ""
    assert found.trace.events == len(TABLE)


def test_what_came_beside_is_in_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    loss = events().loss(3 * S, 4 * S, count=5).array()
    facts = Beside(5, 77, {7: PROCESS}, {3: ("f",)}, {7: (SUSPECT,)})
    last = Beside(1 << 62, 78, end=END)
    path.write_bytes(written([Batch(loss, facts), Batch(loss[:0], last)]))
    found = load(path)
    trace = found.trace
    assert (trace.start_ns, trace.end_ns, trace.wall_offset_ns) == (S // 2, 99 * S, 78)
    assert (trace.processes, trace.stacks, trace.suspects) == (
        {7: PROCESS}, {3: ("f",)}, {7: (SUSPECT,)},
    )  # fmt: skip
    assert (trace.host, trace.filter, trace.notes) == (HEADER.host, "pid 7", END.notes)
    assert trace.not_looked == END.not_looked
    assert [each.count for each in trace.losses] == [5]
    assert found.header.part == 0
    assert found.trust.lost_events == 5 and not found.trust.complete


def test_samples_are_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    first = Sample(1, 42, 7, {"ListenDrops": 0}, {"tw": 1}, {"somaxconn": "8"}, {}, (), Usage(), ())
    other = replace(first, netns=43, time_ns=2)
    short = Sample(3, 42, 8, counters={"ListenDrops": 5})
    batches = [
        Batch(TABLE[:0], Beside(5, samples=(first, other))),
        Batch(TABLE[:0], Beside(6, samples=(short,))),
        Batch(TABLE[:0], Beside(7, end=END)),
    ]
    path.write_bytes(written(batches))
    last = replace(first, time_ns=3, pid=8, counters={"ListenDrops": 5})
    assert load(path).trace.samples == (first, other, last)


def test_a_cut_recording_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(written(batches_of(TABLE, [30], end=None), close=False)[:-10])
    found = load(path)
    assert not found.complete and not found.trust.complete
    assert "without the mark" in found.why_incomplete
    assert found.trust.notes[-1] == f"The recording is incomplete: {found.why_incomplete}."
    assert HEADER.notes[0] in found.trust.notes
    assert found.trace.events == 30
    # it ends where it is known to have been
    assert found.trace.end_ns == int(TABLE["time_ns"][30])


def held(tid: int) -> Held:
    return Held(7, tid, "gate", 2 * S, "web", packed("192.0.2.2"), 80, ())


def test_who_is_held_at_the_end_is_pending(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    table = events().connect(tid=8, at=3 * S, held_ns=S).syn_sent().array()
    look = Batch(table[:0], Beside(2 * S, held=(held(8), held(9))))
    path.write_bytes(written([look, *batches_of(table, [])][:1], close=False))
    assert load(path).trace.attempts["tid"].tolist() == [8, 9]
    # the numbers of batches must follow each other
    path.write_bytes(written([look, Batch(table, Beside(4 * S, end=END))]))
    found = load(path).trace.attempts
    assert sorted(found["tid"].tolist()) == [8, 9], "who went on is there once"


def test_tables_and_findings_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(written(batches_of(TABLE, [9, 9, 40])))
    found = load(path)
    assert found.events.tobytes() == TABLE.tobytes()
    assert len(found.attempts) == len(found.trace.attempts)
    assert len(found.binds) == 0
    assert found.concurrency()["demand"].max() >= 1
    assert found.findings == load(path).findings
    assert found.attempts is found.attempts


def test_what_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("hello")
    with pytest.raises(TraceFileError, match=str(path)):
        load(path)


def test_neither_loading_nor_its_trace_needs_pandas(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(written(batches_of(TABLE, [30])))
    code = (
        "import sys; from porttrace.analysis import load; "
        "import porttrace.analysis as a; assert 'load' not in vars(a); "
        f"load({str(path)!r}).findings; print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_importing_analysis_is_light() -> None:
    code = "import sys, porttrace.analysis; print({'numpy', 'pandas', 'pyarrow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# -- parts -----------------------------------------------------------------------------------


def test_every_attempt_ends_in_exactly_one_part(tmp_path: Path) -> None:
    # GIVEN a recording in parts, cut after every few events
    rotation = Rotation(size=1)
    carry = lambda old, new, mark: step(new, Open(old), mark)[1].events  # noqa: E731
    pace = Pace(flush_s=0.001, least_rows=1)
    with Recorder(Parts(str(tmp_path / "a"), rotation=rotation), HEADER, carry, pace) as recorder:
        for batch in batches_of(TABLE, range(0, len(TABLE), 9)):
            recorder.put(Round(batch.events, batch.beside.watermark_ns))
            while recorder._waiting.rows:
                pass
        recorder.finish(END)
    parts = [load(path) for path in sorted(tmp_path.iterdir())]
    assert len(parts) > 5 and all(part.complete for part in parts)
    rows = np.concatenate([part.trace.attempts for part in parts])
    # THEN each attempt that ended is there once, as in the whole trace
    names = [name for name in rows.dtype.names or () if not name.endswith("at_start")]
    names.remove("attempt_id")
    ended, expected = rows[rows["end_ns"] > 0][names], whole(TABLE)[names]
    expected = expected[expected["end_ns"] > 0]
    assert sorted(ended.tolist(), key=str) == sorted(expected.tolist(), key=str)
    # AND in the parts before it was pending, since it began
    assert set(rows["syn_ns"].tolist()) == set(whole(TABLE)["syn_ns"].tolist())


def test_a_part_that_continues_leaves_the_last_word_to_the_next(tmp_path: Path) -> None:
    table = events().connect(at=S).syn_sent().in_progress().refused(after_ns=MS).array()
    path = tmp_path / "a"
    cut = End(2 * S, continues=True)
    path.write_bytes(written([Batch(table[:3], Beside(int(table["time_ns"][2]), end=cut))]))
    assert load(path).attempts["outcome"].tolist() == ["pending"]


def test_what_is_read_ahead_comes_in_order_and_so_do_errors() -> None:
    def lines() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk failed")

    seen: list[int] = []
    with pytest.raises(OSError, match="the disk failed"):
        for number in recording.ahead(lines()):
            seen.append(number)
    assert seen == [0, 1, 2, 3, 4]
    assert list(recording.ahead([])) == []
