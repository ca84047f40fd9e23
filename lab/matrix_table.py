"""Judges the runs of the scenario matrix, and makes the table of all: pure, plain values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from porttrace.lab.expected import THROTTLE_RULES, Expected
from porttrace.lab.matrix import Case

FIELDS = ("rule", "place", "mechanism", "slots", "scope")
_HELD_S = 0.05  # a live server answers in far less
_ENOUGH_HELD = 4  # fewer give a verdict of "likely" at best
_FIRM = 0.8  # findings of more are called firm, the rest likely
_SHOWN = 0.5  # findings of less confidence are not shown
_DENIED = frozenset({"ECONNREFUSED", "EPERM", "EHOSTUNREACH"})


def verdict(case: Case, findings: Iterable[Mapping[str, Any]], truth: list[dict[str, Any]]) -> Any:
    """Judge one run: a row for the file of runs, plain values only.

    `findings` are those of the tracer's report, `truth` the workload's own records.
    """
    shown = [f for f in findings if f["rule"] in THROTTLE_RULES and f["confidence"] >= _SHOWN]
    expected = case.expected
    best = max(shown, key=lambda f: (_right(expected, f), f["confidence"]), default=None)
    return {
        "key": case.key,
        "kind": case.throttle.kind if case.throttle else case.story,
        "control": case.throttle is None,
        "pair": case.story == "two-threads",
        "held": held(truth),
        "expected": asdict(expected) if expected else None,
        "found": {name: best[name] for name in (*FIELDS, "confidence")} if best else None,
        "findings": len(shown),
    }


# Of several findings the one that tells the right rule is judged, and then the surest.
def _right(expected: Expected | None, finding: Mapping[str, Any]) -> bool:
    return expected is not None and finding["rule"] == expected.rule


def held(truth: Iterable[Mapping[str, Any]]) -> int:
    """Count the attempts to the live server that waited for long, or were denied."""
    rows = [row for row in truth if row.get("type") == "attempt" and ":80" in row["destination"]]
    return sum(
        (row["end_ns"] - row["start_ns"]) / 1e9 > _HELD_S or row["result"] in _DENIED
        for row in rows
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the confusion table of all runs as text."""
    failed = [row for row in rows if row.get("error")]
    done = [row for row in rows if not row.get("error")]
    throttled = [row for row in done if not row["control"] and not row["pair"]]
    controls = [row for row in done if row["control"]]
    parts = [
        _throttled_table(throttled),
        *_mistakes(throttled),
        "",
        _pairs_table([row for row in done if row["pair"]]),
        "",
        _controls_table(controls),
        *(f"failed: {row['key']}: {row['error']}" for row in failed),
    ]
    return "\n".join(parts)


def _throttled_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = f"{'throttled':<14}{'runs':>5}{f'{_ENOUGH_HELD}+ held':>8}"
    lines = [head + "".join(f"{name:>16}" for name in FIELDS)]
    kinds = sorted({row["kind"] for row in rows})
    for kind in kinds:
        lines.append(_throttled_line(kind, [row for row in rows if row["kind"] == kind]))
    return "\n".join([*lines, _throttled_line("all", rows)])


def _throttled_line(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    enough = enough_held(rows)
    shares = [_share([is_right(row, field) for row in enough]) for field in FIELDS]
    return f"{name:<14}{len(rows):>5}{len(enough):>8}" + "".join(f"{text:>16}" for text in shares)


def enough_held(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the runs with enough held attempts to expect a verdict from."""
    return [row for row in rows if row["held"] >= _ENOUGH_HELD]


def is_right(row: Mapping[str, Any], field: str) -> bool | None:
    """Tell whether a field of the finding is as expected; None where nothing can be expected."""
    wanted = row["expected"][field]
    if field == "slots" and not wanted:
        return None
    return bool(row["found"]) and row["found"][field] == wanted


def _share(answers: Iterable[bool | None]) -> str:
    known = [answer for answer in answers if answer is not None]
    if not known:
        return "-"
    return f"{sum(known)}/{len(known)} {100 * sum(known) / len(known):.1f}%"


def _mistakes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    wrong = Counter(
        (field, row["kind"], str(row["expected"][field]), _said(row, field))
        for row in enough_held(rows)
        for field in FIELDS
        if is_right(row, field) is False
    )
    return [
        f"wrong {field:<10} {kind:<14} expected {wanted}, said {told}: {count}"
        for (field, kind, wanted, told), count in sorted(wrong.items())
    ]


def _said(row: Mapping[str, Any], field: str) -> str:
    return str(row["found"][field]) if row["found"] else "nothing"


def _pairs_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = f"{'two attempts':<14}{'runs':>5}{'likely':>8}{'firm':>6}"
    lines = [head + "".join(f"{name:>16}" for name in FIELDS)]
    for kind in sorted({row["kind"] for row in rows}):
        mine = [row for row in rows if row["kind"] == kind]
        sure = [row["found"]["confidence"] for row in mine if row["found"]]
        firm = sum(confidence > _FIRM for confidence in sure)
        shares = [_share([is_right(row, field) for row in mine]) for field in FIELDS]
        counts = f"{kind:<14}{len(mine):>5}{len(sure) - firm:>8}{firm:>6}"
        lines.append(counts + "".join(f"{text:>16}" for text in shares))
    return "\n".join(lines)


def _controls_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'control':<20}{'runs':>5}{'throttled':>11}"]
    for kind in sorted({row["kind"] for row in rows}):
        mine = [row for row in rows if row["kind"] == kind]
        fired = [row["found"]["rule"] for row in mine if row["found"]]
        told = f"  {', '.join(sorted(set(fired)))}" if fired else ""
        lines.append(f"{kind:<20}{len(mine):>5}{len(fired):>11}{told}")
    called = sum(bool(row["found"]) for row in rows)
    return "\n".join([*lines, f"{'all':<20}{len(rows):>5}{called:>11}"])
