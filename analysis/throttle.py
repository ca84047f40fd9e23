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

EPSILONS_NS = (2_000_000, 10_000_000, 40_000_000)
"""How late a throttle may notice that a slot is free: at once, by a timer's tick, by polling."""

MIN_BUSY = 0.9  # share of the held time, clear of ends, with exactly c in service
MIN_OCCUPIED = 0.5  # share of all held time with at least c in service, just ended ones not
MIN_EXPLAINED = 0.9  # share of the testable holds that end in a handoff
_BACKLOG = 5  # so many releases from a standing queue tell a pace from a queue


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
            and (self.explained() >= MIN_EXPLAINED or self.testable == 0)
        )


def examine(queue: Queue) -> Verdict | None:
    """Return the best verdict over all epsilons, None when nobody was held."""
    if not queue.held().any():
        return None
    verdicts = [_examine(queue, epsilon) for epsilon in EPSILONS_NS]
    return min(verdicts, key=lambda v: (not v.throttled(), v.p_value, v.epsilon_ns))


def _examine(queue: Queue, epsilon: int) -> Verdict:
    ended = queue.service.closed & (queue.service.lengths() > 0)
    ends = np.sort(queue.service.stop[ended])
    just_ended = union(ends, ends + epsilon)
    held = queue.held()
    load = _load(queue, held, just_ended)
    handed, testable, lag, chance = _handoffs(queue, held, ends, just_ended, epsilon)
    successes = int(np.count_nonzero(handed))
    return Verdict(
        epsilon_ns=epsilon,
        held=int(np.count_nonzero(held)),
        waiting=int(np.count_nonzero(held & ~queue.hold.closed)),
        testable=int(np.count_nonzero(testable)),
        handoffs=successes,
        p_value=min(1.0, upper_tail(chance, successes) * len(EPSILONS_NS)),
        slots=load.slots,
        busy=load.busy,
        occupied=load.occupied,
        peak=load.peak,
        cap_exceeded=excesses(queue.service, load.slots, epsilon),
        lag_ns=int(np.median(lag[handed])) if successes else 0,
        paced=_is_paced(queue, testable, lag),
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
def _load(queue: Queue, held: Bools, just_ended: Ints) -> _Load:
    times, counts = depth(queue.service.start, queue.service.stop)
    in_hold = union(queue.hold.start[held], queue.hold.stop[held])
    cuts = np.unique(np.concatenate([times, in_hold, just_ended]))
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


# Chance: were the release independent of ends, it would fall anywhere since this attempt headed the
# line (held, and the release before it done). Not since its own hold began: a backlog that drains
# in one burst, for whatever reason, follows its own ends closely, and must not count as so many
# coincidences. Windows count beyond the release, as the one that was hit is cut off by it.
def _handoffs(
    queue: Queue, held: Bools, ends: Ints, just_ended: Ints, epsilon: int
) -> tuple[Bools, Bools, Ints, npt.NDArray[np.float64]]:
    start, release = queue.hold.start, queue.hold.stop
    testable = held & queue.hold.closed & (queue.hold.lengths() > epsilon)
    end = _latest_before(ends, release)
    lag = release - end
    handed = testable & (lag <= epsilon) & (end > start)
    begin, stop = start[testable], release[testable]
    head = np.maximum(begin, _earlier_release(release[held & queue.hold.closed], stop))
    near = measure(just_ended, head, stop + epsilon)
    chance = np.minimum(1.0, near / np.maximum(stop - head, epsilon))
    chance[head >= stop] = 1.0
    return handed, testable, lag, chance.astype(np.float64)


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


def excesses(service: Spans, slots: int, epsilon: int) -> int:
    """Count how often more than `slots` were in service, handoffs left aside.

    A handoff may overlap for less than `epsilon`, if a throttle notices an end before the kernel
    says so: then the newcomer outlives the one that was there before it.
    """
    times, counts = depth(service.start, service.stop)
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
# distance, and its pace varies as the services do.
def _is_paced(queue: Queue, testable: Bools, lag: Ints) -> bool:
    order = np.flatnonzero(testable)[np.argsort(queue.hold.stop[testable], kind="stable")]
    release, start = queue.hold.stop[order], queue.hold.start[order]
    pace = np.diff(release)
    backlog = start[1:] < release[:-1]
    if np.count_nonzero(backlog) < _BACKLOG:
        return False
    pace, follow = pace[backlog], lag[order][1:][backlog]
    close = np.median(follow) < 0.05 * np.median(pace)
    return not close and _spread(follow) >= 0.5 * _spread(pace)


def _spread(values: Ints) -> float:
    low, high = np.percentile(values, [25, 75])
    return float(high - low)
