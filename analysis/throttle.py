"""The statistical test: did a throttle with c slots hold these attempts of one group?

A throttle shows in three ways at once: held attempts go on right after another one ends
(handoff), nobody is held while a slot is free (busy), and never more than c are open (cap).
One `Queue` is one place and one group of attempts that some throttle may count together.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from porttrace.analysis.backlog import Backlog, Pieces, Waits, backlog
from porttrace.analysis.binomial import upper_tail
from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.holds import HELD_NS, Queue, Spans
from porttrace.analysis.timeline import lasting, measure

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
_SOON = 0.5  # of a pace
_INSTANT_NS = 2_000_000


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
    reckoned: bool = False  # another number of slots explains it as well
    mechanism: str = "queue"  # or drop: what finds no slot is lost, and sent again

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
    seen = backlog(queue, EPSILONS_NS[-1])
    if seen is None:
        return None
    own = _largest_lag(seen.waits)
    # Two ways of looking, each corrected for both; the fixed epsilons for their number too.
    tries = len(EPSILONS_NS) * (2 if own else 1)
    verdicts = [_examine(seen, epsilon, tries) for epsilon in EPSILONS_NS]
    if own:
        exact = _examine(seen, own, 2)
        verdicts += [exact] if exact.handoffs == exact.testable else []
    best = min(verdicts, key=lambda v: (not v.throttled(), v.p_value, v.epsilon_ns))
    # The latest handoff decides whether all are explained; that it is no chance may show in those
    # that came promptly. Both are corrected for all epsilons.
    prompt = (v.p_value for v in verdicts if v.epsilon_ns <= best.epsilon_ns)
    return replace(best, p_value=min(prompt))


# When all long holds ended soon after an end, the largest of their lags is one number whose chance
# is known: that all of them lie within it. A few handoffs say more so than against fixed epsilons.
def _largest_lag(waits: Waits) -> int:
    long = waits.freed & (waits.lengths() >= _LONG_NS)
    if not long.any():
        return 0
    largest = int((waits.release - waits.end)[long].max())
    fits = largest <= EPSILONS_NS[-1] and bool((waits.end > waits.start)[long].all())
    return max(largest + 1, HELD_NS // 100) if fits else 0


def _examine(seen: Backlog, epsilon: int, tries: int) -> Verdict:
    just_ended = lasting(seen.ends, epsilon)
    load = _load(seen.pieces, just_ended)
    waits, found = seen.waits, _handoffs(seen.waits, just_ended, epsilon)
    successes = int(np.count_nonzero(found.handed))
    lag, head = ((waits.release - x)[found.handed] for x in (waits.end, waits.since))
    handed = np.zeros(len(seen.queue.hold.start), np.bool_)
    handed[waits.rows[found.handed]] = True
    return Verdict(
        epsilon_ns=epsilon,
        held=len(waits.rows),
        waiting=int(np.count_nonzero(~waits.freed)),
        testable=len(found.chance),
        handoffs=successes,
        p_value=min(1.0, upper_tail(found.chance, successes) * tries),
        slots=load.slots,
        busy=load.busy,
        occupied=load.occupied,
        peak=int(seen.levels[1].max(initial=0)),
        cap_exceeded=seen.overruns(load.slots).number(min(epsilon, _OVERLAP_NS)),
        lag_ns=int(np.median(lag)) if successes else 0,
        paced=_is_paced(head, lag) and not _passes_between(seen, found.handed, head),
        common_cause=_is_common_cause(seen.queue.service, waits.end[found.handed]),
        held_ns=load.held_ns,
        handed=handed,
    )


@dataclass(frozen=True)
class _Load:
    slots: int
    busy: float
    occupied: float
    held_ns: int


# Slots are the number that was in service for most of the time in which somebody was held. The
# moments right after an end are left out: there the slot is free and the throttle has not looked.
def _load(pieces: Pieces, just_ended: Ints) -> _Load:
    lengths = pieces.stop - pieces.start
    clear = lengths - measure(just_ended, pieces.start, pieces.stop)
    by_count = np.bincount(pieces.count, weights=lengths)
    # Where every moment lies close to some end, nothing is clear of ends: take it as it is.
    by_clear = np.bincount(pieces.count, weights=clear) if clear.any() else by_count
    slots = int(np.argmax(by_clear))
    return _Load(
        slots,
        float(by_clear[slots] / by_clear.sum()),
        float(by_count[slots:].sum() / by_count.sum()),
        int(by_count.sum()),
    )


@dataclass(frozen=True)
class _Handoffs:
    # Of those that were held.
    handed: Bools
    chance: npt.NDArray[np.float64]  # of the testable ones, were releases independent of ends


# Chance: were the release independent of ends, it would fall anywhere since this attempt headed the
# line (held, and the release before it done). Not since its own hold began: a backlog that drains
# in one burst, for whatever reason, follows its own ends closely, and must not count as so many
# coincidences. Windows count beyond the release, as the one that was hit is cut off by it.
def _handoffs(waits: Waits, just_ended: Ints, epsilon: int) -> _Handoffs:
    testable = waits.freed & (waits.lengths() > epsilon)
    handed = testable & (waits.release - waits.end <= epsilon) & (waits.end > waits.start)
    since, release = waits.since[testable], waits.release[testable]
    near, head = measure(just_ended, since, release + epsilon), release - since
    chance = np.minimum(1.0, near / np.maximum(head, epsilon))
    chance[head <= 0] = 1.0
    return _Handoffs(handed, chance.astype(np.float64))


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


# Who takes his time for each call lets nobody pass at once so shortly after he let one go.
def _passes_between(seen: Backlog, handed: Bools, heads: Ints) -> bool:
    service = seen.queue.service
    passed = np.sort(service.start[~seen.queue.held() & (service.lengths() > 0)])
    released = np.sort(seen.waits.release[handed])
    after = np.searchsorted(passed, released, "right")
    known = after < len(passed)
    gaps = passed[after[known]] - released[known]
    soon = int(np.count_nonzero(gaps < _SOON * float(np.mean(heads)))) if len(gaps) else 0
    return soon >= _TELLING and soon >= _SOON * len(released)


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
