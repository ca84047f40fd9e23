"""Spans reach an endpoint whole, or the message says how many did; nothing goes anywhere else."""

import builtins
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from porttrace.analysis.export import otel
from porttrace.cli import main, otlp

FILE = Path(__file__).parent.parent / "data" / "v1-storm.ptrace"


class Receiver(ThreadingHTTPServer):
    """A small OTLP/HTTP endpoint: keeps what it is sent, and answers what it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        self.refuse_after = 10**9
        self.answer = 200, ExportTraceServiceResponse().SerializeToString()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Any]:
        return [
            span for request in self.requests for part in request.resource_spans
            for scope in part.scope_spans for span in scope.spans
        ]  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        """Take a batch."""
        body = self.rfile.read(int(self.headers["content-length"]))
        status, answer = self.server.answer
        if len(self.server.requests) >= self.server.refuse_after:
            status, answer = 403, b"no more today\x1b[2J"
        else:
            assert self.headers["content-type"] == "application/x-protobuf"
            self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.server.paths.append(self.path)
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def send_to(url: str) -> int:
    return main(["export", str(FILE), "-f", "otel", "--endpoint", url])


def test_all_spans_arrive(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # GIVEN batches of ten, and a variable that names an endpoint elsewhere
    monkeypatch.setattr(otel, "BATCH", 10)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://192.0.2.1:4318")
    assert send_to(receiver.url) == 0
    # THEN each attempt of the recording is there once, under the usual path
    numbers = [
        value.value.int_value for span in receiver.spans for value in span.attributes
        if value.key == "porttrace.attempt_id"
    ]  # fmt: skip
    assert sorted(numbers) == list(range(1, 25))
    assert len({span.span_id for span in receiver.spans}) == len(receiver.spans)
    assert set(receiver.paths) == {"/v1/traces"} and len(receiver.paths) > 2
    out, err = capsys.readouterr()
    assert not out
    assert err == f"{len(receiver.spans)} spans sent to {receiver.url}\n"


def test_an_endpoint_that_refuses_in_the_middle(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(otel, "BATCH", 10)
    receiver.refuse_after = 2
    assert send_to(receiver.url) == 1
    err = capsys.readouterr().err
    assert "sent before: 20 spans" in err
    assert "403" in err and "hint: " in err and "\x1b" not in err
    assert "Traceback" not in err


def test_a_server_that_rejects_some(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    told = ExportTracePartialSuccess(rejected_spans=3, error_message="too old\x1b[2J")
    receiver.answer = 200, ExportTraceServiceResponse(partial_success=told).SerializeToString()
    assert send_to(receiver.url) == 1
    err = capsys.readouterr().err
    assert "3 were rejected: too old\\x1b[2J" in err
    assert f"sent before: {len(receiver.spans) - 3} spans" in err


def test_an_endpoint_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        assert send_to(f"http://127.0.0.1:{taken.getsockname()[1]}") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: http://127.0.0.1:")
    assert "refused" in err and "sent before: 0 spans" in err
    assert "Traceback" not in err and err.count("\n") == 2


@pytest.mark.parametrize("wrong", ["127.0.0.1:4318", "ftp://host", "http://", "http://h:x"])
def test_what_is_no_endpoint(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert send_to(wrong) == 2
    assert "is no endpoint" in capsys.readouterr().err


def test_a_path_of_ones_own_stays() -> None:
    assert otlp.traces_url("http://h:4318") == "http://h:4318/v1/traces"
    assert otlp.traces_url("http://h:4318/") == "http://h:4318/v1/traces"
    assert otlp.traces_url("https://h/otlp/spans?x=1") == "https://h/otlp/spans?x=1"
    with pytest.raises(click.UsageError):
        otlp.traces_url("h")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-f", "csv", "--endpoint", "http://127.0.0.1:1"], "--endpoint is for -f otel"),
        (["-f", "otel"], "-o OUT or --endpoint URL is needed"),
        (["-f", "csv"], "-o OUT is needed"),
        (["-f", "otel", "-o", "-", "--endpoint", "http://127.0.0.1:1"], "exclude each other"),
    ],
)
def test_where_to(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(FILE), *words]) == 2
    assert why in capsys.readouterr().err


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any, **others: Any) -> Any:
        if name.startswith("porttrace.analysis.export.otel"):
            raise ModuleNotFoundError("No module named 'opentelemetry'", name="opentelemetry")
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["export", str(FILE), "-f", "otel", "-o", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert "the OpenTelemetry SDK is not installed" in err
    assert "hint: pip install 'porttrace[otel]'" in err
    assert not (tmp_path / "out").exists()
