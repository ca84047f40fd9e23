"""A trace as ui.perfetto.dev shows it: a track a thread, a slice an attempt, counters a process.

    process website
      in flight, demand            counters
      thread page-1                [user][192.0.2.2:389           ]
                                         [gate][connect][SYN_SENT ]
        more attempts              those that overlap: sockets that do not block

The format is a run of TracePacket messages (field numbers from perfetto_trace.proto, which never
change). Marks stay what they are, CLOCK_MONOTONIC nanoseconds; a clock snapshot gives the wall
clock. Packets of one track are in order of time; Perfetto sorts the tracks together.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from errno import errorcode
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from porttrace.analysis import concurrency, tables
from porttrace.analysis.concurrency import Steps
from porttrace.analysis.export.protobuf import integer, message, string
from porttrace.analysis.export.tracks import Tracks, event, packet
from porttrace.analysis.holds import spans
from porttrace.analysis.model import Finding, Origin, Trace, start_ns

_REALTIME, _MONOTONIC = 1, 3
_BEGIN, _END = 1, 2
_COUNTER_TYPE = integer(9, 4)
_CHUNK = 8192  # attempts, or steps of a counter, that are written at once
_PLACES = ("gate", "connect", "SYN_SENT")
_BOUNDS = ("begin", "first", *_PLACES, "over")
_ARGUMENTS = ("attempt_id", "uid", "saddr", "sport", "origin", "retransmits")
_SHOWN = ("pid", "tid", "comm", "destination", "outcome", "errno", *_ARGUMENTS)


def perfetto(trace: Trace, findings: Sequence[Finding] = ()) -> Iterator[bytes]:
    """Yield the file in pieces; attempts that `findings` name say which part they had in them."""
    tracks = Tracks(trace.processes)
    yield _clock(trace)
    yield from _attempts(trace, tracks, _roles(findings))
    for name, steps in (("in flight", concurrency.in_flight), ("demand", concurrency.demand)):
        yield from _counter(tracks, name, steps(trace.attempts, "process", trace.end_ns))
    yield _losses(trace, tracks)


def _clock(trace: Trace) -> bytes:
    times = {_MONOTONIC: trace.start_ns, _REALTIME: trace.start_ns + trace.wall_offset_ns}
    clocks = (integer(1, clock) + integer(2, time_ns) for clock, time_ns in times.items())
    return packet(message(6, b"".join(message(1, c) for c in clocks) + integer(2, _MONOTONIC)))


def _roles(findings: Sequence[Finding]) -> dict[int, bytes]:
    roles: dict[int, bytes] = {}
    for finding in findings:
        for role, parties in (("waited", finding.victims), ("in front", finding.blockers)):
            for party in parties:
                told = _argument(finding.rule, role)
                roles[party.attempt_id] = roles.get(party.attempt_id, b"") + told
    return roles


def _attempts(trace: Trace, tracks: Tracks, roles: Mapping[int, bytes]) -> Iterator[bytes]:
    frame = pd.concat([tables.attempts(trace)[list(_SHOWN)], _bounds(trace)], axis=1)
    frame = frame.sort_values("begin", kind="stable")
    columns = (frame[name].to_numpy() for name in ("pid", "tid", "begin", "over"))
    frame["lane"] = lanes(*(column.tolist() for column in columns))
    for at in range(0, len(frame), _CHUNK):
        # Any: a tuple with the columns as fields, which a type checker cannot know.
        rows: Iterator[Any] = frame.iloc[at : at + _CHUNK].itertuples(index=False)
        pieces = [_attempt(tracks, row, roles.get(row.attempt_id, b"")) for row in rows]
        yield tracks.news() + b"".join(pieces)


def _attempt(tracks: Tracks, row: Any, role: bytes) -> bytes:
    track = integer(11, tracks.thread(row.pid, row.tid, row.lane, row.comm))
    told = _told(row.destination, row.outcome, row.errno)
    places = [(name, getattr(row, name)) for name in (*_PLACES, "over")]
    inside = b"".join(
        _slice(track, name, begin_ns, until_ns, told)
        for (name, begin_ns), (_, until_ns) in pairwise(places)
        if until_ns > begin_ns
    )
    more = b"".join(_argument(name, getattr(row, name)) for name in _ARGUMENTS) + role
    begin, end = _ends(track, row.destination, row.first, row.over, told + more)
    user = _slice(track, "user", row.begin, row.first, told) if row.begin < row.first else b""
    return user + begin + inside + end


def _ends(
    track: bytes, name: str, begin_ns: int, until_ns: int, told: bytes
) -> tuple[bytes, bytes]:
    # `track` is the field that names it, `told` are arguments.
    begin = event(begin_ns, integer(9, _BEGIN) + track + string(23, name) + told)
    return begin, event(until_ns, integer(9, _END) + track)


def _slice(track: bytes, name: str, begin_ns: int, until_ns: int, told: bytes) -> bytes:
    return b"".join(_ends(track, name, begin_ns, until_ns, told))


def _argument(name: str, value: int | str) -> bytes:
    shown = string(6, value) if isinstance(value, str) else integer(4, value)
    return message(4, string(10, name) + shown)


@lru_cache(maxsize=65_536)
def _told(where: str, outcome: str, errno: int) -> bytes:
    told = _argument("destination", where) + _argument("outcome", outcome)
    return told + _argument("errno", errorcode.get(errno, str(errno)) if errno else "none")


# When each slice of each attempt begins, ns: columns _BOUNDS, in this order of time. One that
# begins when the next one does is not there.
def _bounds(trace: Trace) -> pd.DataFrame:
    rows = trace.attempts
    over = concurrency.resolved_ns(rows, trace.end_ns)
    seeded = rows["origin"] == Origin.seeded
    first = np.where(seeded, np.minimum(trace.start_ns, over), start_ns(rows))
    over = np.maximum(over, first)
    syn = np.where(rows["syn_ns"] > 0, rows["syn_ns"], over)
    syn = np.where(seeded, first, syn)
    call = np.where(rows["call_ns"] > 0, rows["call_ns"], syn)
    gate = np.where(rows["gate_ns"] > 0, rows["gate_ns"], call)
    user = spans(rows, "user", trace.end_ns)
    begin = np.where((user.lengths() > 0) & (user.start < first), user.start, first)
    columns = np.column_stack([begin, first, gate, call, syn, over])
    # A mark out of order would tear the track: each is at least the one before it.
    return pd.DataFrame(np.maximum.accumulate(columns, axis=1), columns=list(_BOUNDS))


def lanes(
    pids: Iterable[int], tids: Iterable[int], begin: Iterable[int], over: Iterable[int]
) -> list[int]:
    """Return for each attempt which track of its thread it lies on, so that none overlap.

    All four have one item an attempt, sorted by `begin` (ns). Slices of one track must not
    overlap, and a thread may have many sockets in SYN_SENT that do not block.
    """
    ends: dict[tuple[int, int], list[tuple[int, int]]] = {}
    found = []
    for pid, tid, since, until in zip(pids, tids, begin, over, strict=True):
        used = ends.setdefault((pid, tid), [])
        lane = heapq.heappop(used)[1] if used and used[0][0] <= since else len(used)
        heapq.heappush(used, (until, lane))
        found.append(lane)
    return found


def _counter(tracks: Tracks, name: str, steps: Steps) -> Iterator[bytes]:
    for at in range(0, len(steps), _CHUNK):
        part = steps[at : at + _CHUNK]
        columns = (part[column].tolist() for column in ("scope", "time_ns", "count"))
        pieces = [
            event(
                time_ns, _COUNTER_TYPE + integer(11, tracks.counter(pid, name)) + integer(30, count)
            )
            for pid, time_ns, count in zip(*columns, strict=True)
        ]
        yield tracks.news() + b"".join(pieces)


def _losses(trace: Trace, tracks: Tracks) -> bytes:
    pieces = []
    # On one CPU one loss ends before the next begins, but the file need not have them in order.
    for loss in sorted(trace.losses, key=lambda loss: (loss.cpu, loss.first_ns)):
        track = integer(11, tracks.losses(loss.cpu))
        told = _argument("count", loss.count)
        pieces.append(_slice(track, f"{loss.count} lost", loss.first_ns, loss.last_ns, told))
    return tracks.news() + b"".join(pieces)
