"""Attempts that no timer of their own ended: their process ended, or closed all it had at once."""

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.findings.timers import alike
from porttrace.analysis.model import Trace, start_ns

_EXIT_NS = 1_000_000_000
AT_ONCE_NS = 5_000_000


def with_process(trace: Trace) -> Bools:
    """Tell which attempts ended right after the exit of their process.

    The kernel closes the files of a process just after it tells of its exit (do_exit, Linux v6.1).
    An exit that attempts of the same process followed was only that of its main thread.
    """
    attempts = trace.columns
    if not trace.exits:
        return np.zeros(len(attempts), np.bool_)
    pids, back = np.unique(attempts["pid"], return_inverse=True)
    exited = np.array([trace.exits.get(pid, 0) for pid in pids.tolist()], np.int64)
    began = start_ns(attempts)
    began[began == np.iinfo(np.int64).max] = 0  # no mark at all: on its way before the trace began
    latest = np.zeros(len(pids), np.int64)
    np.maximum.at(latest, back, began)
    exited = np.where(latest > exited, 0, exited)[back]
    since = attempts["end_ns"].astype(np.int64) - exited
    return np.asarray((exited > 0) & (since >= 0) & (since <= _EXIT_NS))


def among_others(pid: Ints, end: Ints, waits: Ints) -> Bools:
    """Tell which waits ended at once with waits of other lengths of the same process."""
    found = np.zeros(len(pid), np.bool_)
    order = np.lexsort((end, pid))
    borders = np.flatnonzero(np.diff(pid[order])) + 1
    for rows in np.split(order, borders) if len(order) else ():
        first = np.searchsorted(end[rows], end[rows] - AT_ONCE_NS, "left")
        last = np.searchsorted(end[rows], end[rows] + AT_ONCE_NS, "right")
        shortest = _range_min(waits[rows], first, last)
        found[rows] = ~alike(shortest, -_range_min(-waits[rows], first, last))
    return found


# The least of values[first:last] for each pair of bounds.
def _range_min(values: Ints, first: Ints, last: Ints) -> Ints:
    padded = np.append(values, np.iinfo(np.int64).max)
    bounds = np.column_stack([first, last]).reshape(-1)
    return np.minimum.reduceat(padded, bounds)[::2]
