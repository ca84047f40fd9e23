"""Finished rounds: events of all CPUs, handed on in the order of time.

Each CPU's buffer is in order, the buffers together are not. After a round that
drained all of them, whatever is older than the start of the round *before* it is
final: a record is stamped and submitted within one handler, so it cannot be in
flight for a whole round. (The rule is that of perf's ordered events.)
"""

import numpy as np

from porttrace.tracer.event import Events, no_events, together, where

FOREVER_NS = 1 << 62
"""A watermark that everything is older than."""


class FinishedRounds:
    """Holds events back until nothing older can come."""

    def __init__(self) -> None:
        self._waiting = no_events()
        self._round_ns = 0
        self.watermark_ns = 0

    def push(self, events: Events, round_start_ns: int) -> Events:
        """Add the events of a round that began to drain at `round_start_ns`.

        Returns the events that are final now, sorted by time_ns.
        """
        self.watermark_ns, self._round_ns = self._round_ns, round_start_ns
        waited, self._waiting = self._waiting, no_events()
        return _sorted(together([self._final(waited), self._final(events)]))

    def _final(self, events: Events) -> Events:
        # Those of `events` that are; the others wait behind those that wait already.
        final = events["time_ns"] <= self.watermark_ns
        self._waiting = together([self._waiting, where(events, ~final)])
        return where(events, final)

    def drain(self) -> Events:
        """Return everything that is left, sorted, at the end of a trace: nothing comes after."""
        rest, self._waiting = self._waiting, no_events()
        self.watermark_ns = FOREVER_NS
        return _sorted(rest)


def _sorted(events: Events) -> Events:
    times = np.ascontiguousarray(events["time_ns"])
    if (times[1:] >= times[:-1]).all():
        return events
    return events.take(np.argsort(times, kind="stable"))
