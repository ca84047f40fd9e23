"""How many attempts of a scope are open at an instant: exact step functions of the attempts.

`in_flight` counts sockets in SYN_SENT, `demand` whoever wants to connect, held ones included.
Intervals are half open, so an attempt that ends when another starts never overlaps it.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from porttrace.analysis.model import Attempts, Outcome, Process, start_ns

SCOPES = ("thread", "destination", "process", "user", "cgroup", "netns", "host")
"""Whom a throttle may count, narrow to wide (a destination is counted across processes)."""

STEP = np.dtype([("scope", "<i8"), ("time_ns", "<i8"), ("count", "<i4")])
"""From `time_ns` on, `count` intervals of `scope` are open; one row a change, sorted."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Steps = npt.NDArray[np.void]

_LOW, _MAPPED = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF0000)  # of bytes 8 to 15, little-endian
_FOREVER = np.iinfo(np.int64).max


def scope_keys(
    attempts: Attempts, scope: str, processes: Mapping[int, Process] | None = None
) -> Ints:
    """Return for each attempt the key of its `scope`: equal keys are counted together.

    The key is the tid, pid, uid, cgroup id, netns inode or 0 (host); for a destination the rank
    of its address and port among those of `attempts`.
    """
    if scope == "destination":
        return _destination_keys(attempts)
    if scope == "netns":
        return _netns_keys(attempts, processes or {})
    if scope == "thread":
        # A seeded socket has no thread: it shares one key per process, below all thread ids.
        tid, pid = attempts["tid"].astype(np.int64), attempts["pid"].astype(np.int64)
        return np.where(tid > 0, tid, -pid)
    if scope == "host":
        return np.zeros(len(attempts), np.int64)
    column = {"process": "pid", "user": "uid", "cgroup": "cgroup"}[scope]
    return attempts[column].astype(np.int64)


def _destination_keys(attempts: Attempts) -> Ints:
    halves = np.ascontiguousarray(attempts["daddr"]).view("<u8").reshape(-1, 2)
    port = attempts["dport"].astype(np.uint64)
    if not len(halves):
        return np.empty(0, np.int64)
    # IPv4 and its port fit into one number, which sorts ten times as fast as three columns.
    if ((halves[:, 0] == 0) & (halves[:, 1] & _LOW == _MAPPED)).all():
        packed = (halves[:, 1] >> np.uint64(32)) << np.uint64(16) | port
        ranks: Ints = np.unique(packed, return_inverse=True)[1].reshape(-1).astype(np.int64)
        return ranks
    rows = np.column_stack([halves, port])
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _netns_keys(attempts: Attempts, processes: Mapping[int, Process]) -> Ints:
    pids, back = np.unique(attempts["pid"], return_inverse=True)
    inodes = [processes[p].netns if p in processes else 0 for p in pids.tolist()]
    return np.array(inodes, np.int64)[back] if len(pids) else np.empty(0, np.int64)


def steps(scope_key: Ints, starts: Ints, ends: Ints) -> Steps:
    """Return the `STEP` rows of intervals [start, end) in ns, one key an interval.

    Changes at one instant become one row with their sum: ends count before starts, and the order
    of rows at equal times has no say. Empty intervals count nothing.
    """
    keep = ends > starts
    key = np.concatenate([scope_key[keep], scope_key[keep]])
    time = np.concatenate([starts[keep], ends[keep]])
    delta = np.repeat(np.array([1, -1], np.int64), np.count_nonzero(keep))
    # As np.lexsort((time, key)), but times that come in runs, as they do, are merged, not sorted.
    order = np.argsort(time, kind="stable")
    if len(key) and (key != key[0]).any():
        order = order[np.argsort(key[order], kind="stable")]
    key, time, level = key[order], time[order], np.cumsum(delta[order])
    # The sum over all scopes is right for each: every earlier scope has come back to zero.
    last = np.ones(len(key), np.bool_)
    last[:-1] = (key[1:] != key[:-1]) | (time[1:] != time[:-1])
    table = np.empty(np.count_nonzero(last), STEP)
    table["scope"], table["time_ns"], table["count"] = key[last], time[last], level[last]
    return table


def resolved_ns(attempts: Attempts, trace_end: int) -> Ints:
    """Return when each attempt was over (ns): `trace_end` for those still pending."""
    end = attempts["end_ns"].astype(np.int64)
    # The end of an unknown attempt is lost: it is open as far as its marks prove it, no further.
    proven = np.maximum(attempts["return_ns"], attempts["syn_ns"]).astype(np.int64)
    pending = attempts["outcome"] == Outcome.pending
    return np.where(pending, trace_end, np.where(end > 0, end, proven))


def in_flight(
    attempts: Attempts,
    scope: str,
    trace_end: int,
    processes: Mapping[int, Process] | None = None,
) -> Steps:
    """Return the `STEP` rows of sockets in SYN_SENT, over [syn_ns, end_ns)."""
    keys, sent = scope_keys(attempts, scope, processes), attempts["syn_ns"].astype(np.int64)
    was_sent = sent > 0
    ends = resolved_ns(attempts, trace_end)
    return steps(keys[was_sent], sent[was_sent], ends[was_sent])


def demand(
    attempts: Attempts,
    scope: str,
    trace_end: int,
    processes: Mapping[int, Process] | None = None,
) -> Steps:
    """Return the `STEP` rows of attempts that want to connect: [first mark, resolved)."""
    keys = scope_keys(attempts, scope, processes)
    return steps(keys, start_ns(attempts), resolved_ns(attempts, trace_end))


def peaks(table: Steps) -> dict[int, int]:
    """Return the greatest count of each scope key in a table of `STEP` rows."""
    keys, first = np.unique(table["scope"], return_index=True)
    if not len(keys):
        return {}
    highest = np.maximum.reduceat(table["count"], first)
    return dict(zip(keys.tolist(), highest.tolist(), strict=True))


def count_at(table: Steps, scope_key: Ints, time_ns: Ints) -> Ints:
    """Return the count of each (key, time) asked for, 0 before a scope's first row."""
    # Both tables are merged by one sort: a step at the very time asked for already counts.
    key = np.concatenate([table["scope"], scope_key])
    time = np.concatenate([table["time_ns"], time_ns])
    asked = np.repeat(np.array([0, 1]), [len(table), len(scope_key)])
    order = np.argsort(time, kind="stable")  # steps stand before what is asked: they stay so
    order = order[np.argsort(key[order], kind="stable")]
    row = np.maximum.accumulate(np.where(asked[order] == 0, np.arange(len(order)), -1))
    known = row >= 0
    known &= key[order][np.maximum(row, 0)] == key[order]
    counts = np.concatenate([table["count"].astype(np.int64), np.zeros(len(scope_key), np.int64)])
    found = np.where(known, counts[order][np.maximum(row, 0)], 0)
    result = np.empty(len(order), np.int64)
    result[order] = found
    return result[len(table) :]


def at_start(attempts: Attempts) -> Attempts:
    """Return a copy with `in_flight_at_start` and `demand_at_start` of the process filled in.

    An attempt counts itself: in flight from its SYN on (one that sent none sees the others at its
    first mark), in demand from its first mark on.
    """
    filled, pid = attempts.copy(), scope_keys(attempts, "process")
    first, sent = start_ns(attempts), attempts["syn_ns"].astype(np.int64)
    seen_at = np.where(sent > 0, sent, first)
    flying = count_at(in_flight(attempts, "process", _FOREVER), pid, seen_at)
    wanting = count_at(demand(attempts, "process", _FOREVER), pid, first)
    filled["in_flight_at_start"] = np.maximum(flying, sent > 0)
    filled["demand_at_start"] = np.maximum(wanting, 1)
    return filled
