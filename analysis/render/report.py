"""The report as JSON: exactly the keys of the documented schema, nothing terminal-like.

Strings are passed through json, which escapes what needs it; names that are not
UTF-8 come out with their bytes written as \\xNN.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from porttrace.analysis import bind_names, names, summary
from porttrace.analysis.model import (
    Answer,
    BindCall,
    BindOption,
    Finding,
    Looked,
    Origin,
    Outcome,
    Party,
    Process,
    Trace,
)
from porttrace.analysis.render.escape import valid

SCHEMA = 1
_MARKS = (
    "sleep_ns", "gate_ns", "call_ns", "kernel_ns", "syn_ns", "wire_ns", "wire_last_ns",
    "kernel_return_ns", "answer_ns", "end_ns", "return_ns",
)  # fmt: skip


def report(trace: Trace, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the whole report as plain values, ready for json.dumps."""
    trust = summary.trust(trace)
    return {
        "schema": SCHEMA,
        "trace": {
            "host": _plain(trace.host.name),
            "kernel": trace.host.kernel,
            "mode": trace.host.mode,
            "wire": trace.host.wire,
            "start": (trace.start_ns + trace.wall_offset_ns) / 1e9,
            "duration_s": round(summary.duration_s(trace), 3),
            "filter": _plain(trace.filter),
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
            {
                key: _plain(row[key])
                for key in ("pid", "comm", "attempts", "max_in_flight", "max_demand")
            }
            for row in summary.process_table(trace).to_dict("records")
        ],
        "findings": [finding_json(finding) for finding in findings],
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    """Return one finding as plain values."""
    values: dict[str, Any] = {
        "rule": finding.rule,
        "severity": finding.severity,
        "confidence": round(finding.confidence, 3),
        "scope": finding.scope or None,
        "subject": finding.subject,
        "slots": finding.slots or None,
        "place": finding.place or None,
        "mechanism": finding.mechanism or None,
        "summary": finding.summary,
        "evidence": {
            **finding.evidence,
            "hypotheses": [vars(hypothesis) for hypothesis in finding.hypotheses],
        },
        "victims": [_party(party) for party in finding.victims],
        "blockers": [_party(party) for party in finding.blockers],
        "suspects": [vars(suspect) for suspect in finding.suspects],
        "advice": finding.advice,
    }
    return {key: _plain(value) for key, value in values.items()}


def _party(party: Party) -> dict[str, Any]:
    return {**vars(party), "ns_pid": party.ns_pid or None}


def _icmp(row: np.void) -> dict[str, int | None]:
    there = row["answer"] == Answer.icmp
    return {name: int(row[name]) if there else None for name in ("icmp_type", "icmp_code")}


def _translated(row: np.void) -> dict[str, str | int | None]:
    # The ends of the SYN on the wire, where NAT made them others than the socket's.
    ends: dict[str, str | int | None] = {}
    for side in ("s", "d"):
        port = int(row[f"wire_{side}port"])
        address = names.plain_address(row[f"wire_{side}addr"].tobytes())
        ends |= {f"wire_{side}addr": address if port else None, f"wire_{side}port": port or None}
    return ends


def pending_json(
    row: np.void,
    now_ns: int,
    stack: Sequence[str],
    known: Process | None = None,
    reasons: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return one ATTEMPT row that is not over at `now_ns` as plain values, without attempt_id.

    It gets its number when it is over. `stack` holds it: functions of the kernel, innermost first.
    """
    values = attempt_json(row, known, reasons)
    del values["attempt_id"]
    return {**values, "now_ns": now_ns, "stack": list(stack)}


def attempt_json(
    row: np.void,
    known: Process | None = None,
    reasons: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return one ATTEMPT row as plain values; marks that are not there are null.

    `known` is its process: it tells of the container. `reasons` are `Host.drop_reasons`.
    """
    return {
        "attempt_id": int(row["attempt_id"]),
        **_caller(row, known or Process(0)),
        "family": 4 if row["family"] == 2 else 6,
        "saddr": names.plain_address(row["saddr"].tobytes()),
        "sport": int(row["sport"]),
        "daddr": names.plain_address(row["daddr"].tobytes()),
        "dport": int(row["dport"]),
        "origin": Origin(int(row["origin"])).name,
        "outcome": Outcome(int(row["outcome"])).name,
        "errno": int(row["errno"]),
        "blocking": {1: True, 0: False}.get(int(row["blocking"])),
        "retransmits": int(row["retransmits"]),
        "resent_us": np.trim_zeros(np.frombuffer(row["resent"].tobytes(), "<u4"), "b").tolist(),
        "wire_count": int(row["wire_count"]),
        "answer": Answer(int(row["answer"])).name,
        "answers": int(row["answers"]),
        **_icmp(row),
        "drop_reason": names.drop_reason(int(row["drop_reason"]), reasons or {}) or None,
        **_translated(row),
        "complete": bool(row["complete"]),
        **{mark: int(row[mark]) or None for mark in _MARKS},
    }


def bind_json(
    row: np.void, known: Process | None = None, found: Looked | None = None
) -> dict[str, Any]:
    """Return one BIND row as plain values. `known` is its process, `found` what was looked up.

    `port_got` is null where it is not known, `options` where none of them is.
    """
    known = known or Process(0)
    on = {each.name: bind_names.option(row, each) for each in BindOption if row["options_known"]}
    holders = [vars(each) for each in found.holders] if found else []
    return {
        "time_ns": int(row["time_ns"]),
        "call_ns": int(row["call_ns"]),
        **_caller(row, known),
        "netns": bind_names.netns(row, found) or None,
        "call": bind_names.call(row),
        "protocol": bind_names.protocol(row) or None,
        "family": {2: 4, 10: 6}.get(int(row["family"])),
        "addr": bind_names.address(row),
        "port_asked": int(row["port_asked"]),
        "port_got": int(row["port_got"]) or None,
        "backlog": int(row["backlog"]) if row["call"] == BindCall.listen else None,
        "errno": int(row["errno"]),
        "error": bind_names.error(row) or None,
        "options": on or None,
        "destination": names.destination(row) if row["dport"] else None,
        "holders": [_plain(each) for each in holders],
        "not_shown": bind_names.not_shown(row, found) or None,
        "facts": _plain(dict(found.facts)) if found else {},
    }


def _caller(row: np.void, known: Process) -> dict[str, Any]:
    return {
        "pid": int(row["pid"]),
        "tid": int(row["tid"]),
        "comm": _plain(names.comm(row)),
        "container": _plain(known.container),
        "container_name": _plain(known.container_name),
        "ns_pid": known.ns_pid or None,
        "uid": int(row["uid"]),
    }


def _plain(value: Any) -> Any:
    # numpy scalars to Python's, NaN to null, bytes that are no text to \xNN.
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
