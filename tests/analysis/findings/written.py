"""Worlds written out by hand: attempts of processes as (destination, call, end in ms, outcome)."""

from dataclasses import replace

import numpy as np

from porttrace.analysis.model import ATTEMPT, Host, Outcome, Process, Trace

from ..simulate import MS, Client, S, row  # noqa: TID252

HOST = Host(sysctls={"tcp_syn_retries": 6, "tcp_syn_linear_timeouts": 4})
DEAD, LIVE = "192.0.2.66:9100", "192.0.2.2:389"
Step = tuple[str, float, float, Outcome]


def world(*steps: Step, tids: tuple[int, ...] = (), blocking: bool = True) -> Trace:
    """Return one process's attempts, in order; end 0: pending."""
    rows = []
    for i, (to, call, end, outcome) in enumerate(steps):
        client = Client(7, tids[i] if tids else 70, to, blocking=blocking)
        marks = {"call_ns": int(call * MS), "syn_ns": int(call * MS) + 9_000}
        marks |= {"end_ns": int(end * MS), "return_ns": int(end * MS) + 9_000 if end else 0}
        rows.append(row(i + 1, client, marks, outcome))
    end_ns = int(max(max(step[1:3]) for step in steps) * MS) + S
    return Trace(np.array(rows, ATTEMPT), 1, end_ns, {7: Process(7, comm="web")}, host=HOST)


def given_up(*waits_ms: float, apart_ms: float = 20_000, to: str = DEAD) -> Trace:
    """Return attempts, one after the other, that the program gave up after these waits."""
    starts = [1_000 + i * apart_ms for i in range(len(waits_ms))]
    steps = [
        (to, at, at + wait, Outcome.cancelled) for at, wait in zip(starts, waits_ms, strict=True)
    ]
    return world(*steps, blocking=False)


def ended_at(trace: Trace, exit_ms: float) -> Trace:
    """Return the trace with the exit of its process at a time."""
    return replace(trace, exits={7: int(exit_ms * MS)})
