"""Programs of ordinary habits and ordinary bad luck; no throttle is at work in any of them.

    dead-together  many threads try the same dead host at once
    pool           a thread pool of size one works off many jobs
    asyncio        coroutines connect under a semaphore of one
    steady         threads connect again and again, at random moments
    resolve        threads look a name up, slowly, and connect then
    resolve-lock   the same, with the program's own lock around the look-up
    restart        the program is killed in the middle, and started again
    spend          each connection is closed at once: its port stays taken for a minute
    starved        everything shares one CPU core with busy loops

Every one of them ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import functools
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from porttrace.lab.throttles.child import die_with_parent
from porttrace.lab.workloads.truth import (
    Attempt,
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
_BUSY_LOOPS, _BUSY_AT_MOST_S = 3, 30.0


class Habits:
    """One program with its options; each mode is one method."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self._options = options
        self._report = report

    def dead_together(self) -> None:
        """Try the same dead host from all threads, over and over."""
        self._in_threads(self._in_vain)

    def pool(self) -> None:
        """Work off jobs in a pool with one worker; every third job goes to the dead host."""
        jobs = self._options.threads * self._options.connects
        with ThreadPoolExecutor(max_workers=1) as executor:
            for number in range(jobs):
                executor.submit(self._dead if number % 3 == 0 else self._live)

    def semaphore(self) -> None:
        """Connect from coroutines, of which a semaphore lets one connect at a time."""
        asyncio.run(self._coroutines())

    def steady(self) -> None:
        """Connect to the live server from all threads, with random pauses."""
        self._in_threads(self._steadily)

    def spend(self) -> None:
        """Connect anew each time and close first; without a port, try elsewhere."""
        self._in_threads(self._spending)

    def resolve(self) -> None:
        """Look the name up before each connect; the look-ups of the threads overlap."""
        self._in_threads(functools.partial(self._resolving, threading.Semaphore(1000)))

    def resolve_lock(self) -> None:
        """Look the name up under a lock; the connects themselves are free."""
        self._in_threads(functools.partial(self._resolving, threading.Semaphore(1)))

    def restart(self) -> None:
        """Run `steady` with a dead host besides, kill it in the middle, and run it again."""
        first = self._fork(self._with_a_dead_host)
        time.sleep(self._options.dead_time / 2)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        os.waitpid(self._fork(self._with_a_dead_host), 0)

    def starved(self) -> None:
        """Run `steady` on one core together with busy loops."""
        core = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})
        loops = [self._fork(_busy) for _ in range(_BUSY_LOOPS)]
        try:
            self._with_a_dead_host()
        finally:
            for pid in loops:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _with_a_dead_host(self) -> None:
        dead = spawn("dead", self._dead)
        self.steady()
        dead.join()

    def _in_vain(self, _draw: random.Random) -> None:
        for _ in range(self._options.connects):
            self._dead()

    def _steadily(self, draw: random.Random) -> None:
        for _ in range(self._options.connects):
            time.sleep(draw.uniform(0, 2 * self._options.pause))
            self._live()

    def _spending(self, _draw: random.Random) -> None:
        for _ in range(self._options.connects):
            time.sleep(self._options.pause)
            attempt, sock = connect(self._options.live, _LIVE_TIMEOUT_S, self._options.blocking)
            self._report.attempt(attempt)
            if sock is not None:
                sock.close()  # no reset: this side is in TIME_WAIT now
            elif self._options.elsewhere:
                self._connect(self._options.elsewhere, _LIVE_TIMEOUT_S)

    def _resolving(self, turn: threading.Semaphore, draw: random.Random) -> None:
        live = self._options.live
        for _ in range(self._options.connects):
            time.sleep(draw.uniform(0, 2 * self._options.pause))
            with turn:
                found = socket.getaddrinfo(self._options.name, live.port, socket.AF_INET)
            self._connect(Destination(str(found[0][4][0]), live.port), _LIVE_TIMEOUT_S)

    async def _coroutines(self) -> None:
        turn = asyncio.Semaphore(1)

        async def job(number: int) -> None:
            for _ in range(self._options.connects):
                async with turn:
                    await self._connect_later(dead=number == 0)

        await asyncio.gather(*(job(number) for number in range(self._options.threads)))

    async def _connect_later(self, dead: bool) -> None:
        destination = self._options.dead if dead else self._options.live
        timeout_s = self._options.dead_time if dead else _LIVE_TIMEOUT_S
        with socket.socket(destination.family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            where = (destination.host, destination.port)
            start_ns, result = time.monotonic_ns(), "connected"
            try:
                loop = asyncio.get_running_loop()
                await asyncio.wait_for(loop.sock_connect(sock, where), timeout_s)
            except TimeoutError:
                result = "timeout"
            except OSError as error:
                result = errno.errorcode.get(error.errno or 0, "EIO")
            sport, end_ns = sock.getsockname()[1], time.monotonic_ns()
        who = ("asyncio", threading.get_native_id(), str(destination))
        self._report.attempt(Attempt(*who, start_ns, end_ns, result, sport=sport))

    def _in_threads(self, body: Callable[[random.Random], None]) -> None:
        draws = [
            random.Random(f"{self._options.seed}/{number}")
            for number in range(self._options.threads)
        ]
        run_all([spawn(f"client-{n}", functools.partial(body, d)) for n, d in enumerate(draws)])

    def _fork(self, body: Callable[[], None]) -> int:
        parent_pid = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            die_with_parent(parent_pid)
            body()
        finally:
            os._exit(0)

    def _dead(self) -> None:
        self._connect(self._options.dead, self._options.dead_time)

    def _live(self) -> None:
        self._connect(self._options.live, _LIVE_TIMEOUT_S)

    def _connect(self, destination: Destination, timeout_s: float) -> None:
        attempt, sock = connect(destination, timeout_s, self._options.blocking)
        drop(sock)
        self._report.attempt(attempt)


def _busy() -> None:
    end_s = time.monotonic() + _BUSY_AT_MOST_S
    while time.monotonic() < end_s:
        pass


_MODES: dict[str, Callable[[Habits], None]] = {
    "dead-together": Habits.dead_together,
    "pool": Habits.pool,
    "asyncio": Habits.semaphore,
    "steady": Habits.steady,
    "spend": Habits.spend,
    "resolve": Habits.resolve,
    "resolve-lock": Habits.resolve_lock,
    "restart": Habits.restart,
    "starved": Habits.starved,
}


def main(argv: list[str] | None = None) -> int:
    """Run one program to its end."""
    options = _parser().parse_args(argv)
    call_thread("habits")
    with Report(options.truth) as report:
        _MODES[options.mode](Habits(options, report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = modes_parser("habits", __doc__, _MODES, threads=6)
    parser.add_argument("--connects", type=int, default=5, metavar="N", help="per thread")
    parser.add_argument("--pause", type=float, default=0.1, metavar="S", help="mean, in between")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--elsewhere", type=Destination.parse, metavar="ADDRESS:PORT",
                        help="where spend connects to when it got no port")  # fmt: skip
    parser.add_argument("--name", default="live.lab.test", help="what resolve looks up")
    return parser


if __name__ == "__main__":
    sys.exit(main())
