"""The web site whose logins hang: pooled work is fast, and a login opens a connection each time.

One process. An `agent` thread retries a dead monitoring server for ever; each page view does a
query over a pooled database connection, a request over a pooled HTTP connection, and a login that
connects to the directory server anew. Under a throttle only the logins suffer.
"""

from __future__ import annotations

import argparse
import functools
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from porttrace.lab.workloads.truth import (
    Attempt,
    Destination,
    Report,
    add_truth_option,
    call_thread,
    connect,
    drop,
    run_all,
    spawn,
)
from porttrace.tracer.words import count

_POOL_SIZE = 4
_LOGIN_TIMEOUT_S = 60.0
_QUERY = b"select 1\n"
_REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
_BIND = b"bind user\n"


class Pool:
    """Connections opened once and used again and again, as a database driver keeps them."""

    def __init__(self, destination: Destination) -> None:
        self._free: queue.Queue[socket.socket] = queue.Queue()
        for _ in range(_POOL_SIZE):
            attempt, sock = connect(destination, 5.0)
            if sock is None:
                raise ConnectionError(f"no connection to {destination}: {attempt.result}")
            self._free.put(sock)

    def ask(self, request: bytes) -> None:
        """Send one request over a pooled connection and wait for its answer."""
        sock = self._free.get()
        try:
            sock.sendall(request)
            sock.recv(4096)
        finally:
            self._free.put(sock)


@dataclass(frozen=True)
class Page:
    """One page view: how long each part took, and the login's attempt."""

    number: int
    database_ms: float
    http_ms: float
    login_ms: float
    login: Attempt

    def record(self) -> dict[str, object]:
        """Return the page as a JSON record; the login's marks are CLOCK_MONOTONIC."""
        return {
            "page": self.number,
            "thread": self.login.thread,
            "tid": self.login.tid,
            "database_ms": round(self.database_ms, 3),
            "http_ms": round(self.http_ms, 3),
            "login_ms": round(self.login_ms, 3),
            "login_start_ns": self.login.start_ns,
            "login_end_ns": self.login.end_ns,
            "login_result": self.login.result,
        }

    def _fate(self) -> str:
        result = self.login.result
        return "took" if result == "connected" else f"failed ({result}) after"

    def words(self) -> str:
        """Say how the page view went."""
        return (
            f"page {self.number}: login {self._fate()} {self.login_ms / 1000:.2f} s "
            f"(database {self.database_ms:.1f} ms, http {self.http_ms:.1f} ms)"
        )


class Website:
    """The process: its pools, opened before anything else, and its directory server."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self._directory: Destination = options.directory
        self._blocking: bool = options.blocking
        self._report = report
        self._database = Pool(options.database)
        self._http = Pool(options.http)
        self.pages: list[Page] = []

    def view(self, number: int) -> None:
        """View one page and report it."""
        database_ms = _timed_ms(lambda: self._database.ask(_QUERY))
        http_ms = _timed_ms(lambda: self._http.ask(_REQUEST))
        start_ns = time.monotonic_ns()
        login = self._login()
        login_ms = (time.monotonic_ns() - start_ns) / 1e6
        page = Page(number, database_ms, http_ms, login_ms, login)
        self.pages.append(page)
        self._report.write("page", page.record(), page.words())

    def _login(self) -> Attempt:
        attempt, sock = connect(self._directory, _LOGIN_TIMEOUT_S, self._blocking)
        if sock is not None:
            sock.sendall(_BIND)
            sock.recv(4096)
            drop(sock)
        return attempt


def _timed_ms(work: Callable[[], None]) -> float:
    start_ns = time.monotonic_ns()
    work()
    return (time.monotonic_ns() - start_ns) / 1e6


def run_agent(options: argparse.Namespace, report: Report, stop: threading.Event) -> None:
    """Try the dead monitor again and again until told to stop."""
    while not stop.is_set():
        attempt, sock = connect(options.monitor, options.dead_time, options.blocking)
        drop(sock)
        report.attempt(attempt)
        stop.wait(options.pause)


def main(argv: list[str] | None = None) -> int:
    """Run the site for a bounded number of page views and report each."""
    options = _parser().parse_args(argv)
    call_thread("website")
    with Report(options.truth) as report:
        site = Website(options, report)
        stop = threading.Event()
        agent = spawn("agent", lambda: run_agent(options, report, stop))
        time.sleep(options.page_interval)
        run_all(_view_pages(site, options))
        stop.set()
        agent.join()
        _summarise(site, report)
    return 0


def _view_pages(site: Website, options: argparse.Namespace) -> list[threading.Thread]:
    views = []
    for number in range(1, options.pages + 1):
        views.append(spawn(f"page-{number}", functools.partial(site.view, number)))
        time.sleep(options.page_interval)
    return views


def _summarise(site: Website, report: Report) -> None:
    logins = sorted(page.login_ms for page in site.pages)
    slow = sum(login_ms > 500 for login_ms in logins)
    worst_ms = logins[-1] if logins else 0.0
    failed = [page.login.result for page in site.pages if page.login.result != "connected"]
    record = {
        "pages": len(logins),
        "slow_logins": slow,
        "failed_logins": len(failed),
        "worst_login_ms": round(worst_ms, 3),
    }
    words = f"{count(len(logins), 'page')}: {_failed(failed)}, {count(slow, 'login')} took over"
    words += f" half a second, worst {worst_ms / 1000:.2f} s"
    report.write("summary", record, words)


def _failed(results: list[str]) -> str:
    kinds = ", ".join(f"{results.count(kind)} {kind}" for kind in sorted(set(results)))
    return f"{count(len(results), 'login')} failed ({kinds})" if results else "no login failed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="website", description=__doc__)
    for name in ("monitor", "directory", "database", "http"):
        parser.add_argument(
            f"--{name}", type=Destination.parse, required=True, metavar="ADDRESS:PORT"
        )
    parser.add_argument("--dead-time", type=float, default=6.0, metavar="S", help="agent's timeout")
    parser.add_argument("--pause", type=float, default=1.0, metavar="S", help="between retries")
    parser.add_argument("--pages", type=int, default=10, metavar="N", help="page views in all")
    parser.add_argument("--page-interval", type=float, default=1.0, metavar="S")
    parser.add_argument("--blocking", action="store_true", help="connect with blocking sockets")
    add_truth_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
