"""A recording in windows, as text and as JSON."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from porttrace.analysis import names
from porttrace.analysis.model import FAILED
from porttrace.analysis.render.escape import clipped, printable
from porttrace.analysis.render.report import SCHEMA, finding_json
from porttrace.analysis.render.text import finding_text, short
from porttrace.analysis.render.wrap import wrapped
from porttrace.analysis.windows import Line, Repeated, Windows

_MOST_LINES = 40
_FAILED = frozenset(outcome.name for outcome in FAILED)


def text(whole: Windows) -> str:
    """Return the windows, a line each, then what was found, where it was surest."""
    parts = ["\n".join(_heading(whole)), "\n".join(_table(whole))]
    parts += [f"{_seen(whole, each)}\n{finding_text(each.finding)}" for each in whole.found]
    if not whole.found:
        parts.append("Nothing found in any of the windows.")
    return "\n\n".join(parts)


def values(whole: Windows) -> dict[str, Any]:
    """Return the same as plain values, ready for json.dumps."""
    return {
        "schema": SCHEMA,
        "trust": {
            "events": sum(line.events for line in whole.lines),
            "lost_events": whole.lost,
            "complete": not whole.lost and not whole.why_incomplete,
        },
        "attempts": {"total": sum(line.attempts for line in whole.lines),
                     "by_outcome": _by_outcome(whole)},
        "windows": [_line_values(line) for line in whole.lines],
        "findings": [
            {**finding_json(each.finding), "windows": each.windows} for each in whole.found
        ],
    }  # fmt: skip


def _line_values(line: Line) -> dict[str, Any]:
    return {
        "start": line.begin_s or None,
        "duration_s": round(line.length_s, 3),
        "attempts": {"total": line.attempts, "by_outcome": line.by_outcome},
        "held": line.held,
        "worst_held_s": line.worst_held_ns / 1e9,
        "events": line.events,
        "findings": [{"rule": rule, "severity": severity} for rule, severity in line.rules],
    }


def _heading(whole: Windows) -> Iterator[str]:
    host = whole.header.host.name or "a host without a name"
    yield clipped(f"Host: {printable(host)}; {names.count(len(whole.lines), 'window')}", 80)
    events = names.count(sum(line.events for line in whole.lines), "event")
    lost = f"{whole.lost} LOST" if whole.lost else "none lost"
    yield from wrapped(f"Trust: {events}, {lost}.")
    if whole.why_incomplete:
        yield from wrapped(printable(f"INCOMPLETE: {whole.why_incomplete}."), "  - ")
    for note in whole.notes:
        yield from wrapped(printable(note), "  - ")
    yield from wrapped(
        "Each window is judged by itself. An attempt counts where it ended; what began in one "
        "window and ended in another is told whole in the second."
    )


def _table(whole: Windows) -> Iterator[str]:
    yield f"{'FROM':>8} {'LENGTH':>7} {'ATTEMPTS':>9} {'FAILED':>7} {'HELD':>6} {'WORST':>5} FOUND"
    shown = whole.lines if len(whole.lines) <= _MOST_LINES else _worst(whole.lines)
    for line in shown:
        failed = sum(n for name, n in line.by_outcome.items() if name in _FAILED)
        rules = dict.fromkeys(rule for rule, severity in line.rules if severity != "info")
        begin = time.strftime("%H:%M:%S", time.localtime(line.begin_s)) if line.begin_s else "-"
        yield (
            f"{begin:>8} {short(line.length_s * 1e9):>7} {line.attempts:>9} {failed:>7} "
            f"{line.held:>6} {short(line.worst_held_ns):>5} {', '.join(rules)}"
        ).rstrip()
    if len(shown) < len(whole.lines):
        yield f"... and {names.count(len(whole.lines) - len(shown), 'window')} with less to tell"
    listed = ", ".join(f"{count} {name}" for name, count in _by_outcome(whole).items())
    yield from wrapped(f"Outcomes: {listed or 'no attempt'}")
    yield from wrapped(
        "HELD: of these attempts, those that stood still on this host for 10 ms or more. "
        "WORST: the longest time, so far, of any; also of one that goes on."
    )


def _worst(lines: list[Line]) -> list[Line]:
    telling = sorted(lines, key=lambda line: (len(line.rules), line.held), reverse=True)
    kept = set(map(id, telling[:_MOST_LINES]))
    return [line for line in lines if id(line) in kept]


def _seen(whole: Windows, each: Repeated) -> str:
    share = f"{len(each.windows)} of {names.count(len(whole.lines), 'window')}"
    first, last = whole.lines[each.windows[0]], whole.lines[each.windows[-1]]
    between = [
        time.strftime("%H:%M:%S", time.localtime(moment))
        for moment in (first.begin_s, last.begin_s + last.length_s)
    ]
    when = f", between {between[0]} and {between[1]}" if first.begin_s else ""
    return f"Found in {share}{when}; here is where it was surest:"


def _by_outcome(whole: Windows) -> dict[str, int]:
    total: Counter[str] = Counter()
    for line in whole.lines:
        total.update(line.by_outcome)
    return dict(total.most_common())
