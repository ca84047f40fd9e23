"""Spans as OpenTelemetry means them: its names, its kinds, one trace an attempt."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from builders import MS, S, Story, events
from porttrace.analysis.export import otel
from porttrace.analysis.model import Finding, Host, Outcome, Party, Process, Trace
from porttrace.analysis.recording import load
from recordings import story
from traces import trace_of

FILE = Path(__file__).parents[2] / "data" / "v1-two-threads.ptrace"
WALL_NS = 10**18
SEMCONV = "opentelemetry.semconv"


def exported(trace: Trace, *findings: Finding) -> tuple[ReadableSpan, ...]:
    """Return what the SDK's own exporter into memory got."""
    memory = InMemorySpanExporter()
    for batch in otel.batches(trace, findings):
        memory.export(batch)
    return memory.get_finished_spans()


def clients(spans: tuple[ReadableSpan, ...]) -> list[ReadableSpan]:
    return [span for span in spans if span.kind is SpanKind.CLIENT]


def one(told: Story, **about: Any) -> ReadableSpan:
    about = {"wall_offset_ns": WALL_NS, **about}
    (span,) = clients(exported(trace_of(told.array(), **about)))
    return span


def values(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_the_story_of_two_threads() -> None:
    recording = load(FILE)
    spans = exported(recording.trace, *recording.findings)
    dead, live = clients(spans)
    # THEN the one that waited has a child that is its hold at the gate, within it
    assert (live.name, live.status.status_code) == ("192.0.2.2:80", StatusCode.UNSET)
    (gate,) = [s for s in spans if s.parent and s.parent.span_id == live.context.span_id]
    assert (gate.name, gate.kind) == ("gate", SpanKind.INTERNAL)
    assert gate.context.trace_id == live.context.trace_id != dead.context.trace_id
    assert gate.start_time and gate.end_time and live.start_time and live.end_time
    assert 2 * S < gate.end_time - gate.start_time == values(live)["porttrace.wait.gate_ns"]
    assert live.start_time <= gate.start_time < gate.end_time <= live.end_time
    # AND both say which part they had in the finding
    told = [(values(s)["porttrace.role"], values(s)["porttrace.slots"]) for s in (dead, live)]
    assert told == [("in_front", 1), ("waited", 1)]
    assert values(live)["porttrace.finding"] == "serialized-connects"
    # AND the dead one failed, by no errno
    assert dead.status.status_code is StatusCode.ERROR
    assert values(dead)["error.type"] == "cancelled"
    # AND the times are those of the wall clock
    began_ns = recording.trace.start_ns + recording.trace.wall_offset_ns
    assert began_ns <= dead.start_time < live.start_time  # type: ignore[operator]


def test_who_connected_where() -> None:
    told = events()
    told.connect(pid=7, tid=8, comm=b"pool", to="192.0.2.2:389", at=S).syn_sent().established()
    process = Process(7, comm="web", exe="/usr/sbin/web", user="www", container="4f3a",
                      container_name="shop")  # fmt: skip
    span = one(told, processes={7: process})
    expected = {
        "network.transport": "tcp", "network.type": "ipv4",
        "network.peer.address": "192.0.2.2", "network.peer.port": 389,
        "server.address": "192.0.2.2", "server.port": 389,
        "network.local.address": "192.0.2.1",
        "process.pid": 7, "thread.id": 8, "thread.name": "pool",
        "process.executable.name": "web", "process.executable.path": "/usr/sbin/web",
        "process.owner": "www", "container.id": "4f3a", "container.name": "shop",
        "porttrace.outcome": "established",
    }  # fmt: skip
    assert expected.items() <= values(span).items()
    assert "error.type" not in values(span)
    assert span.start_time == WALL_NS + S


def test_ipv6() -> None:
    told = events()
    told.connect(to="[2001:db8::2]:80", at=S).syn_sent().refused()
    span = one(told)
    assert span.name == "[2001:db8::2]:80"
    assert values(span)["network.type"] == "ipv6"
    assert values(span)["network.peer.address"] == "2001:db8::2"
    assert values(span)["error.type"] == "ECONNREFUSED"
    assert span.status.description == "refused"


def test_the_host_is_the_one_that_was_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=elsewhere")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")
    told = events()
    told.connect(at=S).syn_sent().established()
    span = one(told, host=Host("web.example", "6.1.0"))
    resource = span.resource.attributes
    assert (resource["host.name"], resource["os.type"]) == ("web.example", "linux")
    assert resource["os.version"] == "6.1.0"
    assert len(values(span)) > 10


def test_what_is_not_over_is_no_error() -> None:
    told = events()
    told.connect(at=S).syn_sent()
    span = one(told, end_ns=9 * S)
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in values(span)
    assert values(span)["porttrace.outcome"] == "pending"
    assert span.end_time == WALL_NS + 9 * S


def test_short_waits_are_numbers_only() -> None:
    told = events()
    told.connect(at=S, held_ns=9 * MS).syn_sent().established(after_ns=MS)
    told.connect(at=3 * S, held_ns=10 * MS).syn_sent().established(after_ns=MS)
    spans = exported(trace_of(told.array()))
    first, second = clients(spans)
    assert values(first)["porttrace.wait.gate_ns"] == 9 * MS
    inner = [s for s in spans if s.kind is SpanKind.INTERNAL]
    assert [(s.name, s.parent and s.parent.span_id) for s in inner] == [
        ("gate", second.context.span_id)
    ]


def test_names_that_are_no_utf8() -> None:
    told = events()
    told.connect(comm=b"we\xffb\x1b", at=S).syn_sent().established()
    trace = trace_of(told.array(), processes={7: Process(7, comm="w\udcff", exe="/bin/\udcff")})
    (line,) = otel.json_lines(otel.batches(trace))
    assert b"we\\\\xffb" in line and json.loads(line)


def test_of_two_findings_the_worse_is_told() -> None:
    told = events()
    told.connect(at=S).syn_sent().established()
    party = Party(1, 7, 7, "web", "192.0.2.2:80", "established", 1.0, S)
    info = Finding("sequential-connects", "info", 0.9, {}, "", victims=(party,))
    worse = Finding("serialized-connects", "critical", 0.6, {}, "", blockers=(party,))
    (span,) = clients(exported(trace_of(told.array()), info, worse))
    assert values(span)["porttrace.finding"] == "serialized-connects"
    assert values(span)["porttrace.role"] == "in_front"


def test_every_kind_of_attempt_comes_out_once_and_in_order() -> None:
    trace = trace_of(story())
    found = clients(exported(trace))
    assert [values(s)["porttrace.attempt_id"] for s in found] == trace.attempts[
        "attempt_id"
    ].tolist()
    outcomes = [Outcome(int(code)).name for code in trace.attempts["outcome"]]
    assert [values(s)["porttrace.outcome"] for s in found] == outcomes
    for span in exported(trace):
        assert span.start_time is not None and span.end_time is not None
        assert span.start_time <= span.end_time


def test_the_numbers_are_those_of_the_recording() -> None:
    trace = trace_of(story())
    first, again = (
        [(s.context.trace_id, s.context.span_id) for s in exported(trace)] for _ in range(2)
    )
    assert first == again
    assert len(set(first)) == len(first)
    other = trace_of(story(), host=Host("other"))
    assert not set(first) & {(s.context.trace_id, s.context.span_id) for s in exported(other)}


def known_names() -> Iterator[str]:
    for kind in ("network", "server", "error", "service"):
        yield from names_in(f"{SEMCONV}.attributes.{kind}_attributes")
    for kind in ("process", "thread", "container", "host", "os", "network"):
        yield from names_in(f"{SEMCONV}._incubating.attributes.{kind}_attributes")


def names_in(module: str) -> Iterator[str]:
    yield from (v for v in vars(importlib.import_module(module)).values() if isinstance(v, str))


def test_names_are_those_of_the_semantic_conventions_or_our_own() -> None:
    recording, known = load(FILE), set(known_names())
    spans = (*exported(recording.trace, *recording.findings), *exported(trace_of(story())))
    used = {name for span in spans for name in (*values(span), *span.resource.attributes)}
    foreign = {name for name in used if not name.startswith("porttrace.")}
    assert len(foreign) > 15
    assert foreign <= known
    page = (FILE.parents[2] / "docs" / "otel.md").read_text()
    missing = [n for n in used if f"`{n}`" not in page and not n.startswith("porttrace.wait.")]
    assert not missing


def test_lines_of_json_are_what_a_collector_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "BATCH", 3)
    trace = trace_of(story(), wall_offset_ns=WALL_NS)
    lines = [json.loads(line) for line in otel.json_lines(otel.batches(trace))]
    spans = [
        span for line in lines for part in line["resourceSpans"]
        for scope in part["scopeSpans"] for span in scope["spans"]
    ]  # fmt: skip
    made = exported(trace)
    assert len(lines) == -(-len(made) // 3) > 1
    assert [span["spanId"] for span in spans] == [f"{s.context.span_id:016x}" for s in made]
    assert [span["traceId"] for span in spans] == [f"{s.context.trace_id:032x}" for s in made]
    parents = [f"{s.parent.span_id:016x}" if s.parent else None for s in made]
    assert [span.get("parentSpanId") for span in spans] == parents
    assert {span["kind"] for span in spans} <= {1, 3}
    assert [span["startTimeUnixNano"] for span in spans] == [str(s.start_time) for s in made]


def test_of_nothing_nothing() -> None:
    empty = trace_of(np.zeros(0, story().dtype))
    assert list(otel.batches(empty)) == [] == list(otel.json_lines(otel.batches(empty)))
