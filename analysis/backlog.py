"""What can be said of a queue before an epsilon is chosen: who waited, who was in front of them.

Only what lies near a hold is kept. A group of a million attempts in which twenty were held costs
little more than these twenty.
"""

from dataclasses import dataclass, field

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.holds import Queue, Spans
from porttrace.analysis.timeline import contains, depth, union, within

_LONG_AGO = -(2**62)

Levels = tuple[Ints, Ints]
"""Times at which the number in service changes, and the number from there."""


@dataclass(frozen=True)
class Waits:
    """The attempts that were held, one value each; times in ns."""

    rows: Ints  # their positions in the queue
    start: Ints
    release: Ints
    freed: Bools  # they went on
    since: Ints  # at the head of the line: held, and the release before it done
    end: Ints  # the latest end until the release; long ago where there is none near

    def lengths(self) -> Ints:
        """Return how long each was held, ns."""
        return self.release - self.start


@dataclass(frozen=True)
class Pieces:
    """The time in which somebody was held, cut where the number in service changes."""

    start: Ints
    stop: Ints
    count: Ints  # in service


@dataclass(frozen=True)
class Overruns:
    """The times in which more were in service than there are slots, one value each."""

    lengths: Ints
    handed: Bools  # the last of those that were there before it left as it ended

    def number(self, excused_ns: int) -> int:
        """Return how many there are, handoffs that overlap for less than this left aside."""
        return int(np.count_nonzero(~(self.handed & (self.lengths < excused_ns))))


@dataclass(frozen=True)
class Backlog:
    """A queue as it was while somebody was held in it.

    The dictionary only remembers what has been worked out already.
    """

    queue: Queue
    waits: Waits
    ends: Ints  # sorted, of those that were in service: all that lie near a hold
    levels: Levels
    pieces: Pieces
    known: dict[int, Overruns] = field(default_factory=dict, repr=False)

    def overruns(self, slots: int) -> Overruns:
        """Return when more than `slots` were in service."""
        if slots not in self.known:
            self.known[slots] = _overruns(self.queue.service, self.levels, slots)
        return self.known[slots]


def backlog(queue: Queue, reach_ns: int) -> Backlog | None:
    """Return what `queue` was while somebody was held; None when nobody was.

    Ends are kept that lie no farther from a hold than `reach_ns`.
    """
    rows = np.flatnonzero(queue.held())
    if not len(rows):
        return None
    start, stop = queue.hold.start[rows], queue.hold.stop[rows]
    ends = within(ends_of(queue.service), union(start - reach_ns, stop + reach_ns + 1))
    levels = depth(queue.service.start, queue.service.stop)
    waits = _waits(queue.hold, rows, ends)
    return Backlog(queue, waits, ends, levels, _pieces(levels, union(start, stop)))


def ends_of(service: Spans) -> Ints:
    """Return when those that were in service ended, as far as that is known; sorted."""
    return np.sort(service.stop[service.closed & (service.lengths() > 0)], kind="stable")


def _waits(hold: Spans, rows: Ints, ends: Ints) -> Waits:
    start, release, freed = hold.start[rows], hold.stop[rows], hold.closed[rows]
    since = np.maximum(start, _earlier_release(hold, rows, np.sort(release[freed])))
    before = np.searchsorted(ends, release, "right")
    end = np.concatenate([np.full(1, _LONG_AGO, np.int64), ends])[before]
    return Waits(rows, start, release, freed, since, end)


# The release before that of each held one. Of several that go on in one instant, held for long or
# not, one is the handoff of an end; the others get that very instant, and so no weight.
def _earlier_release(hold: Spans, rows: Ints, released: Ints) -> Ints:
    release = hold.stop[rows]
    near = np.flatnonzero(hold.stop >= release.min())
    order = near[np.argsort(hold.stop[near], kind="stable")]
    times = hold.stop[order]
    first = np.zeros(len(hold.stop), np.bool_)
    first[order[0]] = True
    first[order[1:]] = times[1:] != times[:-1]
    earlier = np.concatenate([np.zeros(1, np.int64), released])
    return np.where(first[rows], earlier[np.searchsorted(released, release, "left")], release)


def _pieces(levels: Levels, in_hold: Ints) -> Pieces:
    times, counts = levels
    cuts = _merged(within(times, in_hold), in_hold)
    inside = contains(in_hold, cuts[:-1])
    start, stop = cuts[:-1][inside], cuts[1:][inside]
    count = np.concatenate([np.zeros(1, np.int64), counts])
    return Pieces(start, stop, count[np.searchsorted(times, start, "right")])


# Sorted runs are merged, which np.unique would not make use of: it hashes millions of times.
def _merged(*sorted_times: Ints) -> Ints:
    times = np.sort(np.concatenate(sorted_times), kind="stable")
    new = np.ones(len(times), np.bool_)
    new[1:] = times[1:] != times[:-1]
    return times[new]


# A handoff may overlap a little, if a throttle notices an end before the kernel says so: then the
# newcomer outlives the one that was there before it.
def _overruns(service: Spans, levels: Levels, slots: int) -> Overruns:
    times, counts = levels
    over = np.concatenate([np.zeros(1, np.bool_), counts > slots])
    first, last = times[over[1:] & ~over[:-1]], times[~over[1:] & over[:-1]]
    handed = np.zeros(len(last), np.bool_)
    if len(last):
        run = np.searchsorted(last, service.stop)
        known = run < len(last)
        run = np.minimum(run, len(last) - 1)
        handed[run[known & (service.stop == last[run]) & (service.start < first[run])]] = True
    return Overruns(last - first, handed)
