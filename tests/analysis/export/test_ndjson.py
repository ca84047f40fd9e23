"""The lines are those that a live trace prints."""

import json

import pytest

from porttrace.analysis.export.ndjson import ndjson
from porttrace.cli.printer import JsonPrinter
from porttrace.tracer.event import no_events
from recordings import story
from traces import trace_of


def test_as_a_live_trace_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    trace = trace_of(story())
    JsonPrinter().attempts(trace.rows)
    assert b"".join(ndjson(trace)).decode() == capsys.readouterr().out


def test_an_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porttrace.analysis.export.ndjson._CHUNK", 7)
    trace = trace_of(story())
    lines = b"".join(ndjson(trace)).splitlines()
    assert [json.loads(line)["attempt_id"] for line in lines] == list(trace.attempts["attempt_id"])


def test_of_nothing_nothing() -> None:
    assert b"".join(ndjson(trace_of(no_events()))) == b""
