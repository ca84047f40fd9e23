"""The plain numbers of a trace: the process table and how far it can be trusted."""

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from porttrace.analysis import concurrency
from porttrace.analysis.holds import waits
from porttrace.analysis.model import Attempts, Outcome, Trace


@dataclass(frozen=True)
class Trust:
    """What limits the statements of a report."""

    events: int
    lost_events: int
    attempts_unknown: int
    complete: bool
    notes: tuple[str, ...] = ()


def trust(trace: Trace) -> Trust:
    """Return how far `trace` can be trusted."""
    lost = sum(loss.count for loss in trace.losses)
    unknown = int((trace.attempts["outcome"] == Outcome.unknown).sum())
    return Trust(trace.events, lost, unknown, not lost and not unknown, trace.notes)


def by_outcome(attempts: Attempts) -> dict[str, int]:
    """Return how many attempts ended how, most frequent first; outcomes that occur."""
    codes, counts = np.unique(attempts["outcome"], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {Outcome(int(codes[i])).name: int(counts[i]) for i in order}


def process_table(trace: Trace) -> pd.DataFrame:
    """Return one row per process, most attempts first.

    Columns: pid, comm, attempts, one count per outcome that occurs anywhere,
    max_in_flight, max_demand, worst_wait_ns (longest hold before the SYN),
    p50_ns, p95_ns, p99_ns (SYN to answer of established attempts; NaN without one).
    """
    rows = trace.attempts
    flight = concurrency.peaks(concurrency.in_flight(rows, "process", trace.end_ns))
    demand = concurrency.peaks(concurrency.demand(rows, "process", trace.end_ns))
    held = waits(rows, trace.end_ns)
    before_syn = held["gate"] + held["connect"]
    outcomes, outcome = list(by_outcome(rows)), np.ascontiguousarray(rows["outcome"])
    answered = (outcome == Outcome.established) & (rows["syn_ns"] > 0)
    took_ns = rows["end_ns"] - rows["syn_ns"]
    table = []
    order = np.argsort(rows["pid"], kind="stable")
    pids, first = np.unique(rows["pid"][order], return_index=True)
    # Indices, not a mask each: a million attempts of a thousand processes are looked at once.
    for pid, mine in zip(pids.tolist(), np.split(order, first[1:]), strict=False):
        table.append(
            {
                "pid": pid,
                "comm": _comm(trace, pid, rows[mine[:1]]),
                "attempts": len(mine),
                **{name: int((outcome[mine] == Outcome[name]).sum()) for name in outcomes},
                "max_in_flight": flight.get(pid, 0),
                "max_demand": demand.get(pid, 0),
                "worst_wait_ns": int(before_syn[mine].max(initial=0)),
                **_latency(took_ns[mine[answered[mine]]]),
            }
        )
    frame = pd.DataFrame(table)
    return frame.sort_values(["attempts", "pid"], ascending=[False, True]) if table else frame


def _comm(trace: Trace, pid: int, rows: Attempts) -> str:
    known = trace.processes.get(pid)
    raw = os.fsencode(known.comm) if known and known.comm else bytes(rows["comm"][0])
    # Tables hold text that is UTF-8: any other byte is written out.
    return raw.decode(errors="backslashreplace")


def _latency(took_ns: npt.NDArray[np.int64]) -> dict[str, float]:
    shares = (50, 95, 99)
    values = np.percentile(took_ns, shares) if len(took_ns) else [float("nan")] * len(shares)
    return {f"p{share}_ns": float(value) for share, value in zip(shares, values, strict=True)}


def duration_s(trace: Trace) -> float:
    """Return how long was traced, in seconds."""
    return (trace.end_ns - trace.start_ns) / 1e9
