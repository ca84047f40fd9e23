"""The attempts of one place, cut into groups by scope: whom could a throttle there count together?

Only groups that can matter are examined one by one; the rest is sorted out for all at once, so
that ten thousand processes in which nothing waited cost next to nothing.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.holds import HELD_NS, Spans, service, spans
from porttrace.analysis.model import Trace
from porttrace.analysis.throttle import EPSILONS_NS, Queue, Verdict, examine
from porttrace.analysis.timeline import depth

LONG_NS = 1_000_000_000
"""A hold that lasts so long is worth a word before it ends."""


_MANY = 1000  # attempts of a group, from which on a look for its twin pays

_SETTLED_NS = 100_000_000
"""So long slots must stay taken after a thread fell asleep, or it did not sleep for one."""


@dataclass(frozen=True)
class _Partition:
    # The attempts of one place by their key in a scope.
    scope: str
    keys: Ints  # of each attempt
    order: Ints  # rows, sorted by key
    sorted_keys: Ints
    wanted: Bools  # held, and in a way that a throttle could explain
    rivals: int  # keys with somebody held


@dataclass(frozen=True)
class Place:
    """All attempts of a trace: when each was held at this place, and when past it.

    The two dictionaries only remember what has been worked out already.
    """

    trace: Trace
    name: str
    hold: Spans
    service: Spans
    partitions: dict[str, "_Partition"] = field(default_factory=dict, repr=False)
    examined: dict[tuple[str, int], "Group | None"] = field(default_factory=dict, repr=False)

    def held(self) -> Bools:
        """Tell which attempts were held here long enough to count."""
        return self.hold.lengths() >= HELD_NS

    def keys(self, scope: str) -> Ints:
        """Return each attempt's key in `scope`."""
        if scope in self.partitions:
            return self.partitions[scope].keys
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
    those with the most of these rows first.
    """
    partition = _partition(place, scope)
    rows = np.flatnonzero(partition.wanted) if among is None else among[partition.wanted[among]]
    found, sizes = np.unique(partition.keys[rows], return_counts=True)
    if most:
        found = np.sort(found[np.argsort(-sizes, kind="stable")[:most]])
    made = [_group(place, partition, key) for key in found.tolist()]
    return [group for group in made if group is not None]


# Groups are asked for again and again, by scope and by finding; each is examined once.
def _group(place: Place, partition: _Partition, key: int) -> Group | None:
    known = (partition.scope, key)
    if known not in place.examined:
        place.examined[known] = _examined(place, partition, key)
    return place.examined[known]


# With one process traced, its user, cgroup, namespace and host are the very same attempts.
def _same_rows(place: Place, rows: Ints) -> "Group | None":
    for group in place.examined.values():
        if group is not None and len(group.rows) == len(rows) and (group.rows == rows).all():
            return group
    return None


def _partition(place: Place, scope: str) -> _Partition:
    if scope not in place.partitions:
        keys, held = place.keys(scope), place.held()
        order = np.argsort(keys, kind="stable")
        wanted = held & _worth_testing(place, keys)
        rivals = len(np.unique(keys[held]))
        place.partitions[scope] = _Partition(scope, keys, order, keys[order], wanted, rivals)
    return place.partitions[scope]


# A hold says nothing unless it ended right after another attempt of its group, or still lasts.
def _worth_testing(place: Place, keys: Ints) -> Bools:
    lag = lags(keys, place.service, place.hold)
    waiting = ~place.hold.closed & (place.hold.lengths() >= LONG_NS)
    inside = lag < place.hold.lengths()
    return ((lag <= EPSILONS_NS[-1]) & inside) | waiting


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


def _examined(place: Place, partition: _Partition, key: int) -> Group | None:
    first = np.searchsorted(partition.sorted_keys, key, "left")
    last = np.searchsorted(partition.sorted_keys, key, "right")
    rows = partition.order[first:last]
    if len(rows) < 2:
        return None
    twin = _same_rows(place, rows) if len(rows) >= _MANY else None
    if twin is not None:
        return replace(twin, scope=partition.scope, key=key, rivals=partition.rivals)
    queue = Queue(_take(place.hold, rows), _take(place.service, rows))
    if place.name == "user":
        queue = _without_idlers(queue, 1)
    verdict = examine(queue)
    if verdict is not None and place.name == "user" and verdict.slots > 1:
        queue = _without_idlers(queue, verdict.slots)
        verdict = examine(queue)
    if verdict is None:
        return None
    return Group(partition.scope, key, rows, queue, verdict, partition.rivals)


def _take(spans_: Spans, rows: Ints) -> Spans:
    return Spans(spans_.start[rows], spans_.stop[rows], spans_.closed[rows])


# In user space threads sleep for many reasons. Only who fell asleep while the slots were taken,
# and stayed taken for a while, can have slept for one; that choice does not look at the release, so
# it does not bend the test. A slot counts as taken until the throttle can have noticed that it is
# free.
def _without_idlers(queue: Queue, slots: int) -> Queue:
    served = queue.service.lengths() > 0
    freed = queue.service.stop[served] + EPSILONS_NS[1]
    times, counts = depth(queue.service.start[served], freed)
    taken_until = _free_from(times, counts < slots)
    at = np.searchsorted(times, queue.hold.start, "right")
    until = np.concatenate([np.zeros(1, np.int64), taken_until])[at]
    taken = until >= np.minimum(queue.hold.stop, queue.hold.start + _SETTLED_NS)
    stop = np.where(taken, queue.hold.stop, queue.hold.start)
    return Queue(Spans(queue.hold.start, stop, queue.hold.closed & taken), queue.service)


# For each step of a count: the first time at or after it at which a slot is free.
def _free_from(times: Ints, free: Bools) -> Ints:
    never = np.iinfo(np.int64).max
    first = np.where(free, times, never)
    return np.minimum.accumulate(first[::-1])[::-1].astype(np.int64)
