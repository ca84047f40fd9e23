"""The step lines of demand and in flight, thinned out to what a page can carry."""

from typing import Any

import numpy as np

from porttrace.analysis.concurrency import Ints, Steps, demand, in_flight
from porttrace.analysis.model import Table
from porttrace.analysis.render.html.selection import Selection

MOST_POINTS = 40_000
"""So many points the lines of all processes may have, and the lines of their sum as many."""
_FEWEST = 64


def step_lines(attempts: Table, shown: Selection, begin_ns: int, end_ns: int) -> dict[str, Any]:
    """Return the lines of each process shown by pid, and of all of them together as "all".

    A line is a list of times (ns after `begin_ns`) and one of counts.
    """
    mine = attempts[np.isin(attempts["pid"], shown.pids)]
    share = max(_FEWEST, MOST_POINTS // max(1, len(shown.pids)))
    tables = {
        "demand": [demand(mine, scope, end_ns) for scope in ("process", "host")],
        "in_flight": [in_flight(mine, scope, end_ns) for scope in ("process", "host")],
    }
    lines: dict[str, Any] = {"all": {}, **{str(pid): {} for pid in shown.pids}}
    for kind, (by_process, together) in tables.items():
        lines["all"][kind] = _line(together, shown.window, MOST_POINTS, begin_ns)
        for pid in shown.pids:
            own = by_process[slice(*np.searchsorted(by_process["scope"], [pid, pid + 1]))]
            lines[str(pid)][kind] = _line(own, shown.window, share, begin_ns)
    return lines


def _line(steps: Steps, window: tuple[int, int] | None, most: int, begin_ns: int) -> dict[str, Any]:
    time, count = steps["time_ns"].astype(np.int64), steps["count"].astype(np.int64)
    exact = len(time) <= most
    if not exact:
        time, count = thinned(time, count, window or (0, 0), most)
    return {"time": (time - begin_ns).tolist(), "count": count.tolist(), "exact": exact}


def thinned(time: Ints, count: Ints, window: tuple[int, int], most: int) -> tuple[Ints, Ints]:
    """Return a step line with at most about `most` points, exact within `window` if it can be.

    Elsewhere the line shows the highest count of each of equal stretches of time.
    """
    time, count = _with_step_at(time, count, window[0])
    inside = (time >= window[0]) & (time < window[1])
    if 2 * np.count_nonzero(inside) > most:
        inside[:] = False
    stretches = max(1, (most - int(np.count_nonzero(inside))) // 2)
    width = max(1, -(-int(time[-1] - time[0] + 1) // stretches))
    stretch = (time - time[0]) // width
    # A stretch is cut where the exact part begins and ends.
    side = np.where(time < window[0], 0, np.where(inside, 1, 2))
    new = np.ones(len(time), np.bool_)
    new[1:] = inside[1:] | (stretch[1:] != stretch[:-1]) | (side[1:] != side[:-1])
    first = np.flatnonzero(new)
    # What was open when a stretch began counts in it as well.
    before = np.concatenate([np.zeros(1, np.int64), count[:-1]])[first]
    highest = np.maximum.reduceat(count, first)
    return time[first], np.where(inside[first], highest, np.maximum(highest, before))


def _with_step_at(time: Ints, count: Ints, at: int) -> tuple[Ints, Ints]:
    # The exact part must not begin with what the stretch before it had at most.
    where = int(np.searchsorted(time, at))
    if where in (0, len(time)):
        return time, count
    return np.insert(time, where, at), np.insert(count, where, count[where - 1])
