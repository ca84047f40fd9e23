"""The scenario matrix: which runs there are, how one is judged, and the table of all.

Pure: cases out of a seed, verdicts out of what a tracer reported, text out of verdicts. The runner
beside it (`matrix_run`) makes the runs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from porttrace.lab.expected import THROTTLE_RULES, Expected, expected_of
from porttrace.lab.scenarios import SCENARIOS
from porttrace.lab.story import Settings
from porttrace.lab.throttle import SCOPES_OF_KIND, Throttle

FIELDS = ("rule", "place", "mechanism", "slots", "scope")
SLOTS = (1, 2, 3, 10)
_SHORT_SLOTS = (1, 2)
_WORKLOADS = ("threads", "processes")
_RATES = (3.0, 6.0)  # attempts a second, for the throttles that count time
_HELD_S = 0.05  # a live server answers in far less
_ENOUGH_HELD = 4  # fewer give a verdict of "likely" at best
_SHOWN = 0.5  # findings of less confidence are not shown
_DENIED = frozenset({"ECONNREFUSED", "EPERM", "EHOSTUNREACH"})

_PROCESSES = Settings(processes=4, users=2, cgroups=2)
# In one process every wider scope is the same; these alone can be told from it there.
_SEEN_IN_ONE_PROCESS = ("thread", "process", "destination")


@dataclass(frozen=True)
class Case:
    """One run: a throttle around a storm, or a control (`throttle` None); `key` names it."""

    key: str
    story: str
    settings: Settings
    throttle: Throttle | None

    @property
    def expected(self) -> Expected | None:
        """Return what must be found, None for a control."""
        return expected_of(self.throttle) if self.throttle else None


def cases(runs: int, seed: int, short: bool = False) -> list[Case]:
    """List all runs: each throttle and each control `runs` times, with timing by the seed."""
    found: list[Case] = []
    for number in range(runs):
        found += _throttled(seed + number, _SHORT_SLOTS if short else SLOTS, short)
        found += _controls(seed + number)
    return found


def _throttled(seed: int, all_slots: Sequence[int], short: bool) -> list[Case]:
    found = []
    for kind, scopes in SCOPES_OF_KIND.items():
        for scope in scopes[:2] if short else scopes:
            for slots in (1,) if kind.startswith("rate") else all_slots:
                found += [
                    _throttled_case(kind, scope, slots, workload, seed)
                    for workload in _WORKLOADS
                    if _telling(kind, scope, workload)
                ]
    return found


# A thread that waits in connect(2) makes no second attempt, so a shim by thread holds nobody.
# In one process a throttle by user or host says nothing else than one by process.
def _telling(kind: str, scope: str, workload: str) -> bool:
    if (kind, scope) == ("preload", "thread"):
        return False
    return workload == "processes" or scope in _SEEN_IN_ONE_PROCESS


def _throttled_case(kind: str, scope: str, slots: int, workload: str, seed: int) -> Case:
    key = f"{kind}/{scope}/{slots}/{workload}/{seed}"
    draw = random.Random(key)
    throttle = Throttle(kind, slots, scope, rate_per_s=round(draw.uniform(*_RATES), 2))
    return Case(key, "storm", _storm(throttle, workload, draw), throttle)


# Enough threads that some stand in line, whoever is counted together.
def _storm(throttle: Throttle, workload: str, draw: random.Random) -> Settings:
    by_thread = throttle.scope == "thread"
    spread = asdict(_PROCESSES if workload == "processes" else Settings())
    if throttle.kind == "deny-cgroup":
        spread["cgroups"] = 0  # the throttle's own cgroup is the one that counts
    return Settings(
        **{
            **spread,
            "threads": 3 if by_thread else throttle.slots + 4,
            "connects": 2 if _slow(throttle) and workload == "processes" else 4,
            "overlapping": throttle.slots if by_thread else 0,
            "dead_time_s": round(draw.uniform(*_dead_times(throttle)), 3),
            "dead_share": round(draw.uniform(0.35, 0.5), 3),
            "pause_between_s": round(draw.uniform(0.03, 0.1), 3),
            "spread_s": round(draw.uniform(0.1, 0.5), 3),
            "blocking": throttle.kind == "preload",
            "slots": throttle.slots,
            "scope": throttle.scope,
            "seed": draw.randrange(10**6),
        }
    )


# Dropped SYNs come again after a second, and the kernel's own timers end a blocking attempt then.
def _dead_times(throttle: Throttle) -> tuple[float, float]:
    return (1.2, 1.9) if _slow(throttle) else (0.4, 0.9)


def _slow(throttle: Throttle) -> bool:
    return throttle.kind.endswith("-drop") or throttle.kind in ("preload", "rate", "rate-hold")


def _controls(seed: int) -> list[Case]:
    found = []
    for name, story in SCENARIOS.items():
        if not story.throttled:
            key = f"control/{name}/{seed}"
            draw = random.Random(key)
            settings = Settings(
                dead_time_s=round(draw.uniform(0.8, 2.5), 3),
                pages=6,
                page_interval_s=round(draw.uniform(0.2, 0.5), 3),
                pause_s=round(draw.uniform(0.2, 0.8), 3),
                seed=draw.randrange(10**6),
            )
            found.append(Case(key, name, settings, None))
    return found


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
    throttled = [row for row in done if not row["control"]]
    controls = [row for row in done if row["control"]]
    parts = [
        _throttled_table(throttled),
        *_mistakes(throttled),
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


def _controls_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'control':<20}{'runs':>5}{'throttled':>11}"]
    for kind in sorted({row["kind"] for row in rows}):
        mine = [row for row in rows if row["kind"] == kind]
        fired = [row["found"]["rule"] for row in mine if row["found"]]
        told = f"  {', '.join(sorted(set(fired)))}" if fired else ""
        lines.append(f"{kind:<20}{len(mine):>5}{len(fired):>11}{told}")
    called = sum(bool(row["found"]) for row in rows)
    return "\n".join([*lines, f"{'all':<20}{len(rows):>5}{called:>11}"])
