"""The JSON report has exactly the documented keys and plain values only."""

import json
from dataclasses import replace
from typing import Any

import numpy as np

from builders import NEVER, S, events
from porttrace.analysis.assemble import assemble
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.model import (
    Finding,
    Host,
    Hypothesis,
    Loss,
    Party,
    Process,
    Suspect,
    Trace,
    no_attempts,
)
from porttrace.analysis.render.report import SCHEMA, attempt_json, finding_json, report

RAW = b"\xff\x1b".decode(errors="surrogateescape")


def trace() -> Trace:
    story = events()
    story.connect(pid=7, tid=8, comm=b"\xffweb", at=S).syn_sent().established()
    story.connect(pid=7, tid=9, at=2 * S, to="[2001:db8::2]:443").syn_sent().in_progress().refused()
    story.connect(pid=9, at=3 * S).syn_sent().in_progress()
    rows, still = step(story.array(), Open(), NEVER)
    host = Host(name="web1", kernel="6.18", mode="kprobe", wire=True)
    about = Trace(no_attempts(), S, 11 * S, host=host, filter="pid 7,9", events=9)
    return assemble(about, [rows], still)


def finding(**more: Any) -> Finding:
    fields: dict[str, Any] = {
        "rule": "serialized-connects",
        "severity": "critical",
        "confidence": 0.87654,
        "subject": {"pid": np.uint32(7), "comm": RAW},
        "summary": f"{RAW} waits",
        **more,
    }
    return Finding(**fields)


def loads(value: dict[str, Any]) -> dict[str, Any]:
    """Through strict JSON and back: NaN and lone surrogates would not pass."""
    out = json.dumps(value, allow_nan=False, ensure_ascii=False)
    out.encode()
    result: dict[str, Any] = json.loads(out)
    return result


def test_the_keys_of_a_report() -> None:
    told = loads(report(trace(), [finding()]))
    assert list(told) == ["schema", "trace", "trust", "attempts", "processes", "findings"]
    assert told["schema"] == SCHEMA == 1
    assert set(told["trace"]) == {
        "host", "kernel", "mode", "wire", "start", "duration_s", "filter",
    }  # fmt: skip
    assert set(told["trust"]) == {"events", "lost_events", "attempts_unknown", "complete"}
    assert set(told["attempts"]) == {"total", "by_outcome"}
    for process in told["processes"]:
        assert set(process) == {"pid", "comm", "attempts", "max_in_flight", "max_demand"}
    assert set(told["findings"][0]) == {
        "rule", "severity", "confidence", "scope", "subject", "slots", "place", "mechanism",
        "summary", "evidence", "victims", "blockers", "suspects", "advice",
    }  # fmt: skip


def test_the_values_of_a_report() -> None:
    told = loads(report(replace(trace(), wall_offset_ns=5 * S), []))
    assert told["trace"] == {
        "host": "web1",
        "kernel": "6.18",
        "mode": "kprobe",
        "wire": True,
        "start": 6.0,
        "duration_s": 10.0,
        "filter": "pid 7,9",
    }
    assert told["trust"] == {
        "events": 9, "lost_events": 0, "attempts_unknown": 0, "complete": True,
    }  # fmt: skip
    assert told["attempts"]["total"] == 3
    assert told["attempts"]["by_outcome"] == {"pending": 1, "established": 1, "refused": 1}
    assert told["processes"][0] == {
        "pid": 7, "comm": "\\xffweb", "attempts": 2, "max_in_flight": 1, "max_demand": 1,
    }  # fmt: skip
    assert told["findings"] == []


def test_losses_and_an_empty_trace() -> None:
    empty = Trace(no_attempts(), 0, S, losses=(Loss(0, 5, 0, 7), Loss(5, 9, 1, 3)))
    told = loads(report(empty, []))
    assert told["trust"]["lost_events"] == 10
    assert told["trust"]["complete"] is False
    assert (told["processes"], told["attempts"]) == ([], {"total": 0, "by_outcome": {}})


def test_names_that_are_no_text() -> None:
    named = replace(
        trace(),
        filter=f"comm {RAW}",
        host=Host(name=RAW),
        processes={7: Process(7, comm=RAW)},
    )
    told = loads(report(named, [finding()]))
    assert told["trace"]["filter"] == "comm \\xff\x1b"
    assert told["trace"]["host"] == told["processes"][0]["comm"] == "\\xff\x1b"
    assert told["findings"][0]["subject"]["comm"] == "\\xff\x1b"


def test_the_verdict_of_a_finding() -> None:
    found = finding(
        scope="process", slots=np.int64(1), place="gate", mechanism="queue", advice=(RAW,)
    )
    told = loads(finding_json(found))
    assert told["confidence"] == 0.877
    assert (told["scope"], told["slots"], told["place"]) == ("process", 1, "gate")
    assert told["mechanism"] == "queue"
    assert told["advice"] == ["\\xff\x1b"]


def test_the_evidence_of_a_finding_is_plain_values() -> None:
    evidence = {
        "held": np.int64(4),
        "p_value": np.float32(0.25),
        "delay_s": float("nan"),
        "limit": np.float64("inf"),
        "exact": np.bool_(True),
        "lags": np.array([1, 2]),
        "nested": {3: (np.uint8(1), RAW)},
        RAW: None,
    }
    refuted = Hypothesis("sequential code", "refuted", RAW)
    assert loads(finding_json(finding(evidence=evidence, hypotheses=(refuted,))))["evidence"] == {
        "held": 4,
        "p_value": 0.25,
        "delay_s": None,
        "limit": None,
        "exact": True,
        "lags": [1, 2],
        "nested": {"3": [1, "\\xff\x1b"]},
        "\\xff\x1b": None,
        "hypotheses": [{"name": "sequential code", "verdict": "refuted", "why": "\\xff\x1b"}],
    }


def test_the_parties_of_a_finding() -> None:
    party = Party(3, 7, 8, RAW, "192.0.2.2:80", "established", float("nan"), S)
    told = loads(finding_json(finding(victims=(party,), blockers=(party,))))
    assert told["victims"] == told["blockers"]
    assert told["victims"][0] == {
        "attempt_id": 3,
        "pid": 7,
        "tid": 8,
        "comm": "\\xff\x1b",
        "destination": "192.0.2.2:80",
        "outcome": "established",
        "wait_s": None,
        "start_ns": S,
        "container": "",
        "container_name": "",
        "ns_pid": None,
    }


def test_the_suspects_of_a_finding() -> None:
    suspect = Suspect("preload", "user", RAW, f"/proc/{RAW}", 7)
    assert loads(finding_json(finding(suspects=(suspect,))))["suspects"] == [
        {
            "kind": "preload",
            "place": "user",
            "what": "\\xff\x1b",
            "source": "/proc/\\xff\x1b",
            "pid": 7,
        }
    ]


def test_what_a_finding_does_not_say_is_null() -> None:
    told = loads(finding_json(finding()))
    assert [told[key] for key in ("scope", "slots", "place", "mechanism")] == [None] * 4
    assert (told["victims"], told["advice"]) == ([], [])


def test_attempts() -> None:
    first, second, third = (loads(attempt_json(row)) for row in trace().rows)
    assert first["comm"] == "\\xffweb"
    assert (first["family"], first["saddr"], first["daddr"]) == (4, "192.0.2.1", "192.0.2.2")
    assert (first["outcome"], first["origin"], first["blocking"]) == (
        "established",
        "connect",
        True,
    )
    assert (first["gate_ns"], first["call_ns"]) == (None, S)
    assert (second["family"], second["daddr"], second["dport"]) == (6, "2001:db8::2", 443)
    assert (second["outcome"], second["errno"], second["blocking"]) == ("refused", 111, False)
    assert (third["outcome"], third["end_ns"]) == ("pending", None)
