"""Tracks are numbered once, and described when they are new."""

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

from porttrace.analysis.export.tracks import Tracks, event, packet


def test_a_track_keeps_its_number() -> None:
    tracks = Tracks({})
    first = tracks.thread(7, 8, 0, "client")
    assert tracks.thread(7, 8, 0, "another name") == first
    assert tracks.counter(7, "demand") != tracks.counter(7, "in flight")
    assert tracks.process(7) not in (first, tracks.losses(0))


def test_news_are_told_once() -> None:
    tracks = Tracks({})
    tracks.thread(7, 8, 1, "client")
    told = [p.track_descriptor for p in proto.Trace.FromString(tracks.news()).packet]
    assert [each.parent_uuid for each in told] == [0, told[0].uuid, told[1].uuid]
    assert tracks.news() == b""


def test_packets() -> None:
    (plain,) = proto.Trace.FromString(packet(b"")).packet
    (timed,) = proto.Trace.FromString(event(5, b"")).packet
    assert plain.trusted_packet_sequence_id == timed.trusted_packet_sequence_id != 0
    assert timed.timestamp == 5
