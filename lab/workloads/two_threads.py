"""The seed case: one thread connects to a dead address, another half a second later to a live one.

Without a throttle the second is answered at once; with one slot per process it is answered only
when the first has died. More threads of either sort fill more slots.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time

from porttrace.lab.workloads.truth import (
    Destination,
    Report,
    add_ends_options,
    call_thread,
    connect,
    drop,
    run_all,
    spawn,
)

_LIVE_TIMEOUT_S = 30.0


def main(argv: list[str] | None = None) -> int:
    """Run both threads once and report their attempts."""
    options = _parser().parse_args(argv)
    call_thread("two-threads")
    with Report(options.truth) as report:

        def attempt(destination: Destination, timeout_s: float) -> None:
            truth, sock = connect(destination, timeout_s, options.blocking)
            drop(sock)
            report.attempt(truth)

        def start(name: str, count: int, destination: Destination, timeout_s: float) -> None:
            for number in range(count):
                label = f"{name}-{number}" if number else name
                threads.append(spawn(label, lambda: attempt(destination, timeout_s)))

        threads: list[threading.Thread] = []
        start("dead", options.dead_threads, options.dead, options.dead_time)
        time.sleep(options.delay)
        start("live", options.live_threads, options.live, _LIVE_TIMEOUT_S)
        run_all(threads)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="two_threads", description=__doc__)
    add_ends_options(parser, dead_time_s=6.0)
    parser.add_argument("--delay", type=float, default=0.5, metavar="S", help="before thread two")
    for name in ("dead", "live"):
        parser.add_argument(f"--{name}-threads", type=int, default=1, metavar="T")
    return parser


if __name__ == "__main__":
    sys.exit(main())
