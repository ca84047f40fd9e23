"""Spans of a recording sent to an OpenTelemetry endpoint (OTLP over HTTP), and nowhere else."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import click
import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from porttrace.analysis.render.escape import clipped, printable
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
    with _Session() as session, _quiet():
        exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), session=session)
        try:
            return _send(batches, exporter, session, endpoint)
        finally:
            exporter.shutdown()  # type: ignore[no-untyped-call]


def _send(
    batches: Iterable[Sequence[ReadableSpan]],
    exporter: SpanExporter,
    session: "_Session",
    endpoint: str,
) -> int:
    sent = 0
    for batch in batches:
        if exporter.export(batch) is not SpanExportResult.SUCCESS:
            raise _refused(endpoint, session.why, sent)
        sent += len(batch)
        if session.rejected:
            raise _refused(endpoint, session.why, sent - session.rejected)
    return sent


def _refused(endpoint: str, why: str, sent: int) -> PorttraceError:
    told = clipped(why, _TOLD) if why else "no reason is known"
    return PorttraceError(
        f"{printable(endpoint)} did not take all spans: {told}; sent before: {count(sent, 'span')}",
        "is it an OTLP/HTTP endpoint, and running? Sent again, spans have the same numbers: none "
        "is there twice",
    )


class _Session(requests.Session):
    # Keeps why a batch was not taken: the exporter only says that it was not.
    def __init__(self) -> None:
        super().__init__()
        self.why = ""
        self.rejected = 0  # spans of batches that were taken

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send as any session does, and keep what came of it."""
        try:
            response = super().send(request, **options)
        except requests.RequestException as error:
            self.why = str(error)
            raise
        if response.ok:
            self._look(response)
        else:
            self.why = f"{response.status_code} {response.reason} {response.text}".strip()
        return response

    def _look(self, response: requests.Response) -> None:
        try:
            told = ExportTraceServiceResponse.FromString(response.content).partial_success
        except DecodeError:
            return  # taken, and said in other words
        self.rejected += told.rejected_spans
        if told.rejected_spans:
            self.why = f"{told.rejected_spans} were rejected: {told.error_message}"


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter logs what is said once, and better, when it ends.
    logger = logging.getLogger("opentelemetry")
    nobody, before = logging.NullHandler(), logger.propagate
    logger.addHandler(nobody)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = before
        logger.removeHandler(nobody)
