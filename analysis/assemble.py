"""From what `attempts.step` collected to a `Trace` that rules can read.

Live, at any moment, and at the end of a recording the same function is used; what
is not over yet stands in it as `pending`.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from porttrace.analysis.attempts import Open, flush, mark_losses
from porttrace.analysis.concurrency import at_start
from porttrace.analysis.model import ATTEMPT, Attempts, Loss, Outcome, Trace, start_ns
from porttrace.tracer.event import Events, EventType
from porttrace.tracer.facts import Held

_AF_INET, _AF_INET6 = 2, 10
_MAPPED = bytes(10) + b"\xff\xff"


def losses_of(events: Events) -> tuple[Loss, ...]:
    """Return the loss records among the events."""
    lost = events[events["type"] == EventType.LOSS]
    return tuple(
        Loss(int(e["start_ns"]), int(e["time_ns"]), int(e["cpu"]), int(e["in_flight"]))
        for e in lost
    )


def held_rows(held: Iterable[Held]) -> Attempts:
    """Return one pending row for each thread that stands before SYN_SENT.

    They have no event yet: the kernel's own table of threads tells of them.
    """
    entries = list(held)
    rows = np.zeros(len(entries), ATTEMPT)
    for row, each in zip(rows, entries, strict=True):
        row["pid"], row["tid"] = each.pid, each.tid
        row["comm"] = each.comm.encode(errors="surrogateescape")
        row[f"{'gate' if each.place == 'gate' else 'call'}_ns"] = each.since_ns
        row["daddr"], row["dport"] = each.daddr, each.dport
        row["family"] = _AF_INET if each.daddr[:12] == _MAPPED else _AF_INET6
        row["fd"] = row["gate_stack"] = row["connect_stack"] = row["blocking"] = -1
        row[f"{each.place}_stack"] = each.stack
        row["outcome"], row["complete"] = Outcome.pending, True
    return rows


def assemble(
    about: Trace, finished: Iterable[Attempts], carried: Open, held: Iterable[Held] = ()
) -> Trace:
    """Return `about` with its attempts: finished, open at `about.end_ns`, and held ones.

    `about` carries everything but the attempts. Rows are sorted by first mark; their
    concurrency columns are filled and those that losses touch are marked.
    """
    known = [*finished, flush(carried, about.losses)]
    waiting = _still_held(held_rows(held), known)
    parts = [*known, waiting]
    rows = np.concatenate(parts)
    rows["attempt_id"][len(rows) - len(waiting) :] = (
        np.arange(len(waiting)) + 1 + int(rows["attempt_id"].max(initial=0))
    )
    rows = mark_losses(rows[np.lexsort((rows["attempt_id"], start_ns(rows)))], about.losses)
    return dataclasses.replace(about, attempts=at_start(rows))


def _still_held(waiting: Attempts, known: list[Attempts]) -> Attempts:
    # Who went on since the look is known by its events: a hold is told by thread and beginning.
    if not len(waiting):
        return waiting
    gone: set[tuple[int, int]] = set()
    for rows in known:
        rows = rows[np.isin(rows["tid"], waiting["tid"])]
        for mark in ("gate_ns", "call_ns"):
            gone.update(zip(rows["tid"].tolist(), rows[mark].tolist(), strict=True))
    since = np.maximum(waiting["gate_ns"], waiting["call_ns"]).tolist()
    keys = zip(waiting["tid"].tolist(), since, strict=True)
    return waiting[np.array([key not in gone for key in keys], bool)]
