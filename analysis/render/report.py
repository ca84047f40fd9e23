"""The report as JSON: exactly the keys of the documented schema, nothing terminal-like.

Strings are passed through json, which escapes what needs it; names that are not
UTF-8 come out with their bytes written as \\xNN.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from porttrace.analysis import names, summary
from porttrace.analysis.model import Finding, Origin, Outcome, Party, Trace

SCHEMA = 1
_MARKS = ("sleep_ns", "gate_ns", "call_ns", "syn_ns", "end_ns", "return_ns")


def report(trace: Trace, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the whole report as plain values, ready for json.dumps."""
    trust = summary.trust(trace)
    return {
        "schema": SCHEMA,
        "trace": {
            "host": trace.host.name,
            "kernel": trace.host.kernel,
            "mode": trace.host.mode,
            "wire": trace.host.wire,
            "start": (trace.start_ns + trace.wall_offset_ns) / 1e9,
            "duration_s": round(summary.duration_s(trace), 3),
            "filter": trace.filter,
        },
        "trust": {
            "events": trust.events,
            "lost_events": trust.lost_events,
            "attempts_unknown": trust.attempts_unknown,
            "complete": trust.complete,
        },
        "attempts": {
            "total": len(trace.attempts),
            "by_outcome": summary.by_outcome(trace.attempts),
        },
        "processes": [
            {key: _plain(row[key]) for key in ("pid", "comm", "attempts", "max_in_flight", "max_demand")}
            for row in summary.process_table(trace).to_dict("records")
        ],
        "findings": [finding_json(finding) for finding in findings],
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    """Return one finding as plain values."""
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "confidence": round(finding.confidence, 3),
        "scope": finding.scope or None,
        "subject": _plain(finding.subject),
        "slots": finding.slots or None,
        "place": finding.place or None,
        "mechanism": finding.mechanism or None,
        "summary": _plain(finding.summary),
        "evidence": {
            **_plain(finding.evidence),
            "hypotheses": [
                {"name": h.name, "verdict": h.verdict, "why": _plain(h.why)}
                for h in finding.hypotheses
            ],
        },
        "victims": [_party(party) for party in finding.victims],
        "blockers": [_party(party) for party in finding.blockers],
        "suspects": [
            {"kind": s.kind, "place": s.place, "what": _plain(s.what), "source": s.source, "pid": s.pid}
            for s in finding.suspects
        ],
        "advice": _plain(list(finding.advice)),
    }


def attempt_json(row: np.void) -> dict[str, Any]:
    """Return one ATTEMPT row as plain values; marks that are not there are null."""
    return {
        "attempt_id": int(row["attempt_id"]),
        "pid": int(row["pid"]),
        "tid": int(row["tid"]),
        "comm": _plain(names.comm(row)),
        "uid": int(row["uid"]),
        "family": 4 if row["family"] == 2 else 6,
        "saddr": names.address(row["saddr"].tobytes()).strip("[]"),
        "sport": int(row["sport"]),
        "daddr": names.address(row["daddr"].tobytes()).strip("[]"),
        "dport": int(row["dport"]),
        "origin": Origin(int(row["origin"])).name,
        "outcome": Outcome(int(row["outcome"])).name,
        "errno": int(row["errno"]),
        "blocking": {1: True, 0: False}.get(int(row["blocking"])),
        "retransmits": int(row["retransmits"]),
        "complete": bool(row["complete"]),
        **{mark: int(row[mark]) or None for mark in _MARKS},
    }


def _party(party: Party) -> dict[str, Any]:
    return {key: _plain(value) for key, value in vars(party).items()}


def _plain(value: Any) -> Any:
    # numpy scalars to Python's, NaN to null, bytes that are no text to \xNN.
    if isinstance(value, str):
        return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
