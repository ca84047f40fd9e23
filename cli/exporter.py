"""Metrics in Prometheus' text format: over HTTP, and as a file for node_exporter.

The only module that imports prometheus_client. Whatever asks, and however slowly, a bounded number
of requests is answered at once, and none may take long.
"""

import errno
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from porttrace.analysis.metrics.catalogue import Family
from porttrace.analysis.metrics.histogram import Histogram
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.output import OutputError, invoking_user
from porttrace.tracer.words import endpoint

try:
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import make_wsgi_app
except ModuleNotFoundError as error:
    raise PorttraceError(
        f"porttrace serve needs the Python package prometheus-client ({error})",
        "sudo apt install python3-prometheus-client, or in a virtual environment "
        "pip install prometheus-client",
    ) from None

FILE = "porttrace.prom"
"""The name of the file for node_exporter, which reads what ends in .prom."""

_MOST_REQUESTS = 8
_REQUEST_S = 10.0
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Ask = Callable[[], Iterable[Family]]


class Exporter:
    """Renders what `ask` tells. It is asked in whatever thread a request comes in."""

    def __init__(self, ask: Ask) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Collector(ask))
        # Under a name of its own: node_exporter has a process_cpu_seconds_total itself.
        ProcessCollector(namespace="porttrace", registry=self.registry)

    def text(self) -> bytes:
        """Return all metrics as text."""
        text: bytes = generate_latest(self.registry)
        return text


class _Collector:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        yield from map(_family, self._ask())

    def describe(self) -> list[Metric]:
        return []


def _family(family: Family) -> Metric:
    told = family.metric
    kinds = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    made: Any = kinds[told.kind](told.name, told.help, labels=told.labels)
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            made.add_metric(labels, value.cumulative(), value.sum_s)
        else:
            made.add_metric(labels, value)
    metric: Metric = made
    return metric


# -- over HTTP -------------------------------------------------------------------


class _Quiet(WSGIRequestHandler):
    timeout = _REQUEST_S  # for the request to come, and for each write

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def log_error(self, format: str, *args: Any) -> None:
        pass


class _Listener(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _MOST_REQUESTS

    def __init__(self, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._room = threading.BoundedSemaphore(_MOST_REQUESTS)
        super().__init__(address, _Quiet)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service what this host is called.
        socketserver.TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # it went away in the middle of its answer


class Endpoint:
    """A listening socket at once, answers from `serve` on. Raises PorttraceError."""

    def __init__(self, address: str, port: int) -> None:
        self.name = endpoint(address, port)
        try:
            self._server = _Listener((address, port))
        except OSError as error:
            raise PorttraceError(
                f"cannot listen on {self.name}: {error.strerror or error}", _hint(error, port)
            ) from None

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._server.server_close()

    def serve(self, exporter: Exporter) -> None:
        """Answer in a thread of its own, with the rights that the caller has now."""
        self._server.set_app(make_wsgi_app(exporter.registry))
        rounds = {"poll_interval": 60.0}  # nobody shuts it down: it ends with the process
        threading.Thread(
            target=self._server.serve_forever, kwargs=rounds, name="metrics", daemon=True
        ).start()


def _hint(error: OSError, port: int) -> str:
    if isinstance(error, PermissionError):
        return "ports below 1024 take CAP_NET_BIND_SERVICE: choose another one with --listen"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host does not have that address: 'ip address' lists those that it has"
    return f"'porttrace port {port}' says who has it; --listen ADDR:PORT chooses another one"


# -- for node_exporter -------------------------------------------------------------


class Textfile:
    """The file that node_exporter's textfile collector reads: replaced whole, or not at all."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._path = Path(folder) / FILE
        self._new = Path(folder) / f".{FILE}.{os.getpid()}"
        if not os.path.isdir(folder):
            raise OutputError(
                f"there is no folder {folder} for --textfile",
                "make it, or name the one that node_exporter has behind "
                "--collector.textfile.directory",
            )

    def write(self, text: bytes) -> None:
        """Replace the file. Raises OutputError; what stood there before then still does."""
        try:
            with invoking_user():
                self._new.unlink(missing_ok=True)
                with open(os.open(self._new, _NEW, 0o644), "wb") as file:
                    os.fchmod(file.fileno(), 0o644)  # whatever the umask: others read it
                    file.write(text)
                os.replace(self._new, self._path)
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror}",
                "the folder must let the user write that porttrace goes on as "
                "(docs/metrics.md); --keep-root goes on as root",
            ) from None

    def remove(self) -> None:
        """Take the file away: its values would seem to stand for ever."""
        with invoking_user():
            for path in (self._new, self._path):
                try:
                    path.unlink(missing_ok=True)
                except OSError:
                    return
