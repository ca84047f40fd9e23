"""Programs in which connects are slow or take turns, and yet no throttle is at work.

    sequential     one thread connects to several destinations in turn, one of them dead
    lock           several threads, but the program's own lock allows one connect at a time
    burst          many threads connect as fast as they can
    slow-server    many threads connect to a server that answers late
    dead-parallel  some threads try dead destinations while others connect freely

Every one of them ends by itself.
"""

from __future__ import annotations

import argparse
import functools
import sys
import threading
import time
from collections.abc import Callable

from porttrace.lab.workloads.truth import (
    Destination,
    Report,
    call_thread,
    connect,
    drop,
    modes_parser,
    run_all,
    spawn,
)

_LIVE_TIMEOUT_S = 30.0


class Program:
    """One control with its options; each mode is one method."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self._options = options
        self._report = report

    def sequential(self) -> None:
        """Connect to live, dead, live, live ... in one thread."""
        for _ in range(self._options.connects):
            self._live()
            self._dead()
            self._live()
            self._live()

    def lock(self) -> None:
        """Connect in several threads under one lock; the first thread's destination is dead."""
        lock = threading.Lock()

        def worker(number: int) -> None:
            for _ in range(self._options.connects):
                with lock:
                    (self._dead if number == 0 else self._live)()
                time.sleep(0.01)

        self._in_threads("worker", worker)

    def burst(self) -> None:
        """Connect to the live server from all threads at once, as fast as they can."""
        start = threading.Barrier(self._options.threads)

        def worker(_number: int) -> None:
            start.wait()
            for _ in range(self._options.connects):
                self._live()

        self._in_threads("burst", worker)

    def slow_server(self) -> None:
        """Connect in all threads and wait for the late answer."""

        def worker(_number: int) -> None:
            for _ in range(self._options.connects):
                self._live(ask=True)

        self._in_threads("client", worker)

    def dead_parallel(self) -> None:
        """Try dead destinations in every other thread, connect freely in the rest meanwhile."""
        end_s = time.monotonic() + self._options.connects * self._options.dead_time

        def worker(number: int) -> None:
            while time.monotonic() < end_s:
                (self._dead if number % 2 == 0 else self._live)()
                time.sleep(0.05)

        self._in_threads("worker", worker)

    def _in_threads(self, name: str, worker: Callable[[int], None]) -> None:
        numbers = range(self._options.threads)
        run_all([spawn(f"{name}-{n}", functools.partial(worker, n)) for n in numbers])

    def _dead(self) -> None:
        self._connect(self._options.dead, self._options.dead_time)

    def _live(self, ask: bool = False) -> None:
        self._connect(self._options.live, _LIVE_TIMEOUT_S, ask)

    def _connect(self, destination: Destination, timeout_s: float, ask: bool = False) -> None:
        attempt, sock = connect(destination, timeout_s, self._options.blocking)
        self._report.attempt(attempt)
        if ask and sock is not None:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            sock.recv(4096)
        drop(sock)


_MODES: dict[str, Callable[[Program], None]] = {
    "sequential": Program.sequential,
    "lock": Program.lock,
    "burst": Program.burst,
    "slow-server": Program.slow_server,
    "dead-parallel": Program.dead_parallel,
}


def main(argv: list[str] | None = None) -> int:
    """Run one control to its end."""
    options = _parser().parse_args(argv)
    call_thread("controls")
    with Report(options.truth) as report:
        _MODES[options.mode](Program(options, report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = modes_parser("controls", __doc__, _MODES, threads=8)
    parser.add_argument("--connects", type=int, default=3, metavar="N", help="rounds per thread")
    return parser


if __name__ == "__main__":
    sys.exit(main())
