"""A fleet as plain values: what `porttrace fleet --json` prints, and what text and page show."""

import math
from collections.abc import Sequence
from typing import Any

from porttrace.analysis.fleet.compare import Shared, shared
from porttrace.analysis.fleet.merge import TALLIES, Fleet, Member
from porttrace.analysis.fleet.outliers import outliers
from porttrace.analysis.fleet.sketch import ERROR, Sketch
from porttrace.analysis.fleet.tally import Tally
from porttrace.analysis.render.escape import valid

SCHEMA = 1
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_NAMED = 50  # names of one tally


def fleet_values(fleet: Fleet) -> dict[str, Any]:
    """Return everything that is known of a fleet as plain values, ready for json.dumps."""
    hosts = fleet.hosts
    values = {
        "schema": SCHEMA,
        "hosts": len(hosts),
        "recordings": _recordings(fleet, hosts),
        "attempts": _attempts(fleet, hosts),
        "percentiles": {
            "error": ERROR,
            "held_s": percentiles(fleet.held),
            "answer_s": percentiles(fleet.answer),
            "total_s": percentiles(fleet.total),
        },
        "findings": [
            {"rule": rule, "severity": severity, "hosts": of, "findings": number}
            for (rule, severity), (number, of) in fleet.by_rule.items()
        ],
        "throttles": [_throttle(each) for each in shared(fleet)],
        **{name: _tally(fleet.tally(name)) for name in TALLIES},
        "outliers": [
            {**vars(each), "times": _finite(each.times), "score": _finite(each.score)}
            for each in outliers(fleet)
        ],
        "per_host": [_host(member) for member in hosts],
        "skipped": [vars(each) for each in sorted(fleet.skipped, key=lambda each: each.path)],
    }
    plain: dict[str, Any] = _valid(values)
    return plain


def percentiles(sketch: Sketch) -> dict[str, float | None]:
    """Return p50, p90, p99, p999 and max in seconds, null where there is no value."""
    found = {name: sketch.percentile(share) for name, share in SHARES.items()}
    found["max"] = float(sketch.largest) if sketch.count else math.nan
    return {name: _finite(value / 1e9) for name, value in found.items()}


def _recordings(fleet: Fleet, hosts: Sequence[Member]) -> dict[str, Any]:
    every = [each for member in hosts for each in member.recordings]
    return {
        "read": len(every),
        "skipped": len(fleet.skipped),
        "copies": [{"path": path, "of": first} for path, first in fleet.copies],
        "incomplete": sum(not each.complete for each in every),
        "parquet": sum(each.kind == "parquet" for each in every),
        "bytes": sum(each.size for each in every),
        "recorded_s": sum(each.duration_s for each in every),
        "events": sum(each.events for each in every),
        "lost_events": sum(each.lost_events for each in every),
    }


def _attempts(fleet: Fleet, hosts: Sequence[Member]) -> dict[str, Any]:
    return {
        "total": fleet.attempts,
        "failed": sum(member.failed for member in hosts),
        "by_outcome": dict(fleet.outcomes.most_common()),
        "held_s": sum(member.held_ns for member in hosts) / 1e9,
        "total_s": sum(member.total_ns for member in hosts) / 1e9,
    }


def _throttle(found: Shared) -> dict[str, Any]:
    return {
        **vars(found.throttle),
        "having": list(found.having),
        "lacking": list(found.lacking),
        "not_seen": list(found.not_seen),
        "common": [vars(each) for each in found.common],
    }


def _tally(tally: Tally) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "attempts": entry.attempts,
            "failed": entry.failed,
            "held_s": entry.held_ns / 1e9,
            "total_s": entry.total_ns / 1e9,
            "missing_s": entry.over_ns / 1e9,
            "hosts": entry.hosts.bit_count(),
        }
        for name, entry in tally.ranked()[:_NAMED]
    ]


def _host(member: Member) -> dict[str, Any]:
    every = member.recordings
    return {
        "host": member.name,
        "kernels": sorted({each.kernel for each in every if each.kernel}),
        "recordings": len(every),
        "recorded_s": member.duration_s,
        "complete": all(each.complete for each in every),
        "lost_events": sum(each.lost_events for each in every),
        "attempts": member.attempts,
        "failed": member.failed,
        "held_s": member.held_ns / 1e9,
        "total_s": member.total_ns / 1e9,
        "held_p99_s": percentiles(member.held)["p99"],
        "answer_p50_s": percentiles(member.answer)["p50"],
        "answer_p99_s": percentiles(member.answer)["p99"],
        "findings": [vars(each) for each in member.findings],
        "findings_in_all": sum(member.by_rule.values()),
    }


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, dict):
        return {_valid(key): _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, (list, tuple)) else value
