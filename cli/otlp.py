"""Spans of a recording sent to an OpenTelemetry endpoint (OTLP over HTTP), and nowhere else."""

import logging
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

import click
import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from porttrace.analysis.render.escape import clipped
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.words import count

_TOLD = 300  # characters of what a server answered


def traces_url(endpoint: str) -> str:
    """Return the URL that spans are posted to: of a server alone, its usual path.

    Raises click.UsageError.
    """
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.UsageError(
            f"{endpoint!r} is no endpoint; write a URL, such as http://127.0.0.1:4318"
        )
    return endpoint if parts.path.strip("/") else parts._replace(path="/v1/traces").geturl()


def send(batches: Iterable[Sequence[ReadableSpan]], endpoint: str) -> int:
    """Post all spans to `endpoint`, a batch at a time, and return how many were taken.

    A batch that the server cannot take now is sent again for some seconds. Raises PorttraceError,
    which says how many were sent before.
    """
    answers = _Answers()
    with requests.Session() as session:
        session.hooks["response"].append(answers.hear)
        exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), session=session)
        try:
            return _send(batches, exporter, answers, endpoint)
        finally:
            exporter.shutdown()  # type: ignore[no-untyped-call]


def _send(
    batches: Iterable[Sequence[ReadableSpan]],
    exporter: SpanExporter,
    answers: "_Answers",
    endpoint: str,
) -> int:
    sent = 0
    for batch in batches:
        with answers:
            done = exporter.export(batch)
        if done is not SpanExportResult.SUCCESS:
            raise _refused(endpoint, answers.why, sent)
        sent += len(batch)
        if answers.rejected:
            raise _refused(endpoint, answers.why, sent - answers.rejected)
    return sent


def _refused(endpoint: str, why: str, sent: int) -> PorttraceError:
    told = clipped(why, _TOLD) if why else "no reason is known"
    return PorttraceError(
        f"{endpoint} did not take all spans: {told}; {count(sent, 'span')} were sent before",
        "is it an OTLP/HTTP endpoint, and running? Sent again, spans have the same numbers: none "
        "is there twice",
    )


class _Answers(logging.Handler):
    # What the server answered, and what the exporter says of it instead of raising it.
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.why = ""
        self.rejected = 0
        self._logger = logging.getLogger("opentelemetry")

    def __enter__(self) -> None:
        self._logger.addHandler(self)
        self._propagated, self._logger.propagate = self._logger.propagate, False

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the latest word of the exporter."""
        self.why = record.getMessage()

    def hear(self, response: requests.Response, *_: object, **__: object) -> None:
        """Look whether a server that took a batch rejects some of its spans."""
        if not response.ok or "json" in response.headers.get("content-type", ""):
            return
        try:
            told = ExportTraceServiceResponse.FromString(response.content).partial_success
        except ValueError:  # DecodeError: no answer of OTLP
            return
        self.rejected += told.rejected_spans
        if told.rejected_spans:
            self.why = f"{told.rejected_spans} were rejected: {told.error_message}"
