"""The attempts of one place, cut into groups by scope: whom could a throttle there count together?

Only groups that can matter are examined one by one; the rest is sorted out for all at once, so
that ten thousand processes in which nothing waited cost next to nothing.
"""

from dataclasses import dataclass

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.holds import HELD_NS, Spans, service, spans
from porttrace.analysis.model import Trace
from porttrace.analysis.throttle import EPSILONS_NS, Queue, Verdict, examine
from porttrace.analysis.timeline import depth

LONG_NS = 1_000_000_000
"""A hold that lasts so long is worth a word before it ends."""


@dataclass(frozen=True)
class Place:
    """All attempts of a trace: when each was held at this place, and when past it."""

    trace: Trace
    name: str
    hold: Spans
    service: Spans

    def held(self) -> Bools:
        """Tell which attempts were held here long enough to count."""
        return self.hold.lengths() >= HELD_NS

    def keys(self, scope: str) -> Ints:
        """Return each attempt's key in `scope`."""
        return scope_keys(self.trace.attempts, scope, self.trace.processes)


@dataclass(frozen=True)
class Group:
    """The attempts that share a key of a scope, and what the test says of them.

    `rows` are indices into the trace's attempts; `rivals` is the number of groups of this scope in
    which somebody was held, each of which might have looked throttled by chance.
    """

    scope: str
    key: int
    rows: Ints
    queue: Queue
    verdict: Verdict
    rivals: int

    def p_value(self) -> float:
        """Return the p-value, corrected for the groups tried."""
        return min(1.0, self.verdict.p_value * self.rivals)

    def handed_rows(self) -> Ints:
        """Return the indices of the attempts whose hold ended in a handoff."""
        return self.rows[self.verdict.handed]


def stand_at(trace: Trace, place: str) -> Place:
    """Return how the attempts of `trace` stood at `place`."""
    hold = spans(trace.attempts, place, trace.end_ns)
    return Place(trace, place, hold, service(trace.attempts, place, trace.end_ns))


def groups(place: Place, scope: str, among: Ints | None = None, most: int = 0) -> list[Group]:
    """Return the examined groups of `scope` in which a throttle is at all possible.

    `among` restricts to groups that hold one of these rows; `most`, if not 0, to so many groups,
    those with the most held attempts first.
    """
    keys = place.keys(scope)
    held = place.held()
    rivals = len(np.unique(keys[held]))
    wanted = held & _worth_testing(place, keys)
    if among is not None:
        chosen = np.zeros(len(keys), np.bool_)
        chosen[among] = True
        wanted &= chosen
    found, sizes = np.unique(keys[wanted], return_counts=True)
    if most:
        found = np.sort(found[np.argsort(-sizes, kind="stable")[:most]])
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], found, "left")
    last = np.searchsorted(keys[order], found, "right")
    made = [
        _group(place, scope, int(key), np.sort(order[a:b]), rivals)
        for key, a, b in zip(found, first, last, strict=True)
        if b - a > 1
    ]
    return [group for group in made if group is not None]


# A hold says nothing unless it ended right after another attempt of its group, or still lasts.
def _worth_testing(place: Place, keys: Ints) -> Bools:
    lag = lags(keys, place.service, place.hold)
    waiting = ~place.hold.closed & (place.hold.lengths() >= LONG_NS)
    return (lag <= EPSILONS_NS[-1]) | waiting


def lags(keys: Ints, served: Spans, hold: Spans) -> Ints:
    """Return the time (ns) from the latest end with the same key to each attempt's release."""
    ended = np.flatnonzero(served.closed & (served.lengths() > 0))
    freed = np.flatnonzero(hold.closed)
    key = np.concatenate([keys[ended], keys[freed]])
    time = np.concatenate([served.stop[ended], hold.stop[freed]])
    kind = np.repeat(np.array([0, 1]), [len(ended), len(freed)])
    order = np.lexsort((kind, time, key))
    at = np.maximum.accumulate(np.where(kind[order] == 0, np.arange(len(order)), -1))
    source = order[np.maximum(at, 0)]
    known = (at >= 0) & (key[source] == key[order])
    lag = np.where(known, time[order] - time[source], np.iinfo(np.int64).max)
    result = np.full(len(keys), np.iinfo(np.int64).max, np.int64)
    release = kind[order] == 1
    result[freed[order[release] - len(ended)]] = lag[release]
    return result


def _group(place: Place, scope: str, key: int, rows: Ints, rivals: int) -> Group | None:
    queue = Queue(_take(place.hold, rows), _take(place.service, rows))
    if place.name == "user":
        queue = _without_idlers(queue, 1)
    verdict = examine(queue)
    if verdict is not None and place.name == "user" and verdict.slots > 1:
        queue = _without_idlers(queue, verdict.slots)
        verdict = examine(queue)
    return None if verdict is None else Group(scope, key, rows, queue, verdict, rivals)


def _take(spans_: Spans, rows: Ints) -> Spans:
    return Spans(spans_.start[rows], spans_.stop[rows], spans_.closed[rows])


# In user space threads sleep for many reasons. Only who fell asleep while the slots were taken can
# have slept for one; that choice does not look at the release, so it does not bend the test.
# A slot counts as taken until the throttle can have noticed that it is free.
def _without_idlers(queue: Queue, slots: int) -> Queue:
    served = queue.service.lengths() > 0
    freed = queue.service.stop[served] + EPSILONS_NS[1]
    times, counts = depth(queue.service.start[served], freed)
    at = np.searchsorted(times, queue.hold.start, "right")
    taken = np.concatenate([np.zeros(1, np.int64), counts])[at] >= slots
    stop = np.where(taken, queue.hold.stop, queue.hold.start)
    return Queue(Spans(queue.hold.start, stop, queue.hold.closed & taken), queue.service)
