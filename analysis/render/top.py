"""The screen of `porttrace top` as lines of styled pieces, and one moment of it as JSON.

A line is a tuple of (text, style); every text is printable by then, and has no markup in it. Who
puts it on a terminal gives the styles their meaning; in a pipe the texts alone are printed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from porttrace.analysis import names
from porttrace.analysis.model import Finding
from porttrace.analysis.render.closing import level
from porttrace.analysis.render.escape import clipped, columns, padded, printable, valid
from porttrace.analysis.render.report import finding_json
from porttrace.analysis.render.text import short
from porttrace.analysis.render.who import called
from porttrace.analysis.render.wrap import wrapped
from porttrace.analysis.top import SORTS, Now, ProcessNow, in_order

Line = tuple[tuple[str, str], ...]
"""Pieces of one line: (text, style). Styles: "", bold, dim, red, yellow, reverse, key."""

_NAME = 12  # columns of a process's name, and of the verdict, in 80
_WIDE = 100  # from so many on a verdict has its full name, and a process a long one
_LEAST_ROWS = 3  # rows of processes that long verdicts leave room for
_FRAME = 3  # a blank line and the heading above the processes, the keys below
_LIMITS = ((9.95, 1), (9_999.5, 0))  # of a rate, and with so many decimals below


def screen(now: Now, about: Sequence[str], sort: str, width: int, height: int) -> list[Line]:
    """Return the whole screen: at most `height` lines of at most `width` columns.

    `about` are lines that say what is traced; `sort` is one of `SORTS`, by which the processes are
    in order.
    """
    top = heading(now, about, width)
    room = max(height - len(top) - _FRAME, 1)
    verdicts = [(), *verdict_lines(now.findings)] if now.findings else []
    wanted = len(now.processes) or 1
    rows = min(wanted, max(room - len(verdicts), min(_LEAST_ROWS, room)))
    below = verdicts[: room - rows]
    if 1 < len(below) < len(verdicts):
        below[-1] = (("... more in a larger window, or with porttrace live", "dim"),)
    lines: list[Line] = [*top, (), *table(now, width, rows), *below]
    lines += [()] * (height - 1 - len(lines))
    return [_cut(line, width) for line in (*lines[: height - 1], keys(sort))]


def plain(now: Now, about: Sequence[str], width: int) -> str:
    """Return one moment as lines without control codes: all processes, then the verdicts."""
    lines = [*heading(now, about, width), *table(now, width, len(now.processes) or 1)]
    lines += verdict_lines(now.findings)
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def heading(now: Now, about: Sequence[str], width: int) -> list[Line]:
    """Return lines: what is traced, the sums of all processes, and what does not show."""
    rows = now.processes
    sums = (
        f"{names.count(len(rows), 'process')}: {sum(r.in_flight for r in rows)} in flight, "
        f"{sum(r.demand for r in rows)} wanted, {sum(r.held for r in rows)} held; "
        f"{_rate(sum(r.connects_per_s for r in rows))} over/s, "
        f"{_rate(sum(r.failures_per_s for r in rows))} failed/s"
    )
    trust = "; none lost" if columns(sums) + len("; none lost") <= width else ""
    lost = (f"{now.lost_events} events LOST; ", "red") if now.lost_events else ("", "")
    return [
        (("porttrace top", "bold"), (f"  {printable(about[0])}", "")),
        (lost, (sums if now.lost_events else f"{sums}{trust}", "")),
        *(((printable(more), "dim"),) for more in about[1:]),
    ]


def table(now: Now, width: int, most: int) -> list[Line]:
    """Return a heading and a line a process, at most `most` of these; the last counts more."""
    wide = max(width - _WIDE, 0)
    name = _NAME + min(wide // 2, 20) + 8 * (width >= _WIDE)
    head = _row(
        ("PID", "PROCESS", "FLIGHT", "DEMAND", "HELD", "WORST", "AT", "CONN/S", "FAIL/S"), name
    )
    lines: list[Line] = [((f"{head} VERDICT", "bold"),)]
    rows = now.processes
    shown = rows if len(rows) <= most else rows[: most - 1]
    lines += [_process(row, name, width) for row in shown]
    if len(shown) < len(rows):
        left_out = names.count(len(rows) - len(shown), "more process")
        lines.append(((f"        ... and {left_out}", "dim"),))
    if not rows:
        lines.append((("        nobody has connected yet", "dim"),))
    return lines


def _row(cells: Sequence[str], name: int) -> str:
    pid, who, flight, demand, held, worst, at, connects, failures = cells
    return (
        f"{pid:>7} {padded(who, name)} {flight:>6} {demand:>6} {held:>4} {worst:>5} {at:<7} "
        f"{connects:>6} {failures:>6}"
    )


def _process(row: ProcessNow, name: int, width: int) -> Line:
    inside = names.inside(row.process)
    numbers = _row(
        (
            str(row.process.pid),
            called(inside, row.process.comm, name),
            _few(row.in_flight),
            _few(row.demand),
            _few(row.held),
            short(row.worst_ns),
            row.worst_at,
            _rate(row.connects_per_s),
            _rate(row.failures_per_s),
        ),
        name,
    )
    verdict = _verdict(row.findings, width)
    style = "" if row.demand or row.connects_per_s or row.findings else "dim"
    return (numbers, "bold" if row.held else style), (f" {verdict}", _colour(row.findings))


def _verdict(findings: Sequence[Finding], width: int) -> str:
    if not findings:
        return ""
    rule = findings[0].rule
    doubt = "" if level(findings[0]) == "firm" else "?"
    if width >= _WIDE:
        more = f" +{len(findings) - 1}" if len(findings) > 1 else ""
        return f"{rule}{doubt}{more}"
    return f"{clipped(rule.removesuffix('-connects'), _NAME - len(doubt))}{doubt}"


def _colour(findings: Sequence[Finding]) -> str:
    if not findings or findings[0].severity == "info":
        return ""
    firm = findings[0].severity == "critical" and level(findings[0]) == "firm"
    return "red" if firm else "yellow"


def verdict_lines(findings: Sequence[Finding]) -> Iterator[Line]:
    """Yield each finding in words, the worst first, in lines of at most 80 columns."""
    for finding in in_order(findings):
        title = f"[{finding.severity.upper()}] {finding.rule} ({level(finding)})"
        yield ((title, _colour((finding,)) or "bold"),)
        for line in wrapped(printable(finding.summary), "  "):
            yield ((line, ""),)


def keys(sort: str) -> Line:
    """Return the last line: what can be pressed, and by what the rows are in order."""
    pieces: list[tuple[str, str]] = []
    for word in (*SORTS, "reverse", "quit"):
        style = "reverse" if word == sort else "dim"
        pieces += [(word[0], f"{style} key".strip()), (f"{word[1:]}", style), (" ", "")]
    return tuple(pieces[:-1])


def _rate(per_s: float) -> str:
    if not per_s:
        return "0"
    for limit, digits in _LIMITS:
        if per_s < limit:
            return f"{per_s:.{digits}f}"
    return f"{per_s / 1000:.0f}k"


def _few(count: int) -> str:
    return str(count) if count < 10_000 else f"{count // 1000}k"


def _cut(line: Line, width: int) -> Line:
    left, pieces = width, []
    for text, style in line:
        piece = clipped(text, left) if left > 0 else ""
        left -= columns(piece)
        pieces.append((piece, style))
    return tuple(pieces)


def now_json(now: Now, about: Sequence[str], wall_offset_ns: int) -> dict[str, Any]:
    """Return one moment as plain values: an object of type `top`; `about` as of `screen`."""
    return {
        "type": "top",
        "time": (now.now_ns + wall_offset_ns) / 1e9,
        "now_ns": now.now_ns,
        "interval_s": round(now.interval_s, 3),
        "lost_events": now.lost_events,
        "traced": valid(about[0]),
        "notes": list(map(valid, about[1:])),
        "processes": [_process_json(row) for row in now.processes],
        "findings": [finding_json(finding) for finding in in_order(now.findings)],
    }


def _process_json(row: ProcessNow) -> dict[str, Any]:
    return {
        "pid": row.process.pid,
        "comm": valid(row.process.comm),
        "container": valid(row.process.container),
        "container_name": valid(row.process.container_name),
        "ns_pid": row.process.ns_pid or None,
        "in_flight": row.in_flight,
        "demand": row.demand,
        "held": row.held,
        "worst_s": round(row.worst_ns / 1e9, 6),
        "worst_at": row.worst_at or None,
        "connects_per_s": round(row.connects_per_s, 3),
        "failures_per_s": round(row.failures_per_s, 3),
        "verdicts": [
            {"rule": f.rule, "severity": f.severity, "confidence": round(f.confidence, 3)}
            for f in row.findings
        ],
    }
