"""A recording of any size in spans of time, each judged by itself: memory is that of one of them.

An attempt counts in the window in which it ended. One that is open when a window ends stands in it
as pending, and in the next one whole: with all its marks, from its beginning on. So whoever waits
behind an attempt is seen with it, except where the two ended in different windows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from porttrace.analysis import summary
from porttrace.analysis.findings import diagnose, same
from porttrace.analysis.grouped import Mask
from porttrace.analysis.growing import Growing
from porttrace.analysis.holds import HELD_NS, held
from porttrace.analysis.model import Finding, Trace
from porttrace.analysis.recording import AT_ONCE, ahead, in_chunks
from porttrace.tracer.beside import TraceHeader
from porttrace.tracer.tracefile import Batch, TraceReader

MOST_ATTEMPTS = 1_000_000
"""A window ends with so many attempts, however short it is. They take 0.6 GB."""
BYTES_FOR_BYTE = 16
"""Memory that it takes to read a recording whole, for each byte of its file (docs/overhead.md)."""

_WHO = ("pid", "pids", "netns")  # of a subject: what is new after a restart


@dataclass(frozen=True)
class Window:
    """A span of a recording, and what was found in it; `counts` tells of which attempts it tells.

    The others are not over, and are told of by the window in which they end.
    """

    trace: Trace
    counts: Mask
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Line:
    """What is kept of a window: wall times (s since 1970, 0: not known), counts, rules."""

    begin_s: float
    length_s: float
    attempts: int
    by_outcome: dict[str, int]
    held: int  # attempts that stood still on this host for 10 ms or more
    worst_held_ns: int
    events: int
    rules: tuple[tuple[str, str], ...]  # (rule, severity) of each finding


@dataclass
class Repeated:
    """A finding where it was surest, and the numbers of the windows in which it was found."""

    finding: Finding
    windows: list[int] = field(default_factory=list)


@dataclass
class Windows:
    """A whole recording, window by window; `why_incomplete` is "" where it is complete."""

    path: str
    header: TraceHeader
    lines: list[Line] = field(default_factory=list)
    found: list[Repeated] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    lost: int = 0
    why_incomplete: str = ""


def summed(path: str | Path, length_ns: int = 0, most: int = MOST_ATTEMPTS) -> Windows:
    """Read a recording (`-`: standard input) in windows, and put together what was found in them.

    A window is `length_ns` long (0: as long as it takes) and has about `most` attempts at most.
    Raises TraceFileError.
    """
    with TraceReader(path) as reader:
        whole = Windows(reader.path, reader.header)
        losses = set()
        for number, window in enumerate(_windows(reader, length_ns, most)):
            whole.lines.append(_line(window))
            _add(whole.found, window.findings, number)
            losses |= set(window.trace.losses)
            whole.notes = window.trace.notes
        whole.found.sort(key=lambda each: each.finding.gravity())
        whole.lost = sum(loss.count for loss in losses)
        whole.why_incomplete = "" if reader.complete else reader.why_incomplete
    return whole


def _windows(reader: TraceReader, length_ns: int, most: int) -> Iterator[Window]:
    growing, until_ns = Growing(reader.header), reader.header.start_ns + length_ns

    def ends(batch: Batch) -> bool:
        beside = batch.beside
        return bool(length_ns) and beside.watermark_ns >= until_ns and not beside.end

    batches = ahead(reader) if Path(reader.path).is_file() else iter(reader)
    for chunk in in_chunks(batches, AT_ONCE, ends):
        growing.add(chunk)
        over = ends(chunk[-1])
        if over:
            passed = (chunk[-1].beside.watermark_ns - until_ns) // length_ns + 1
            until_ns += passed * length_ns
        if over or growing.finished >= most:
            trace, next_id = growing.cut()
            numbers = trace.columns["attempt_id"]
            yield Window(trace, (numbers > 0) & (numbers < next_id), diagnose(trace))
    last, _ = growing.cut()
    if last.events or len(last.columns) or last.end_ns > last.start_ns:
        yield Window(last, np.ones(len(last.columns), np.bool_), diagnose(last))


def _line(window: Window) -> Line:
    trace, rows = window.trace, window.trace.columns
    held_ns, _ = held(rows, trace.end_ns)
    return Line(
        (trace.start_ns + trace.wall_offset_ns) / 1e9 if trace.wall_offset_ns else 0.0,
        summary.duration_s(trace),
        int(window.counts.sum()),
        summary.by_outcome(rows, window.counts),
        int((held_ns[window.counts] >= HELD_NS).sum()),
        int(held_ns.max(initial=0)),
        trace.events,
        tuple((each.rule, each.severity) for each in window.findings),
    )


# Of several that are as sure the one with most victims, and of these the latest, tells most: an
# early one may be of attempts that were not over.
def _weight(finding: Finding) -> tuple[int, float, int]:
    return (*finding.gravity(), -len(finding.victims))


# By what a fact is known again of a program that was started again: all but its pid.
def _whoever(finding: Finding) -> tuple[str, tuple[str, ...]]:
    subject = finding.subject.items()
    others = sorted(f"{name} {value}" for name, value in subject if name not in _WHO)
    return f"{finding.rule} {finding.place} {finding.scope}", tuple(others)


# What has nothing but a pid to be known by stays apart, and so do two that are found in one window.
def _restarted(found: Iterable[Repeated]) -> dict[tuple[str, tuple[str, ...]], list[Repeated]]:
    alike: dict[tuple[str, tuple[str, ...]], list[Repeated]] = {}
    for each in found:
        key = _whoever(each.finding)
        if key[1]:
            alike.setdefault(key, []).append(each)
    return alike


def _add(found: list[Repeated], findings: Iterable[Finding], number: int) -> None:
    known, alike = {same(each.finding): each for each in found}, _restarted(found)
    for finding in findings:
        others = (each for each in alike.get(_whoever(finding), ()) if each.windows[-1] != number)
        repeated = known.get(same(finding)) or next(others, None)
        if repeated is None:
            repeated = Repeated(finding)
            found.append(repeated)
        elif _weight(finding) <= _weight(repeated.finding):
            repeated.finding = finding
        repeated.windows.append(number)
