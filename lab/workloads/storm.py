"""Many threads that connect again and again, some of them in vain: to infer slots and scope.

Which attempts go to the dead address is drawn from a seed, so a run can be repeated. With
`--nonblocking-per-thread K` each thread starts K overlapping attempts to the dead address before it
connects to the live one: a throttle by thread holds that thread alone, one by process holds all.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time

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


def run_thread(number: int, options: argparse.Namespace, report: Report) -> None:
    """Make one thread's attempts, one after another."""
    draw = random.Random(f"{options.seed}/{number}")
    for _ in range(options.connects):
        dead = draw.random() < options.dead_share
        _connect(options, report, dead)
        time.sleep(draw.uniform(0, 2 * options.pause))


def run_overlapping(options: argparse.Namespace, report: Report) -> None:
    """Start K dead attempts that the kernel ends, and connect to the live address meanwhile."""
    for _ in range(options.connects):
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


def main(argv: list[str] | None = None) -> int:
    """Run all threads to their end."""
    options = _parser().parse_args(argv)
    call_thread("storm")
    overlapping = options.nonblocking_per_thread > 0
    with Report(options.truth) as report:

        def body(number: int) -> None:
            if overlapping:
                run_overlapping(options, report)
            else:
                run_thread(number, options, report)

        numbers = range(options.threads)
        run_all([spawn(f"storm-{n}", functools.partial(body, n)) for n in numbers])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="storm", description=__doc__)
    add_ends_options(parser, dead_time_s=0.3)
    parser.add_argument("--dead-share", type=float, default=0.3, metavar="0..1")
    parser.add_argument("--threads", type=int, default=8, metavar="T")
    parser.add_argument("--connects", type=int, default=10, metavar="N", help="per thread")
    parser.add_argument("--pause", type=float, default=0.05, metavar="S", help="mean, in between")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nonblocking-per-thread", type=int, default=0, metavar="K")
    return parser


if __name__ == "__main__":
    sys.exit(main())
