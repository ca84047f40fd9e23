"""The demand behind a throttle, replayed: a queue with c servers for each key, first come first.

Each attempt asks for a slot and holds it for its service. A thread asks again as long after its
attempt before was over as it did in the recording, so whoever waits less asks again sooner.
"""

import heapq
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.holds import HELD_NS

Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Chain:
    """What each attempt comes after: one value each, of the same thread."""

    before: Ints  # the attempt that its thread made before; -1 where it waited for none
    pause: Ints  # ns from where the model has that one over until this one asked


@dataclass(frozen=True)
class Demand:
    """The attempts behind one throttle, one value each, sorted by when they asked; times in ns."""

    key: Ints  # those of one key share the slots
    asked: Ints
    service: Ints  # past the throttle's place
    waited: Ints  # as measured
    good: Bools  # established
    to: Names  # destination
    over: Ints  # when each was over, as measured
    thread: Ints  # that asks again only when its attempt is over; -1 where none is known
    slots: int = 1
    lag_ns: int = 0  # from an end until the throttle lets the next one go
    chain: Chain | None = None  # of the unchanged case; None: as measured
    passed: Bools | None = None  # let through though no slot was free: they take none, and wait not


def calibrated(demand: Demand) -> Demand:
    """Return the demand with its threads tied to the model's own unchanged case.

    There every attempt asks exactly when it did in the recording, so that nothing drifts: what a
    variant changes is the variant's, and no error of the model adds up along a thread. Attempts
    that went straight on, while the model has all slots taken, are marked as passed.
    """
    waits = _as_asked(demand)
    passed = (demand.waited < HELD_NS) & (waits >= HELD_NS)
    demand = replace(demand, passed=passed)
    modelled = demand.asked + _as_asked(demand) + demand.service
    return replace(demand, chain=_chain(demand, modelled))


# Each asks when it asked in the recording, whatever becomes of those before.
def _as_asked(demand: Demand) -> Ints:
    return replay(replace(demand, thread=np.full(len(demand.asked), -1, np.int64), chain=None))


def replay(demand: Demand) -> Ints:
    """Return how long each attempt waits (ns) if slots go to whoever asked first, key by key."""
    waits = np.zeros(len(demand.asked), np.int64)
    chain = demand.chain or _chain(demand, demand.over)
    after = np.full(len(waits), -1, np.int64)
    after[chain.before[chain.before >= 0]] = np.flatnonzero(chain.before >= 0)
    service, following, pause = demand.service.tolist(), after.tolist(), chain.pause.tolist()
    line, first = _Line(demand), np.flatnonzero(chain.before < 0).tolist()
    asking = [(time, i) for time, i in zip(demand.asked[first].tolist(), first, strict=True)]
    heapq.heapify(asking)
    while asking:
        time, i = heapq.heappop(asking)
        begin = line.begin(i, time)
        waits[i] = begin - time
        if (then := following[i]) >= 0:
            # However short it waited before: not while its attempt still had to be served.
            again = max(begin + service[i] + pause[then], time + service[i])
            heapq.heappush(asking, (again, then))
    return waits


class _Line:
    # The slots of each key: when each that is taken will be free.
    def __init__(self, demand: Demand) -> None:
        self._keys, self._service = demand.key.tolist(), demand.service.tolist()
        self._slots, self._lag_ns = demand.slots, demand.lag_ns
        self._passed = (
            [False] * len(self._keys) if demand.passed is None else demand.passed.tolist()
        )
        self._taken: dict[int, list[int]] = {key: [] for key in set(self._keys)}

    def begin(self, i: int, time: int) -> int:
        """Return when (ns) attempt `i`, which asks at `time` (ns), has a slot, and take that one.

        To be asked in the order of time.
        """
        if self._passed[i]:
            return time
        taken, begin = self._taken[self._keys[i]], time
        if len(taken) == self._slots:
            free = heapq.heappop(taken)
            # Only who waits for the slot waits for it to be handed on, too.
            begin = free + self._lag_ns if free > time else time
        heapq.heappush(taken, begin + self._service[i])
        return begin


# A pause is counted from `over`: when each attempt was over, as measured or as the model has it.
def _chain(demand: Demand, over: Ints) -> Chain:
    order = np.lexsort((demand.asked, demand.thread))
    same = demand.thread[order[1:]] == demand.thread[order[:-1]]
    same &= demand.thread[order[1:]] >= 0
    rest, pause = np.zeros((2, len(order)), np.int64)
    rest[order[1:]] = demand.asked[order[1:]] - demand.over[order[:-1]]
    pause[order[1:]] = demand.asked[order[1:]] - over[order[:-1]]
    before = np.full(len(order), -1, np.int64)
    chained = same & (rest[order[1:]] >= 0)
    # A thread whose attempts ever overlap does not wait for them.
    apart = np.unique(demand.thread[order[1:]][same & ~chained])
    chained &= ~np.isin(demand.thread[order[1:]], apart)
    before[order[1:][chained]] = order[:-1][chained]
    return Chain(before, pause)
