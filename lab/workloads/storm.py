"""Many threads that connect again and again, some of them in vain: to infer slots and scope.

Which attempts go to the dead address, and when, is drawn from a seed, so a run can be repeated.
With `--nonblocking-per-thread K` each thread starts K overlapping attempts to the dead address
before it connects to the live one: a throttle by thread holds that thread alone, one by process
holds all.

With `--processes P` there are P such processes at once, and the first `--dead-processes` of them
try dead addresses; `--users` and `--cgroups` spread them over so many users and cgroups in turn.
Whom a throttle counts shows in who waits: `--processes 4 --users 2` tells user from process.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from porttrace.lab.cgroups import cgroups, enter
from porttrace.lab.throttles.child import die_with_parent
from porttrace.lab.workloads.truth import (
    Report,
    add_ends_options,
    call_thread,
    connect,
    drop,
    run_all,
    spawn,
    start_connect,
)

_LIVE_TIMEOUT_S = 30.0
_FIRST_UID = 60001  # users that no distribution gives to anybody


def run_thread(options: argparse.Namespace, report: Report, draw: random.Random) -> None:
    """Make one thread's attempts, one after another."""
    for _ in range(options.connects):
        dead = draw.random() < options.dead_share
        _connect(options, report, dead)
        time.sleep(draw.uniform(0, 2 * options.pause))


def run_overlapping(options: argparse.Namespace, report: Report, draw: random.Random) -> None:
    """Start K dead attempts that the kernel ends, and connect to the live address meanwhile."""
    for _ in range(options.connects):
        # The kernel ends all of them a second later: without a pause all threads keep in step.
        time.sleep(draw.uniform(0, 2 * options.pause))
        pending = [
            start_connect(options.dead, options.dead_time)
            for _ in range(options.nonblocking_per_thread)
        ]
        _connect(options, report, dead=False)
        for finish in pending:
            report.attempt(finish())


def _connect(options: argparse.Namespace, report: Report, dead: bool) -> None:
    timeout_s = options.dead_time if dead else _LIVE_TIMEOUT_S
    destination = options.dead if dead else options.live
    attempt, sock = connect(destination, timeout_s, options.blocking)
    drop(sock)
    report.attempt(attempt)


def run_process(process: int, options: argparse.Namespace, report: Report) -> None:
    """Run all threads of one process to their end."""
    if process >= options.dead_processes:
        options = argparse.Namespace(**{**vars(options), "dead_share": 0.0})
        time.sleep(options.live_after)

    def body(number: int) -> None:
        draw = random.Random(f"{options.seed}/{process * options.threads + number}")
        time.sleep(draw.uniform(0, options.spread))
        run = run_overlapping if options.nonblocking_per_thread > 0 else run_thread
        run(options, report, draw)

    numbers = range(options.threads)
    run_all([spawn(f"storm-{n}", functools.partial(body, n)) for n in numbers])


def main(argv: list[str] | None = None) -> int:
    """Run all processes to their end; the status is 1 where one of them failed."""
    options = _parser().parse_args(argv)
    call_thread("storm")
    with Report(options.truth) as report:
        if options.processes == 1 and not options.users and not options.cgroups:
            run_process(0, options, report)
            return 0
        with _places(options.cgroups) as folders:
            pids = [_fork(n, options, report, folders) for n in range(options.processes)]
            statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    return int(any(statuses))


@contextmanager
def _places(count: int) -> Iterator[list[Path]]:
    if not count:
        yield []
        return
    with cgroups(*(f"storm{number}" for number in range(count))) as folders:
        yield folders


# fork, not exec: the children have the parsed options and the open report, and start at once.
def _fork(process: int, options: argparse.Namespace, report: Report, folders: list[Path]) -> int:
    parent_pid = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if folders:
            # Crosswise: two users and two cgroups make four different pairs.
            enter(folders[process // max(1, options.users) % len(folders)])
        if options.users:
            os.setuid(_FIRST_UID + process % options.users)
        die_with_parent(parent_pid, signal.SIGKILL)
        run_process(process, options, report)
        status = 0
    finally:
        os._exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="storm", description=__doc__)
    add_ends_options(parser, dead_time_s=0.3)
    parser.add_argument("--dead-share", type=float, default=0.3, metavar="0..1")
    parser.add_argument("--threads", type=int, default=8, metavar="T", help="per process")
    parser.add_argument("--connects", type=int, default=10, metavar="N", help="per thread")
    parser.add_argument("--pause", type=float, default=0.05, metavar="S", help="mean, in between")
    parser.add_argument(
        "--spread", type=float, default=0.0, metavar="S", help="threads start within this time"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nonblocking-per-thread", type=int, default=0, metavar="K")
    parser.add_argument("--processes", type=int, default=1, metavar="P")
    parser.add_argument("--users", type=int, default=0, metavar="U", help="0: the caller's own")
    parser.add_argument("--cgroups", type=int, default=0, metavar="G", help="0: the caller's own")
    parser.add_argument(
        "--dead-processes", type=int, default=10**6, metavar="P", help="only so many try the dead"
    )
    parser.add_argument(
        "--live-after", type=float, default=0.0, metavar="S", help="the others start later"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
