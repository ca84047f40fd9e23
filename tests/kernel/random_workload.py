"""Threads that connect at random, bounded, and by a seed: the same attempts everywhere.

    PYTHONPATH=tests python -m kernel.random_workload

Runs in a network namespace of its own (unshare -n). Fails when an attempt ends otherwise
than planned.
"""

import errno
import random
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from kernel.modes_workload import CLOSED, KINDS, LIVE, attempt, furnish

SEED, THREADS, STEPS = 20, 8, 25


@dataclass(frozen=True)
class Step:
    """One attempt: how, where to, and the errno that it must end with (EINPROGRESS: given up)."""

    family: int
    there: str
    port: int
    blocking: bool
    expected: int
    pause_s: float


def plan() -> dict[str, list[Step]]:
    """Return what each thread does, by the thread's name."""
    dice = random.Random(SEED)
    return {f"random{number}": [_step(dice) for _ in range(STEPS)] for number in range(THREADS)}


def _step(dice: random.Random) -> Step:
    family, here, nobody, nowhere = dice.choice(KINDS)
    there, port, expected = dice.choice(
        [
            (here, LIVE, 0),
            (here, CLOSED, errno.ECONNREFUSED),
            (nowhere, LIVE, errno.ENETUNREACH),
            (nobody, LIVE, errno.EINPROGRESS),
        ]
    )
    blocking = expected != errno.EINPROGRESS and dice.random() < 0.5
    return Step(family, there, port, blocking, expected, dice.uniform(0, 0.02))


def _follow(name: str, steps: list[Step]) -> None:
    tid = threading.get_native_id()
    Path(f"/proc/self/task/{tid}/comm").write_text(name)
    for step in steps:
        attempt(step.family, step.there, step.port, step.blocking, step.expected).close()
        time.sleep(step.pause_s)


def main() -> None:
    furnish()
    with socket.create_server(
        ("::", LIVE), family=socket.AF_INET6, dualstack_ipv6=True, backlog=THREADS * STEPS
    ):
        errors: list[object] = []
        threading.excepthook = errors.append
        jobs = [threading.Thread(target=_follow, args=each) for each in plan().items()]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    assert not errors, errors


if __name__ == "__main__":
    main()
