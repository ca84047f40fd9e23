"""How many attempts of a scope are open at an instant: exact step functions of the attempts.

`in_flight` counts sockets in SYN_SENT, `demand` whoever wants to connect, held ones included.
Intervals are half open, so an attempt that ends when another starts never overlaps it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from porttrace.analysis.model import Attempts, Columns, Outcome, Process, Table, start_ns
from porttrace.analysis.pairs import as_numbers
from porttrace.analysis.rows import copied

SCOPES = ("thread", "destination", "process", "user", "cgroup", "netns", "host")
"""Whom a throttle may count, narrow to wide (a destination is counted across processes)."""

STEP = np.dtype([("scope", "<i8"), ("time_ns", "<i8"), ("count", "<i4")])
"""From `time_ns` on, `count` intervals of `scope` are open; one row a change, sorted."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Steps = npt.NDArray[np.void]

_LOW, _MAPPED = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF0000)  # of bytes 8 to 15, little-endian
_FOREVER = np.iinfo(np.int64).max


def scope_keys(attempts: Table, scope: str, processes: Mapping[int, Process] | None = None) -> Ints:
    """Return for each attempt the key of its `scope`: equal keys are counted together.

    The key is the tid, pid, uid, cgroup id, netns inode or 0 (host); for a destination the rank
    of its address and port among those of `attempts`.
    """
    if scope == "destination":
        return _once(attempts, scope, None, lambda: _destination_keys(attempts))
    if scope == "netns":
        known = processes or {}
        return _once(attempts, scope, processes, lambda: _netns_keys(attempts, known))
    if scope == "thread":
        # A seeded socket has no thread: it shares one key per process, below all thread ids.
        tid, pid = attempts["tid"].astype(np.int64), attempts["pid"].astype(np.int64)
        return np.where(tid > 0, tid, -pid)
    if scope == "host":
        return np.zeros(len(attempts), np.int64)
    column = {"process": "pid", "user": "uid", "cgroup": "cgroup"}[scope]
    return attempts[column].astype(np.int64)


# What took a look at every row is kept with them: rule after rule asks for it.
def _once(attempts: Table, scope: str, of: object, make: Callable[[], Ints]) -> Ints:
    if not isinstance(attempts, Columns):
        return make()
    found = attempts.keys.get(scope)
    if found is None or found[0] is not of:
        found = attempts.keys[scope] = (of, make())
        found[1].flags.writeable = False
    return found[1]


def _destination_keys(attempts: Table) -> Ints:
    halves = np.ascontiguousarray(attempts["daddr"]).view("<u8").reshape(-1, 2)
    port = attempts["dport"].astype(np.uint64)
    if not len(halves):
        return np.empty(0, np.int64)
    # IPv4 and its port fit into one number, which sorts ten times as fast as three columns; so do
    # the ranks of the halves of an IPv6 address.
    if ((halves[:, 0] == 0) & (halves[:, 1] & _LOW == _MAPPED)).all():
        return _ranks((halves[:, 1] >> np.uint64(32)) << np.uint64(16) | port)
    high, low = _ranks(halves[:, 0]), _ranks(halves[:, 1])
    return _ranks((high * (int(low.max()) + 1) + low) << 16 | port.astype(np.int64))


def _ranks(values: npt.NDArray[np.integer[Any]]) -> Ints:
    # As np.unique(values, return_inverse=True), which sorts all values with their places.
    distinct = np.unique(values)
    ranks: Ints = np.searchsorted(distinct, values).astype(np.int64, copy=False)
    return ranks


def _netns_keys(attempts: Table, processes: Mapping[int, Process]) -> Ints:
    pids = np.unique(attempts["pid"])
    if not len(pids):
        return np.empty(0, np.int64)
    inodes = [processes[p].netns if p in processes else 0 for p in pids.tolist()]
    return np.array(inodes, np.int64)[np.searchsorted(pids, attempts["pid"])]


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


def resolved_ns(attempts: Table, trace_end: int) -> Ints:
    """Return when each attempt was over (ns): `trace_end` for those still pending."""
    end = _times(attempts, "end_ns")
    # The end of an unknown attempt is lost: it is open as far as its marks prove it, no further.
    proven = np.maximum(_times(attempts, "return_ns"), _times(attempts, "syn_ns"))
    pending = attempts["outcome"] == Outcome.pending
    return np.where(pending, trace_end, np.where(end > 0, end, proven))


def _times(attempts: Table, mark: str) -> Ints:
    return np.asarray(attempts[mark], np.int64)


def in_flight(
    attempts: Table,
    scope: str,
    trace_end: int,
    processes: Mapping[int, Process] | None = None,
) -> Steps:
    """Return the `STEP` rows of sockets in SYN_SENT, over [syn_ns, end_ns)."""
    keys, sent = scope_keys(attempts, scope, processes), _times(attempts, "syn_ns")
    was_sent = sent > 0
    ends = resolved_ns(attempts, trace_end)
    return steps(keys[was_sent], sent[was_sent], ends[was_sent])


def demand(
    attempts: Table,
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


def highest_in_flight(attempts: Table, scope: str, trace_end: int) -> dict[int, int]:
    """Return the most sockets in SYN_SENT at once by scope key: the peaks of `in_flight`."""
    keys, sent = scope_keys(attempts, scope), _times(attempts, "syn_ns")
    ends = resolved_ns(attempts, trace_end)
    return _highest(keys, np.where(sent > 0, sent, ends), ends)


def highest_demand(attempts: Table, scope: str, trace_end: int) -> dict[int, int]:
    """Return the most attempts that wanted to connect at once by scope key: peaks of `demand`."""
    keys = scope_keys(attempts, scope)
    return _highest(keys, start_ns(attempts), resolved_ns(attempts, trace_end))


# As peaks(steps(...)), without a table.
def _highest(scope_key: Ints, starts: Ints, ends: Ints) -> dict[int, int]:
    keep = ends > starts
    key = scope_key[keep]
    begun, over = (np.sort(x) for x in as_numbers((key, starts[keep]), (key, ends[keep])))
    if not len(key):
        return {}
    # Most are open where an interval begins.
    level = _open_at(begun, over, begun)
    key = np.sort(key)
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    most = np.maximum.reduceat(level, first)
    return dict(zip(key[first].tolist(), most.tolist(), strict=True))


# How many of the intervals are open at each time, all as sorted numbers of a key and a time. Those
# of lower keys are over: each of them counts once as begun and once as over.
def _open_at(begun: Ints, over: Ints, times: Ints) -> Ints:
    return np.searchsorted(begun, times, "right") - np.searchsorted(over, times, "right")


# As count_at(steps(...)), without a table: the number open at one time each of every key.
def _counted(key: Ints, starts: Ints, ends: Ints, times: Ints) -> Ints:
    keep = ends > starts
    begun, over, asked = as_numbers(
        (key[keep], starts[keep]), (key[keep], ends[keep]), (key, times)
    )
    order = np.argsort(asked)
    counts = np.empty(len(key), np.int64)
    # What is asked in order is answered ten times as fast.
    counts[order] = _open_at(np.sort(begun), np.sort(over), asked[order])
    return counts


def at_start(attempts: Attempts) -> Attempts:
    """Return a copy with `in_flight_at_start` and `demand_at_start` filled in: `open_at_start`."""
    filled = copied(attempts)
    filled["in_flight_at_start"], filled["demand_at_start"] = open_at_start(Columns(attempts))
    return filled


def open_at_start(attempts: Table) -> tuple[Ints, Ints]:
    """Return how many of its process each attempt found in flight, and in demand.

    An attempt counts itself: in flight from its SYN on (one that sent none sees the others at its
    first mark), in demand from its first mark on.
    """
    pid, sent = scope_keys(attempts, "process"), _times(attempts, "syn_ns")
    first = start_ns(attempts)
    seen_at = np.where(sent > 0, sent, first)
    # Forever is a moment after the last one: numbers stay small.
    after = 1 + max(_latest(first), _latest(sent))
    ends = np.minimum(resolved_ns(attempts, _FOREVER), after)
    first, seen_at = np.minimum(first, after), np.minimum(seen_at, after)
    sending = np.where(sent > 0, sent, ends)  # no interval
    flying, wanting = (
        _counted(pid, begun, ends, at) for begun, at in ((sending, seen_at), (first, first))
    )
    return np.maximum(flying, sent > 0), np.maximum(wanting, 1)


def _latest(times: Ints) -> int:
    return int(times.max(initial=0, where=times < _FOREVER))
