"""The plain numbers of a trace: the process table and how far it can be trusted."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from porttrace.analysis import concurrency
from porttrace.analysis.concurrency import Ints
from porttrace.analysis.grouped import Mask
from porttrace.analysis.holds import HOLDS, spans
from porttrace.analysis.model import Origin, Outcome, Table, Trace
from porttrace.analysis.pairs import by_key, sorted_pairs

_Floats = npt.NDArray[np.float64]


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
    notes = (*_older(trace), *trace.notes)
    return Trust(trace.events, lost, unknown, not lost and not unknown, notes)


def _older(trace: Trace) -> tuple[str, ...]:
    # Those in SYN_SENT as it began, and threads that stood at the gate then.
    rows = trace.columns
    older = (rows["origin"] == Origin.seeded) | (rows["gate_ns"] == trace.start_ns)
    number = int(older.sum()) if trace.start_ns else 0
    if not number:
        return ()
    many = "1 attempt is" if number == 1 else f"{number} attempts are"
    return (f"{many} older than this trace; how long they had waited before is not known.",)


def by_outcome(attempts: Table, which: Mask | None = None) -> dict[str, int]:
    """Return how many attempts, or of `which`, ended how, most frequent first; those that occur."""
    outcome = attempts["outcome"] if which is None else attempts["outcome"][which]
    codes, counts = np.unique(outcome, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {Outcome(int(codes[i])).name: int(counts[i]) for i in order}


def process_table(trace: Trace) -> pd.DataFrame:
    """Return one row per process, most attempts first.

    Columns: pid, comm, attempts, one count per outcome that occurs anywhere,
    max_in_flight, max_demand, worst_wait_ns (longest hold on this host),
    p50_ns, p95_ns, p99_ns (SYN to answer of established attempts; NaN without one).
    """
    rows = trace.columns
    flight = concurrency.highest_in_flight(rows, "process", trace.end_ns)
    demand = concurrency.highest_demand(rows, "process", trace.end_ns)
    # Behind SYN_SENT only the wire tells what is a hold.
    places = HOLDS if rows["watched"].any() else ("gate", "connect")
    held_ns = np.sum([spans(rows, place, trace.end_ns).lengths() for place in places], axis=0)
    order = by_key(rows["pid"])
    pids = rows["pid"][order]
    first = np.flatnonzero(np.concatenate([[True], pids[1:] != pids[:-1]])[: len(pids)])
    if not len(first):
        return pd.DataFrame([])
    # For all processes at once: of ten thousand none has to be looked at by itself.
    outcome, distinct = rows["outcome"][order], pids[first].tolist()
    counts = {
        name: np.add.reduceat(outcome == Outcome[name], first, dtype=np.int64)
        for name in by_outcome(rows)
    }
    named = zip(distinct, trace.attempts[order[first]], strict=True)
    columns: dict[str, Any] = {
        "pid": distinct,
        "comm": [_comm(trace, pid, row) for pid, row in named],
        "attempts": np.diff(first, append=len(pids)),
        **counts,
        "max_in_flight": [flight.get(pid, 0) for pid in distinct],
        "max_demand": [demand.get(pid, 0) for pid in distinct],
        "worst_wait_ns": np.maximum(np.maximum.reduceat(held_ns[order], first), 0),
        **_latencies(rows, pids[first]),
    }
    frame = pd.DataFrame(columns)
    return frame.sort_values(["attempts", "pid"], ascending=[False, True])


def _comm(trace: Trace, pid: int, row: np.void) -> str:
    known = trace.processes.get(pid)
    raw = os.fsencode(known.comm) if known and known.comm else bytes(row["comm"])
    # Tables hold text that is UTF-8: any other byte is written out.
    return raw.decode(errors="backslashreplace")


def _latencies(rows: Table, pids: npt.NDArray[np.integer[Any]]) -> dict[str, _Floats]:
    answered = np.flatnonzero((rows["outcome"] == Outcome.established) & (rows["syn_ns"] > 0))
    took_ns = rows["end_ns"][answered] - rows["syn_ns"][answered]
    pid, took_ns = sorted_pairs(rows["pid"][answered].astype(np.int64), took_ns)
    first, after = np.searchsorted(pid, pids, "left"), np.searchsorted(pid, pids, "right")
    values = np.append(took_ns, 0)
    return {f"p{share}_ns": _quantile(values, first, after, share / 100) for share in (50, 95, 99)}


# As np.percentile of values[first:after], sorted ones, for each pair of bounds; NaN: there is none.
def _quantile(values: Ints, first: Ints, after: Ints, share: float) -> _Floats:
    last = np.maximum(after - first - 1, 0)
    at = last * share
    below = np.floor(at).astype(np.int64)
    low, high = values[first + below], values[first + np.minimum(below + 1, last)]
    part, between = at - below, high - low
    found = np.where(part < 0.5, low + between * part, high - between * (1 - part))
    return np.where(after > first, found, np.nan)


def began(trace: Trace) -> str:
    """Return when the trace began by the wall clock, in UTC; "" where that is not known."""
    if not trace.wall_offset_ns:
        return ""
    begin_s = (trace.start_ns + trace.wall_offset_ns) / 1e9
    return datetime.fromtimestamp(begin_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration_s(trace: Trace) -> float:
    """Return how long was traced, in seconds."""
    return (trace.end_ns - trace.start_ns) / 1e9
