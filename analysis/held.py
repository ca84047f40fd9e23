"""Threads that were held before SYN_SENT at a look, and what the events say of them since."""

from collections.abc import Iterable

import numpy as np

from porttrace.tracer.event import Events, EventType
from porttrace.tracer.facts import Held

_WENT_ON = (EventType.START, EventType.END, EventType.RETURN)


def still_held(held: Iterable[Held], events: Events) -> list[Held]:
    """Return those that did not go on: no event carries the mark at which their hold began.

    A thread that was seen at the gate and went on has a row of its own by then.
    """
    waiting = list(held)
    if not waiting or not len(events):
        return waiting
    told = events[np.isin(events["type"], _WENT_ON)]
    told = told[np.isin(told["tid"], [each.tid for each in waiting])]
    marks = {(tid, mark) for name in ("gate_ns", "call_ns") for tid, mark in _marks(told, name)}
    return [each for each in waiting if (each.tid, each.since_ns) not in marks]


def _marks(events: Events, name: str) -> Iterable[tuple[int, int]]:
    return zip(events["tid"].tolist(), events[name].tolist(), strict=True)
