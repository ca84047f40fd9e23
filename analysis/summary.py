"""The plain numbers of a trace: the process table and how far it can be trusted."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from porttrace.analysis import concurrency
from porttrace.analysis.holds import spans
from porttrace.analysis.model import Attempts, Outcome, Table, Trace
from porttrace.analysis.pairs import parts_by_key


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
    unknown = int((trace.columns["outcome"] == Outcome.unknown).sum())
    return Trust(trace.events, lost, unknown, not lost and not unknown, trace.notes)


def by_outcome(attempts: Table) -> dict[str, int]:
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
    rows = trace.columns
    flight = concurrency.highest_in_flight(rows, "process", trace.end_ns)
    demand = concurrency.highest_demand(rows, "process", trace.end_ns)
    gate, connect = (spans(rows, place, trace.end_ns) for place in ("gate", "connect"))
    before_syn = gate.lengths() + connect.lengths()
    outcomes, outcome = list(by_outcome(rows)), rows["outcome"]
    answered = (outcome == Outcome.established) & (rows["syn_ns"] > 0)
    took_ns = rows["end_ns"] - rows["syn_ns"]
    table = []
    # Indices, not a mask each: a million attempts of a thousand processes are looked at once.
    for pid, mine in zip(*parts_by_key(rows["pid"]), strict=True):
        table.append(
            {
                "pid": pid,
                "comm": _comm(trace, pid, trace.attempts[mine[:1]]),
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


def began(trace: Trace) -> str:
    """Return when the trace began by the wall clock, in UTC; "" where that is not known."""
    if not trace.wall_offset_ns:
        return ""
    begin_s = (trace.start_ns + trace.wall_offset_ns) / 1e9
    return datetime.fromtimestamp(begin_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration_s(trace: Trace) -> float:
    """Return how long was traced, in seconds."""
    return (trace.end_ns - trace.start_ns) / 1e9
