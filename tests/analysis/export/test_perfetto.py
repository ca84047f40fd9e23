"""What is written is read back by Perfetto's own classes, and its slices nest as they must."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

from builders import MS, S, events
from porttrace.analysis.export.perfetto import lanes, perfetto
from porttrace.analysis.model import Finding, Party, Trace
from porttrace.tracer.event import no_events
from porttrace.tracer.facts import Process
from recordings import story
from traces import trace_of

BEGIN, END, COUNTER = (
    proto.TrackEvent.TYPE_SLICE_BEGIN,
    proto.TrackEvent.TYPE_SLICE_END,
    proto.TrackEvent.TYPE_COUNTER,
)
Slice = tuple[str, float, float, int]  # name, begin and end in s, depth


class Read:
    """A written trace as a reader sees it."""

    def __init__(self, written: bytes) -> None:
        self.packets = proto.Trace.FromString(written).packet
        self.tracks = {
            p.track_descriptor.uuid: p.track_descriptor
            for p in self.packets
            if p.HasField("track_descriptor")
        }
        self.events = [p for p in self.packets if p.HasField("track_event")]

    def slices(self) -> dict[int, list[Slice]]:
        """Return the slices of each track, in order of their ends; begins and ends must match."""
        found, opened = defaultdict(list), defaultdict(list)
        # As the reader does: by time, and as written where times are equal.
        for packet in sorted(self.events, key=lambda p: p.timestamp):
            track, event = packet.track_event.track_uuid, packet.track_event
            if event.type == BEGIN:
                opened[track].append((event.name, packet.timestamp / S))
            elif event.type == END:
                name, begin = opened[track].pop()
                found[track].append((name, begin, packet.timestamp / S, len(opened[track])))
        assert not any(opened.values())
        return found

    def counter(self, name: str) -> list[tuple[float, int]]:
        """Return the values of the counters of this name."""
        numbers = {uuid for uuid, track in self.tracks.items() if track.name == name}
        return [
            (p.timestamp / S, p.track_event.counter_value)
            for p in self.events
            if p.track_event.track_uuid in numbers
        ]


def read(trace: Trace, *findings: Any) -> Read:
    return Read(b"".join(perfetto(trace, *findings)))


def arguments(event: Any) -> dict[str, Any]:
    return {each.name: getattr(each, each.WhichOneof("value")) for each in event.debug_annotations}


def test_an_attempt_is_a_slice_with_its_places_inside() -> None:
    told = events().connect(at=3 * S, held_ns=2 * S, tid=9).syn_sent(S).refused(after_ns=4 * S)
    found = read(trace_of(told.array(), processes={7: Process(7, 1, "web")}))
    assert list(found.slices().values()) == [
        [
            ("gate", 1.0, 3.0, 1),
            ("connect", 3.0, 4.0, 1),
            ("SYN_SENT", 4.0, 8.0, 1),
            ("192.0.2.2:80", 1.0, 8.0, 0),
        ]
    ]
    process, thread = list(found.tracks.values())[:2]
    assert (process.process.pid, process.process.process_name) == (7, "web")
    assert (thread.thread.pid, thread.thread.tid, thread.thread.thread_name) == (7, 9, "client")
    assert thread.parent_uuid == process.uuid


def test_arguments() -> None:
    found = read(trace_of(events().connect().syn_sent().refused().array()))
    whole, place, *_ = (p.track_event for p in found.events if p.track_event.type == BEGIN)
    told = {"destination": "192.0.2.2:80", "outcome": "refused", "errno": "ECONNREFUSED"}
    assert arguments(place) == told
    assert arguments(whole) == told | {
        "attempt_id": 1, "uid": 1000, "saddr": "192.0.2.1", "sport": 53505, "origin": "connect",
        "retransmits": 0,
    }  # fmt: skip


def test_a_sleep_in_user_code_stands_before_its_attempt() -> None:
    told = events().connect(at=3 * S, slept_ns=S).syn_sent(S).established(after_ns=S)
    (slices,) = read(trace_of(told.array())).slices().values()
    assert slices[0] == ("user", 2.0, 3.0, 0)
    assert slices[-1] == ("192.0.2.2:80", 3.0, 5.0, 0)


def test_sockets_that_do_not_block_lie_on_tracks_of_their_own() -> None:
    told = events()
    for at in (1, 2, 3):
        told.connect(at=at * S).syn_sent().in_progress().established(after_ns=4 * S)
    told.connect(at=20 * S).syn_sent().established()
    found = read(trace_of(told.array()))
    names = [found.tracks[track].name for track in found.slices()]
    assert sorted(names) == ["", "more attempts", "more attempts"]
    thread = next(uuid for uuid, track in found.tracks.items() if track.thread.tid)
    parents = {t.parent_uuid for t in found.tracks.values() if t.name == "more attempts"}
    assert parents == {thread}


def test_what_goes_on_ends_with_the_trace() -> None:
    (slices,) = read(trace_of(events().connect(at=S).syn_sent(S).array())).slices().values()
    assert slices[1] == ("SYN_SENT", 2.0, 100.0, 1)


def test_sockets_older_than_the_trace() -> None:
    found = read(trace_of(events().seed(sport=4000, at=S).end(1, after_ns=S).array()))
    ((track, slices),) = found.slices().items()
    assert found.tracks[track].name == "older than the trace"
    assert slices[0] == ("SYN_SENT", 0.0, 2.0, 1)


def test_counters_of_a_process() -> None:
    told = events().connect(at=S).syn_sent(S).established(after_ns=S)
    found = read(trace_of(told.array()))
    assert found.counter("demand") == [(1.0, 1), (3.0, 0)]
    assert found.counter("in flight") == [(2.0, 1), (3.0, 0)]


def test_losses_have_a_track_a_cpu() -> None:
    told = events().loss(S, 2 * S, 5, cpu=1).loss(S, 3 * S, 2, cpu=0)
    found = read(trace_of(told.array()))
    slices = {found.tracks[track].name: rows for track, rows in found.slices().items()}
    assert slices["events lost on CPU 1"] == [("5 lost", 1.0, 2.0, 0)]
    assert slices["events lost on CPU 0"] == [("2 lost", 1.0, 3.0, 0)]


def test_the_clock_is_that_of_the_marks() -> None:
    first, *rest = read(trace_of(story(), wall_offset_ns=5 * S)).packets
    clocks = {each.clock_id: each.timestamp for each in first.clock_snapshot.clocks}
    assert clocks == {proto.BUILTIN_CLOCK_MONOTONIC: 0, proto.BUILTIN_CLOCK_REALTIME: 5 * S}
    assert {p.timestamp_clock_id for p in rest} == {proto.BUILTIN_CLOCK_MONOTONIC}


def test_attempts_of_a_finding_say_so() -> None:
    told = events()
    told.connect(at=S).syn_sent().established()
    told.connect(at=2 * S, to="192.0.2.3:80").syn_sent().established()
    party = Party(2, 7, 7, "client", "192.0.2.3:80", "established", 1.0, 2 * S)
    finding = Finding("dead-destination", "info", 0.9, {}, "", victims=(party,))
    roles = {
        p.track_event.name: arguments(p.track_event).get("dead-destination")
        for p in read(trace_of(told.array()), [finding]).events
        if p.track_event.name.startswith("192")
    }
    assert roles == {"192.0.2.2:80": None, "192.0.2.3:80": "waited"}


def test_a_track_is_described_before_its_first_event() -> None:
    known: set[int] = set()
    for packet in read(trace_of(story())).packets:
        if packet.HasField("track_descriptor"):
            assert packet.track_descriptor.parent_uuid in known | {0}
            known.add(packet.track_descriptor.uuid)
        elif packet.HasField("track_event"):
            assert packet.track_event.track_uuid in known


def test_nothing_at_all() -> None:
    assert not read(trace_of(no_events())).events


def test_names_that_are_no_text() -> None:
    told = events().connect(comm=b"\xff\x1b").syn_sent().established()
    found = read(trace_of(told.array(), processes={7: Process(7, 1, "\udcfe")}))
    assert {t.process.process_name for t in found.tracks.values() if t.process.pid} == {"\\xfe"}
    assert {t.thread.thread_name for t in found.tracks.values() if t.thread.tid} == {"\\xff\x1b"}


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(0, 50), st.integers(0, 20)), max_size=40))
def test_slices_of_a_lane_never_overlap(drawn: list[tuple[int, int, int]]) -> None:
    rows = sorted(drawn, key=lambda row: row[1])
    tids, begin = [row[0] for row in rows], [row[1] for row in rows]
    over = [at + length for _, at, length in rows]
    found = lanes([7] * len(rows), tids, begin, over)
    free: dict[tuple[int, int], int] = {}
    for tid, lane, since, until in zip(tids, found, begin, over, strict=True):
        assert free.get((tid, lane), 0) <= since
        free[tid, lane] = until


@pytest.mark.parametrize("held_ns", [0, MS])
def test_chunks_make_no_difference(held_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_of(story(60))
    whole = b"".join(perfetto(trace))
    monkeypatch.setattr("porttrace.analysis.export.perfetto._CHUNK", 7)
    assert b"".join(perfetto(trace)).count(b"SYN_SENT") == whole.count(b"SYN_SENT")
    assert Read(b"".join(perfetto(trace))).slices() == Read(whole).slices()
