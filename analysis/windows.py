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
from porttrace.analysis.concurrency import Ints
from porttrace.analysis.findings import SEVERITIES, diagnose, same
from porttrace.analysis.grouped import Mask
from porttrace.analysis.growing import Growing
from porttrace.analysis.holds import HELD_NS, HOLDS, waits
from porttrace.analysis.model import Finding, Outcome, Trace
from porttrace.analysis.recording import AT_ONCE, ahead
from porttrace.tracer.beside import TraceHeader
from porttrace.tracer.tracefile import Batch, TraceReader

MOST_ATTEMPTS = 1_000_000
"""A window ends with so many attempts, however short it is. They take 0.6 GB."""
BYTES_FOR_BYTE = 16
"""Memory that it takes to read a recording whole, for each byte of its file (docs/overhead.md)."""


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
        whole.found.sort(key=lambda each: _rank(each.finding))
        whole.lost = sum(loss.count for loss in losses)
        whole.why_incomplete = "" if reader.complete else reader.why_incomplete
    return whole


def _windows(reader: TraceReader, length_ns: int, most: int) -> Iterator[Window]:
    growing = Growing(reader.header)
    until_ns = reader.header.start_ns + length_ns
    batches = ahead(reader) if Path(reader.path).is_file() else iter(reader)
    for chunk, cut in _chunks(batches, until_ns, length_ns):
        growing.add(chunk)
        if cut or growing.finished >= most:
            trace, next_id = growing.cut()
            numbers = trace.columns["attempt_id"]
            yield Window(trace, (numbers > 0) & (numbers < next_id), diagnose(trace))
    last, _ = growing.cut()
    if last.events or len(last.columns) or last.end_ns > last.start_ns:
        yield Window(last, np.ones(len(last.columns), np.bool_), diagnose(last))


def _chunks(
    batches: Iterable[Batch], until_ns: int, length_ns: int
) -> Iterator[tuple[list[Batch], bool]]:
    # As many batches as are joined at once, or fewer where a window ends: then with True.
    chunk: list[Batch] = []
    for batch in batches:
        chunk.append(batch)
        over = bool(length_ns) and batch.beside.watermark_ns >= until_ns and not batch.beside.end
        if over:
            passed = (batch.beside.watermark_ns - until_ns) // length_ns + 1
            until_ns += passed * length_ns
        if over or sum(len(each.events) for each in chunk) >= AT_ONCE:
            yield chunk, over
            chunk = []
    if chunk:
        yield chunk, False


def _line(window: Window) -> Line:
    trace, rows = window.trace, window.trace.columns
    here = waits(rows, trace.end_ns)
    held_ns: Ints = np.sum([here[place] for place in HOLDS], axis=0, dtype=np.int64)
    codes, counts = np.unique(rows["outcome"][window.counts], return_counts=True)
    return Line(
        (trace.start_ns + trace.wall_offset_ns) / 1e9 if trace.wall_offset_ns else 0.0,
        summary.duration_s(trace),
        int(window.counts.sum()),
        {Outcome(code).name: n for code, n in zip(codes.tolist(), counts.tolist(), strict=True)},
        int((held_ns[window.counts] >= HELD_NS).sum()),
        int(held_ns.max(initial=0)),
        trace.events,
        tuple((each.rule, each.severity) for each in window.findings),
    )


def _add(found: list[Repeated], findings: Iterable[Finding], number: int) -> None:
    known = {same(each.finding): each for each in found}
    for finding in findings:
        repeated = known.get(same(finding))
        if repeated is None:
            repeated = Repeated(finding)
            found.append(repeated)
        elif _rank(finding) < _rank(repeated.finding):
            repeated.finding = finding
        repeated.windows.append(number)


def _rank(finding: Finding) -> tuple[int, float]:
    return SEVERITIES.index(finding.severity), -finding.confidence
