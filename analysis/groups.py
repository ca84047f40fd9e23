"""The attempts of one place, cut into groups by scope: whom could a throttle there count together?

Only groups that can matter are examined one by one; the rest is sorted out for all at once, so
that ten thousand processes in which nothing waited cost next to nothing.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from porttrace.analysis import ladder
from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.dropped import examine_dropped
from porttrace.analysis.holds import HELD_NS, ON_THE_WAY, Queue, Spans, service, spans
from porttrace.analysis.model import Outcome, Trace
from porttrace.analysis.on_the_way import candidates, held_at
from porttrace.analysis.pairs import as_numbers, by_key
from porttrace.analysis.rows import take
from porttrace.analysis.throttle import EPSILONS_NS, MIN_EXPLAINED, Verdict, examine
from porttrace.analysis.timeline import depth

LONG_NS = 1_000_000_000
"""A hold that lasts so long is worth a word before it ends."""


_NEVER = np.iinfo(np.int64).max
_MANY = 1000  # attempts of a group, from which on a look for its twin pays
_PROMPT_NS = 10_000_000
"""A queue that hands over so promptly is no chance of SYNs that were sent again just then."""
_FEW_LOST, _MANY_LOST = 3, 0.15  # events; events an attempt
_MANY_UNKNOWN = 0.02  # of the attempts
_AS_GOOD = 0.002
"""Numbers of slots whose misfits lie so close cannot be told apart."""
_UNSURE_P = 0.01
_MOMENT_NS = 200_000_000
"""A busy supervisor is late by less."""
_SETTLED_NS = 100_000_000
"""So long slots must stay taken after a thread fell asleep, or it did not sleep for one."""


@dataclass(frozen=True)
class _Partition:
    # The attempts of one place by their key in a scope.
    scope: str
    keys: Ints  # of each attempt
    wanted: Bools  # held, and in a way that a throttle could explain
    rivals: int  # keys with somebody held

    @cached_property
    def order(self) -> Ints:
        """The rows, sorted by key."""
        return by_key(self.keys)

    @cached_property
    def sorted_keys(self) -> Ints:
        """The key of each row of `order`."""
        return self.keys[self.order]

    def rows(self, key: int) -> Ints:
        """Return the rows with this key."""
        first = np.searchsorted(self.sorted_keys, key, "left")
        return self.order[first : np.searchsorted(self.sorted_keys, key, "right")]


@dataclass(frozen=True)
class Place:
    """All attempts of a trace: when each was held at this place, and when past it.

    The dictionaries only remember what has been worked out already.
    """

    trace: Trace
    name: str
    hold: Spans
    known_keys: dict[str, Ints] = field(default_factory=dict, repr=False)
    partitions: dict[str, "_Partition"] = field(default_factory=dict, repr=False)
    examined: dict[tuple[str, int], "Group | None"] = field(default_factory=dict, repr=False)

    @cached_property
    def service(self) -> Spans:
        """When each attempt was past this place; asked for only where somebody was held."""
        return service(self.trace.columns, self.name, self.trace.end_ns)

    @cached_property
    def held_rows(self) -> Ints:
        """The indices of the attempts that were held here long enough to count."""
        return np.flatnonzero(self.hold.lengths() >= HELD_NS)

    @cached_property
    def ended_rows(self) -> Ints:
        """The indices of the attempts that were past this place and are over."""
        return np.flatnonzero(self.service.closed & (self.service.lengths() > 0))

    def keys(self, scope: str) -> Ints:
        """Return each attempt's key in `scope`."""
        if scope not in self.known_keys:
            processes = self.trace.processes
            self.known_keys[scope] = scope_keys(self.trace.columns, scope, processes)
        return self.known_keys[scope]


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
    joint_p: float = 1.0  # of all the groups of its scope together, where they agree

    def p_value(self) -> float:
        """Return the p-value, corrected for the groups tried."""
        return min(1.0, self.joint_p, self.verdict.p_value * self.rivals)

    def handed_rows(self) -> Ints:
        """Return the indices of the attempts whose hold ended in a handoff."""
        return self.rows[self.verdict.handed]


def kernel_places(trace: Trace) -> tuple[str, ...]:
    """Return the places past user space at which this trace can show holds."""
    return ("gate", "connect", *(ON_THE_WAY if trace.columns["watched"].any() else ()))


def counts_are_off(trace: Trace) -> bool:
    """Tell whether so many events were lost that no number of attempts in service can be trusted.

    Each start or end that is missing shifts it; a few do no harm. Where nothing counted the losses,
    attempts whose end nobody knows tell of them.
    """
    number = len(trace.attempts)
    lost = sum(loss.count for loss in trace.losses)
    unknown = int(np.count_nonzero(trace.columns["outcome"] == Outcome.unknown))
    return lost > max(_FEW_LOST, _MANY_LOST * number) or unknown > max(1, _MANY_UNKNOWN * number)


def stand_at(trace: Trace, place: str) -> Place:
    """Return how the attempts of `trace` stood at `place`."""
    held = held_at if place in ON_THE_WAY else spans
    return Place(trace, place, held(trace.columns, place, trace.end_ns))


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
        place.partitions[scope] = _partitioned(place, scope, place.keys(scope))
    return place.partitions[scope]


def _partitioned(place: Place, scope: str, keys: Ints) -> _Partition:
    # Of one user on one host, user and host are the same: every attempt has one key.
    if len(keys) and int(keys.min()) == int(keys.max()):
        for known in place.partitions.values():
            if int(known.keys.min()) == int(known.keys.max()):
                return replace(known, scope=scope, keys=keys)
    wanted = np.zeros(len(keys), np.bool_)
    # A SYN that was lost goes on only with the next one, long after a slot was free.
    on_the_way = place.name in ON_THE_WAY
    wanted[place.held_rows] = on_the_way or _worth_testing(place, keys)
    return _Partition(scope, keys, wanted, len(np.unique(keys[place.held_rows])))


# A hold says nothing unless it ended right after another attempt of its group, or still lasts.
def _worth_testing(place: Place, keys: Ints) -> Bools:
    rows = place.held_rows
    lag, length = _lags(place, keys), place.hold.lengths()[rows]
    waiting = ~place.hold.closed[rows] & (length >= LONG_NS)
    return ((lag <= EPSILONS_NS[-1]) & (lag < length)) | waiting


# The time (ns) from the latest end with the same key to the release of each that was held.
def _lags(place: Place, keys: Ints) -> Ints:
    held, ended = place.held_rows, place.ended_rows
    ended = ended[np.isin(keys[ended], np.unique(keys[held]))]
    release, end = place.hold.stop[held], place.service.stop[ended]
    asked, known = as_numbers((keys[held], release), (keys[ended], end))
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], asked, "right") - 1
    lag = np.full(len(held), _NEVER, np.int64)
    if len(ended):
        before = order[np.maximum(at, 0)]
        found = place.hold.closed[held] & (at >= 0) & (keys[ended][before] == keys[held])
        lag = np.where(found, release - end[before], lag)
    return lag


def _examined(place: Place, partition: _Partition, key: int) -> Group | None:
    rows = partition.rows(key)
    if len(rows) < 2:
        return None
    twin = _same_rows(place, rows) if len(rows) >= _MANY else None
    if twin is not None:
        return replace(twin, scope=partition.scope, key=key, rivals=partition.rivals)
    if place.name in ON_THE_WAY:
        found = _examined_on_the_way(place, rows)
        return found and Group(partition.scope, key, rows, *found, partition.rivals)
    queue = Queue(_take(place.hold, rows), _take(place.service, rows))
    if place.name == "user":
        queue = _without_idlers(queue, 1)
    verdict = examine(queue)
    if verdict is not None and place.name == "user" and verdict.slots > 1:
        queue = _without_idlers(queue, verdict.slots)
        verdict = examine(queue)
    if verdict is None:
        return None
    if place.name != "user" and (not verdict.throttled() or verdict.p_value > _UNSURE_P):
        queue, verdict = _beside_moments(queue, verdict)
    return Group(partition.scope, key, rows, queue, verdict, partition.rivals)


# On a busy host a supervisor holds everybody for a moment, because it waits for a CPU itself,
# whether a slot is free or not. Beside waits of seconds such moments say nothing of slots. Both
# looks are corrected for.
def _beside_moments(queue: Queue, verdict: Verdict) -> tuple[Queue, Verdict]:
    lengths = queue.hold.lengths()
    longest = int(lengths.max())
    if longest < LONG_NS:
        return queue, verdict
    long = lengths >= min(_MOMENT_NS, longest // 20)
    stop = np.where(long, queue.hold.stop, queue.hold.start)
    longer = Queue(Spans(queue.hold.start, stop, queue.hold.closed & long), queue.service)
    again = examine(longer)
    if again is None or not again.throttled():
        return queue, verdict
    chance = min(1.0, 2 * again.p_value)
    if verdict.throttled() and chance >= verdict.p_value:
        return queue, verdict
    return longer, replace(again, p_value=chance)


# Behind SYN_SENT there is more than one thing that may have happened: the most telling of those
# that a throttle explains. A prompt queue is no chance of SYNs that were sent again just then.
def _examined_on_the_way(place: Place, rows: Ints) -> tuple[Queue, Verdict] | None:
    trace = place.trace
    attempts, hold = take(trace.attempts, rows), _take(place.hold, rows)
    steps = ladder.of_host(trace.host.sysctls)
    found: list[tuple[Queue, Verdict, int]] = []
    for each in candidates(attempts, place.name, trace.end_ns, hold):
        drops = each.mechanism == "drop"
        verdict = examine_dropped(each.queue, steps, each.sent) if drops else examine(each.queue)
        if verdict is not None and each.slots in (0, verdict.slots):
            found.append((each.queue, verdict, each.passed_over))
    if not found:
        return None
    # Where drops are the better explanation, a queue that is as prompt by luck is none.
    lucky = min(
        (v.p_value for _, v, _ in found if v.mechanism == "drop" and v.throttled()), default=1.0
    )
    queue, verdict, over = min(found, key=lambda each: _rank(each[1], each[2], lucky))
    rivals = {
        other.slots
        for _, other, passed_over in found
        if other.throttled()
        and other.mechanism == verdict.mechanism
        and other.handoffs >= verdict.handoffs
        and _misfit(other, passed_over) <= _misfit(verdict, over) + _AS_GOOD
    }
    chance = min(1.0, verdict.p_value * len(found))
    return queue, replace(verdict, p_value=chance, reckoned=len(rivals) > 1)


# How far from a queue with just these slots: somebody left standing, or a slot left free.
def _misfit(verdict: Verdict, passed_over: int) -> float:
    share = passed_over / max(verdict.handoffs, 1)
    out_of_turn = share if share > 1 - MIN_EXPLAINED else 0.0
    return round(out_of_turn + 1 - verdict.busy + 1 - verdict.occupied, 4)


def _rank(
    verdict: Verdict, passed_over: int, drops_p: float
) -> tuple[bool, int, int, float, int, int, float]:
    drops = verdict.mechanism == "drop"
    prompt = verdict.lag_ns <= _PROMPT_NS and verdict.p_value < drops_p
    kind = 1 if drops else 0 if prompt else 2
    # Fewer slots than there are explain lost SYNs as well, more do not.
    slots = verdict.slots if drops else 0
    return (
        not verdict.throttled(),
        kind,
        -verdict.handoffs,
        0.0 if drops else _misfit(verdict, passed_over),
        passed_over,
        -slots,
        verdict.p_value,
    )


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
