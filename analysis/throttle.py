"""The statistical test: did a throttle with c slots hold these attempts of one group?

A throttle shows in three ways at once: held attempts go on right after another one ends
(handoff), nobody is held while a slot is free (busy), and never more than c are open (cap).
One `Queue` is one place and one group of attempts that some throttle may count together.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from porttrace.analysis.binomial import upper_tail
from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.holds import HELD_NS, Spans
from porttrace.analysis.timeline import contains, depth, measure, union

EPSILONS_NS = (2_000_000, 10_000_000, 40_000_000, 160_000_000)
"""How late a throttle may notice that a slot is free: at once, by a timer's tick, by polling,
or by a supervisor that has to wait for a CPU itself."""

_OVERLAP_NS = 40_000_000  # however late it notices an end, it is never so early
_LONG_NS = 200_000_000  # holds so long are long against every epsilon

MIN_BUSY = 0.9  # share of the held time, clear of ends, with exactly c in service
MIN_OCCUPIED = 0.5  # share of all held time with at least c in service, just ended ones not
MIN_EXPLAINED = 0.9  # share of the testable holds that end in a handoff
_TELLING = 3  # so many handoffs tell a pace from a queue
_CLOSE = 0.003  # lag over the time since the release before: no pace meets ends so well by luck
_INSTANT_NS = 2_000_000


Levels = tuple[Ints, Ints]
"""Times at which the number in service changes, and the number from there."""


@dataclass(frozen=True)
class Queue:
    """The attempts of one group at one place: when each was held there and when past it."""

    hold: Spans
    service: Spans

    def held(self) -> Bools:
        """Tell which attempts were held long enough to count."""
        return self.hold.lengths() >= HELD_NS


@dataclass(frozen=True)
class Verdict:
    """What the test found with one epsilon. Times are ns; shares are 0..1."""

    epsilon_ns: int
    held: int  # attempts held, those still held included
    waiting: int  # of these, never released
    testable: int  # released after a hold longer than epsilon
    handoffs: int  # of these, released within epsilon of another's end
    p_value: float  # of so many handoffs by chance, corrected for the epsilons tried
    slots: int  # 0 when mostly none was in service
    busy: float
    occupied: float
    peak: int  # most in service at once
    cap_exceeded: int  # times that more than `slots` were in service
    lag_ns: int  # median from an end to its handoff
    paced: bool  # releases keep their own pace better than they follow ends
    common_cause: bool  # what ended at the handoffs ended with others, as if stopped and resumed
    held_ns: int  # time in which somebody was held
    handed: Bools  # per attempt: its hold ended in a handoff

    def explained(self) -> float:
        """Return the share of the testable holds that ended in a handoff."""
        return self.handoffs / self.testable if self.testable else 0.0

    def throttled(self) -> bool:
        """Tell whether a throttle explains all of it, chance left aside."""
        return (
            self.slots > 0
            and self.busy >= MIN_BUSY
            and self.occupied >= MIN_OCCUPIED
            and self.cap_exceeded == 0
            and not self.paced
            and not self.common_cause
            and (self.explained() >= MIN_EXPLAINED or self.testable == 0)
        )


def examine(queue: Queue) -> Verdict | None:
    """Return the best verdict over all epsilons, None when nobody was held."""
    if not queue.held().any():
        return None
    own = _largest_lag(queue)
    levels = depth(queue.service.start, queue.service.stop)
    # Two ways of looking, each corrected for both; the fixed epsilons for their number too.
    tries = len(EPSILONS_NS) * (2 if own else 1)
    verdicts = [_examine(queue, levels, epsilon, tries) for epsilon in EPSILONS_NS]
    if own:
        exact = _examine(queue, levels, own, 2)
        verdicts += [exact] if exact.handoffs == exact.testable else []
    return min(verdicts, key=lambda v: (not v.throttled(), v.p_value, v.epsilon_ns))


# When all long holds ended soon after an end, the largest of their lags is one number whose chance
# is known: that all of them lie within it. A few handoffs say more so than against fixed epsilons.
def _largest_lag(queue: Queue) -> int:
    long = queue.hold.closed & (queue.hold.lengths() >= _LONG_NS)
    ended = queue.service.closed & (queue.service.lengths() > 0)
    if not long.any() or not ended.any():
        return 0
    release, start = queue.hold.stop[long], queue.hold.start[long]
    end = _latest_before(np.sort(queue.service.stop[ended]), release)
    largest = int((release - end).max())
    fits = largest <= EPSILONS_NS[-1] and bool((end > start).all())
    return max(largest + 1, HELD_NS // 100) if fits else 0


def _examine(queue: Queue, levels: Levels, epsilon: int, tries: int) -> Verdict:
    ended = queue.service.closed & (queue.service.lengths() > 0)
    ends = np.sort(queue.service.stop[ended])
    just_ended = union(ends, ends + epsilon)
    held = queue.held()
    load = _load(queue, levels, held, just_ended)
    found = _handoffs(queue, held, ends, just_ended, epsilon)
    handed, successes = found.handed, int(np.count_nonzero(found.handed))
    return Verdict(
        epsilon_ns=epsilon,
        held=int(np.count_nonzero(held)),
        waiting=int(np.count_nonzero(held & ~queue.hold.closed)),
        testable=len(found.chance),
        handoffs=successes,
        p_value=min(1.0, upper_tail(found.chance, successes) * tries),
        slots=load.slots,
        busy=load.busy,
        occupied=load.occupied,
        peak=load.peak,
        cap_exceeded=excesses(queue.service, levels, load.slots, min(epsilon, _OVERLAP_NS)),
        lag_ns=int(np.median(found.lag[handed])) if successes else 0,
        paced=_is_paced(found.head[handed], found.lag[handed]),
        common_cause=_is_common_cause(queue.service, queue.hold.stop[handed] - found.lag[handed]),
        held_ns=load.held_ns,
        handed=handed,
    )


@dataclass(frozen=True)
class _Load:
    slots: int
    busy: float
    occupied: float
    peak: int
    held_ns: int


# Slots are the number that was in service for most of the time in which somebody was held. The
# moments right after an end are left out: there the slot is free and the throttle has not looked.
def _load(queue: Queue, levels: Levels, held: Bools, just_ended: Ints) -> _Load:
    times, counts = levels
    in_hold = union(queue.hold.start[held], queue.hold.stop[held])
    cuts = _merged(times, in_hold, just_ended)
    lengths = np.diff(cuts)
    at = np.searchsorted(times, cuts[:-1], "right")
    count = np.concatenate([np.zeros(1, np.int64), counts])[at]
    inside = contains(in_hold, cuts[:-1])
    clear = inside & ~contains(just_ended, cuts[:-1])
    by_count = np.bincount(count[inside], weights=lengths[inside])
    # Where every moment lies close to some end, nothing is clear of ends: take it as it is.
    by_clear = np.bincount(count[clear], weights=lengths[clear]) if clear.any() else by_count
    slots = int(np.argmax(by_clear))
    return _Load(
        slots,
        float(by_clear[slots] / by_clear.sum()),
        float(by_count[slots:].sum() / by_count.sum()),
        int(counts.max(initial=0)),
        int(by_count.sum()),
    )


# Sorted runs are merged, which np.unique would not make use of: it hashes millions of times.
def _merged(*sorted_times: Ints) -> Ints:
    times = np.sort(np.concatenate(sorted_times), kind="stable")
    new = np.ones(len(times), np.bool_)
    new[1:] = times[1:] != times[:-1]
    return times[new]


@dataclass(frozen=True)
class _Handoffs:
    handed: Bools
    lag: Ints  # from the latest end to the release
    head: Ints  # time at the head of the line before the release
    chance: npt.NDArray[np.float64]  # of the testable ones, were releases independent of ends


# Chance: were the release independent of ends, it would fall anywhere since this attempt headed the
# line (held, and the release before it done). Not since its own hold began: a backlog that drains
# in one burst, for whatever reason, follows its own ends closely, and must not count as so many
# coincidences. Windows count beyond the release, as the one that was hit is cut off by it.
def _handoffs(queue: Queue, held: Bools, ends: Ints, just_ended: Ints, epsilon: int) -> _Handoffs:
    start, release = queue.hold.start, queue.hold.stop
    freed = held & queue.hold.closed
    testable = freed & (queue.hold.lengths() > epsilon)
    end = _latest_before(ends, release)
    handed = testable & (release - end <= epsilon) & (end > start)
    since = np.maximum(start, _earlier_release(release[freed], release))
    near = measure(just_ended, since[testable], release[testable] + epsilon)
    head = release - since
    chance = np.minimum(1.0, near / np.maximum(head[testable], epsilon))
    chance[head[testable] <= 0] = 1.0
    return _Handoffs(handed, release - end, head, chance.astype(np.float64))


def _latest_before(ends: Ints, times: Ints) -> Ints:
    at = np.searchsorted(ends, times, "right")
    return np.concatenate([np.full(1, -(2**62), np.int64), ends])[at]


# Of several releases at one instant one is the handoff of an end, the others get that very instant
# as the release before them, and so no weight.
def _earlier_release(released: Ints, times: Ints) -> Ints:
    released = np.sort(released)
    order = np.argsort(times, kind="stable")
    rank = np.searchsorted(released, times[order], "left")
    first = np.ones(len(times), np.bool_)
    first[1:] = times[order][1:] != times[order][:-1]
    earlier = np.concatenate([np.zeros(1, np.int64), released])[rank]
    result = np.empty(len(times), np.int64)
    result[order] = np.where(first, earlier, times[order])
    return result


def excesses(service: Spans, levels: Levels, slots: int, epsilon: int) -> int:
    """Count how often more than `slots` were in service, handoffs left aside.

    A handoff may overlap for less than `epsilon`, if a throttle notices an end before the kernel
    says so: then the newcomer outlives the one that was there before it.
    """
    times, counts = levels
    over = np.concatenate([np.zeros(1, np.bool_), counts > slots])
    first, last = times[over[1:] & ~over[:-1]], times[~over[1:] & over[:-1]]
    run = np.searchsorted(last, service.stop)
    known = run < len(last)
    run = np.minimum(run, max(len(last) - 1, 0))
    if not len(last):
        return 0
    older = known & (service.stop == last[run]) & (service.start < first[run])
    excused = np.zeros(len(last), np.bool_)
    excused[run[older]] = True
    return int(np.count_nonzero(~(excused & (last - first < epsilon))))


# A supervisor that takes its time for each call releases them at its own pace, and the time since
# the last end varies as the services do. A queue does the opposite: it follows ends at a steady
# distance, and its pace varies as the services do. Where services are all alike, only a queue can
# keep so much closer to the ends than to the releases before.
def _is_paced(heads: Ints, lags: Ints) -> bool:
    if len(lags) < _TELLING:
        return False
    close = float(np.median(lags)) < _CLOSE * float(np.mean(heads))
    # In a queue the pace varies as services and lags do together, so never less than the lags.
    return _spread(lags) >= (2.0 if close else 0.5) * _spread(heads)


# The mean deviation, since few long waits behind a dead port weigh more than many short ones.
def _spread(values: Ints) -> float:
    return float(np.mean(np.abs(values - np.median(values))))


# Attempts that were made one by one and end all in one instant have a common cause, such as a
# process that was stopped and goes on; so have then the releases of that instant.
def _is_common_cause(service: Spans, closed_at: Ints) -> bool:
    lasting = service.closed & (service.lengths() >= 10 * _INSTANT_NS)
    order = np.flatnonzero(lasting)[np.argsort(service.stop[lasting], kind="stable")]
    stop, start = service.stop[order], service.start[order]
    if len(order) < 2 or not len(closed_at):
        return False
    first = np.searchsorted(stop, closed_at - _INSTANT_NS, "left")
    last = np.searchsorted(stop, closed_at + _INSTANT_NS, "right")
    earliest = _range_min(start, first, last)
    latest = -_range_min(-start, first, last)
    together = (last - first >= 2) & (latest - earliest > 10 * _INSTANT_NS)
    usual = len(order) * 2 * _INSTANT_NS / max(int(stop[-1] - start.min()), 1)
    return float(np.mean(together)) > 0.5 and usual < 0.2


def _range_min(values: Ints, first: Ints, last: Ints) -> Ints:
    padded = np.concatenate([values, np.full(2, 2**62, np.int64)])
    bounds = np.column_stack([first, np.maximum(last, first + 1)]).reshape(-1)
    return np.minimum.reduceat(padded, bounds)[::2]
