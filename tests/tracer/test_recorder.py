"""Recording: rounds in, batches out; what cannot be written is counted, never hidden."""

import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from builders import MS, S, events
from fakelive import FakeLive, Story
from porttrace.tracer.beside import End, filled
from porttrace.tracer.event import EVENT, Events, EventType, no_events
from porttrace.tracer.facts import Process, Sample, Usage
from porttrace.tracer.live import LiveTrace, Round
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.order import FOREVER_NS
from porttrace.tracer.output import OutputError
from porttrace.tracer.parts import Parts, Rotation
from porttrace.tracer.recorder import Pace, Recorder, end, header, lost_in
from porttrace.tracer.tracefile import Batch
from recordings import END, HEADER, HELD, PROCESS, SUSPECT, read, story

QUICK = Pace(flush_s=0.01)


def rows_of(batches: list[Batch]) -> Events:
    return np.concatenate([no_events(), *(batch.events for batch in batches)])


def rounds_of(table: Events, size: int) -> list[Round]:
    pieces = [table[at : at + size] for at in range(0, len(table), size)]
    return [Round(piece, int(piece["time_ns"][-1])) for piece in pieces[:-1]] + [
        Round(pieces[-1], FOREVER_NS)
    ]


def test_what_was_put_is_what_is_read(tmp_path: Path) -> None:
    path, table = tmp_path / "a.ptrace", story()
    with Recorder(Parts(str(path)), HEADER, pace=QUICK) as recorder:
        for done in rounds_of(table, 7):
            recorder.put(done)
            time.sleep(0.002)
        recorder.finish(END)
    batches, reader = read(path)
    assert rows_of(batches).tobytes() == table.tobytes()
    assert reader.complete and batches[-1].beside.end == END
    assert batches[-1].beside.watermark_ns == FOREVER_NS
    assert (recorder.events, recorder.lost) == (len(table), 0)
    assert recorder.parts.size == path.stat().st_size


def test_facts_come_with_the_first_batch_after_them(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    with Recorder(Parts(str(path)), HEADER, pace=QUICK) as recorder:
        recorder.put(Round(no_events(), 5, {7: PROCESS}, {3: ("f",)}))
        recorder.look([HELD], {9: (SUSPECT,)})
        recorder.look([HELD], {9: (SUSPECT,)})
        recorder.finish(END)
    batches, _ = read(path)
    told = [batch.beside for batch in batches]
    assert [each.processes for each in told if each.processes] == [{7: PROCESS}]
    assert [each.stacks for each in told if each.stacks] == [{3: ("f",)}]
    assert [each.suspects for each in told if each.suspects] == [{9: (SUSPECT,)}]
    assert next(each.held for each in told if each.held is not None) == (HELD,)


def test_a_census_that_was_taken_again_is_told_again(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    other = replace(SUSPECT, pid=6)
    with Recorder(Parts(str(path)), HEADER, pace=QUICK) as recorder:
        for found in ((SUSPECT,), (SUSPECT,), (SUSPECT, other)):
            recorder.look([], {9: found})
            recorder.put(Round(story()[:1], 5))
            time.sleep(0.05)
        recorder.finish(END)
    batches, _ = read(path)
    told = [batch.beside.suspects for batch in batches if batch.beside.suspects]
    assert told == [{9: (SUSPECT,)}, {9: (SUSPECT, other)}]


def test_a_large_round_becomes_several_batches(tmp_path: Path) -> None:
    path, table = tmp_path / "a.ptrace", story(60)
    pace = Pace(flush_s=0.01, least_rows=10, most_rows=16)
    with Recorder(Parts(str(path)), HEADER, pace=pace) as recorder:
        recorder.put(Round(table, FOREVER_NS, {7: PROCESS}))
        recorder.finish(END)
    batches, _ = read(path)
    assert max(len(batch.events) for batch in batches) == 16
    assert rows_of(batches).tobytes() == table.tobytes()
    # no watermark promises more than is true
    for batch, following in pairwise(batches):
        if len(following.events):
            assert batch.beside.watermark_ns <= following.events["time_ns"][0]


def test_a_quiet_trace_takes_no_room(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    with Recorder(Parts(str(path)), HEADER, pace=Pace(flush_s=0.001)) as recorder:
        for number in range(50):
            recorder.put(Round(no_events(), number))
            recorder.look([], {})
            time.sleep(0.001)
        recorder.finish(END)
    assert len(read(path)[0]) <= 3


def test_without_a_finish_the_file_is_readable_and_not_complete(tmp_path: Path) -> None:
    path, table = tmp_path / "a.ptrace", story()
    with pytest.raises(ZeroDivisionError), Recorder(Parts(str(path)), HEADER) as recorder:
        recorder.put(Round(table, 5))
        raise ZeroDivisionError
    batches, reader = read(path)
    assert rows_of(batches).tobytes() == table.tobytes()
    assert not reader.complete and "after 1 whole batch," in reader.why_incomplete


# -- a disk that cannot keep up, or fails ------------------------------------------------


class SlowDisk(Parts):
    """Files on a disk that stands still until `goes_on` is set."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.goes_on = threading.Event()
        write = self.open.write

        def waits(data: bytes) -> None:
            self.goes_on.wait(20)
            write(data)

        self.open.write = waits  # type: ignore[method-assign]


def test_a_full_queue_counts_what_it_drops(tmp_path: Path) -> None:
    # GIVEN a disk that stands still, and room for 100 events before it
    path, table = tmp_path / "a.ptrace", story(200)
    pace = Pace(flush_s=0.01, least_rows=10, queue_bytes=100 * EVENT.itemsize)
    rounds = rounds_of(table, 50)
    loss = events().loss(1, 2, count=30).array()
    disk = SlowDisk(str(path))
    with Recorder(disk, HEADER, pace=pace) as recorder:
        # WHEN rounds come all the same
        begin = time.monotonic()
        for done in rounds[:-1]:
            recorder.put(done)
        recorder.put(Round(loss, 5, {8: Process(8)}))
        assert time.monotonic() - begin < 1, "reading never waits"
        disk.goes_on.set()
        recorder.finish(END)
    # THEN the file says exactly how many are missing, with their time
    batches, reader = read(path)
    rows = rows_of(batches)
    there = rows[rows["type"] != EventType.LOSS]
    put = sum(len(done.events) for done in rounds[:-1])
    assert reader.complete
    assert 0 < len(there) < put
    assert lost_in(rows) == put - len(there) + 30 == recorder.lost
    made = rows[(rows["type"] == EventType.LOSS) & (rows["cpu"] == 0xFFFF)]
    assert len(made) >= 1 and made["start_ns"][0] <= made["time_ns"][0]
    # AND facts were not dropped
    assert any(8 in batch.beside.processes for batch in batches)


def test_an_error_of_the_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, table = tmp_path / "a.ptrace", story()
    parts = Parts(str(path))
    write, calls = parts.open.write, []

    def fails(data: bytes) -> None:
        calls.append(data)
        if len(calls) == 3:
            raise OutputError("cannot write it: No space left on device", "free some")
        write(data)

    monkeypatch.setattr(parts.open, "write", fails)
    with Recorder(parts, HEADER, pace=QUICK) as recorder:
        for done in rounds_of(table, 5):
            recorder.put(done)
            time.sleep(0.03)
        assert recorder.error is not None
        with pytest.raises(OutputError, match="No space"):
            recorder.finish(END)
    batches, reader = read(path)
    assert rows_of(batches).tobytes() == table[:10].tobytes()
    assert not reader.complete
    assert recorder._waiting.rows == 0, "nothing is kept for a disk that failed"


# -- parts ---------------------------------------------------------------------------------


def test_each_part_has_what_is_still_needed(tmp_path: Path) -> None:
    # GIVEN an attempt that outlives the first part, and a process that does not
    table = events().connect(at=S).syn_sent().in_progress().array()
    exits = events()
    exits.add(EventType.EXIT, 2 * S, pid=8, flags=64)
    parts = Parts(str(tmp_path / "a.ptrace"), rotation=Rotation(size=1))
    carry = lambda carried, new, _: np.concatenate([carried, new[new["pid"] == 7]])  # noqa: E731
    with Recorder(parts, HEADER, carry, QUICK) as recorder:
        recorder.look([HELD], {9: (SUSPECT,)})
        recorder.put(Round(table, 2 * S, {7: PROCESS, 8: Process(8)}, {3: ("f",)}))
        time.sleep(0.4)
        for watermark_ns in (3 * S, 4 * S):
            recorder.put(Round(exits.array(), watermark_ns))
            time.sleep(0.4)
        recorder.finish(END)
    found = [read(path) for path in sorted(tmp_path.iterdir())]
    assert len(found) >= 3
    # THEN every part is whole, says which it is, and begins where the one before ended
    assert all(reader.complete for _, reader in found)
    assert [reader.header.part for _, reader in found] == list(range(1, len(found) + 1))
    for (batches, _), (_, following) in pairwise(found):
        cut = batches[-1].beside.end
        assert cut is not None and cut.continues
        assert following.header.start_ns == cut.end_ns
    # AND brings along what is needed to read it alone
    first = found[1][0][0]
    assert first.events.tobytes() == table.tobytes()
    assert first.beside.carried == len(table)
    assert first.beside.processes == {7: PROCESS, 8: Process(8)}
    assert first.beside.stacks == {3: ("f",)}
    assert first.beside.suspects == {9: (SUSPECT,)}
    assert first.beside.held == (HELD,)
    # AND drops what is gone
    assert set(found[-1][0][0].beside.processes) == {7}


# -- of a live trace -----------------------------------------------------------------------


def test_header_and_end_of_a_live_trace() -> None:
    live = cast(
        LiveTrace, FakeLive(TraceOptions(), Story(missing=["holds before the call"]), start_ns=5)
    )
    about = header(live)
    assert (about.start_ns, about.filter, about.gates_seen) == (5, "", False)
    assert any("whole host" in note for note in about.notes)
    assert abs(about.wall_offset_ns + time.monotonic_ns() - time.time_ns()) < 50 * MS
    last = end(live, 9)
    assert last == End(9, last.counters, about.notes)
    assert last.counters["events"] == 0


def test_samples_are_told_once_and_anew_in_each_part(tmp_path: Path) -> None:
    # GIVEN a namespace of which only the counters change
    first = Sample(S, 42, 7, {"ListenDrops": 0}, {"tw": 1}, {"somaxconn": "8"}, {}, (), Usage(), ())
    second = replace(first, time_ns=2 * S, counters={"ListenDrops": 3})
    third = replace(second, time_ns=3 * S, sockets={"tw": 2})
    nothing = story()[:0]
    parts = Parts(str(tmp_path / "a.ptrace"), rotation=Rotation(size=1))
    with Recorder(parts, HEADER, lambda carried, new, _: nothing, QUICK) as recorder:
        for sample in (first, second, third):
            recorder.put(Round(nothing, sample.time_ns, samples=(sample,)))
            time.sleep(0.4)
        recorder.finish(END)
    found = [read(path) for path in sorted(tmp_path.iterdir())]
    told = [[s for batch in batches for s in batch.beside.samples] for batches, _ in found]
    # THEN each part begins with all that is known, and only what is new follows
    assert len(found) >= 3
    assert all(each[0].settings == {"somaxconn": "8"} for each in told)
    assert all(each.settings is None for part in told for each in part[1:])
    whole = [filled(part[at], part[0]) for part in told for at in range(len(part))]
    assert [each.time_ns // S for each in whole] == sorted(each.time_ns // S for each in whole)
    assert {each.time_ns: each for each in whole} == {S: first, 2 * S: second, 3 * S: third}
