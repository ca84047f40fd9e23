"""Events sorted into the attempts they tell of: an attempt's first or last event of some kind.

The identity of an attempt is its struct sock and when that entered SYN_SENT. Events are looked at
by column: in rows of 200 bytes each look costs a line of cache.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from porttrace.analysis.eventcolumns import EventColumns
from porttrace.tracer.event import Events, EventType, Flag

Index = npt.NDArray[np.intp]
Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NEVER = np.iinfo(np.int64).max

_KERNEL = np.uint64(1 << 32)  # numbers of threads are smaller, addresses of the kernel are not
_HALF = 1 << 31
_NOWHERE: Index = np.empty(0, np.intp)


@dataclass(frozen=True)
class Grouped:
    """Events of attempts, sorted by attempt, then by time.

    Positions are those in that order, -1 where an attempt has no such event. The dictionaries only
    remember what has been worked out already.
    """

    events: EventColumns  # as they came
    order: Index  # where each of the sorted ones stands there
    heads: Index  # of each attempt: its first event
    known: dict[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    kinds: dict[tuple[int, ...], Index] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """The number of events."""
        return len(self.order)

    @property
    def count(self) -> int:
        """The number of attempts."""
        return len(self.heads)

    @cached_property
    def group(self) -> Index:
        """The attempt of each event: 0, 1, ..."""
        return np.repeat(np.arange(self.count), np.diff(self.heads, append=self.size))

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return one field of all events; times as int64."""
        if name not in self.known:
            values = self.events[name]
            if name.endswith("_ns"):
                values = values.view(np.int64)
            self.known[name] = values[self.order]
        return self.known[name]

    def some(self, name: str) -> bool:
        """Tell whether any event has this field: most have few of them."""
        return self.events.some(name)

    def last(self, where: Index) -> Index:
        """Return each attempt's last event among those at `where`."""
        found = np.full(self.count, -1, np.intp)
        found[self.group[where]] = where  # the last of equals wins
        return found

    def first(self, where: Index) -> Index:
        """Return each attempt's first event among those at `where`."""
        return self.last(where[::-1])

    def of_kind(self, *kinds: int) -> Index:
        """Return the positions of all events of these types."""
        if kinds not in self.kinds:
            kind = self.column("type")
            found: Mask = kind == kinds[0]
            for other in kinds[1:]:
                found |= kind == other
            self.kinds[kinds] = np.flatnonzero(found)
        return self.kinds[kinds]

    def having(self, name: str) -> Index:
        """Return the positions of all events in which a field is not zero."""
        return np.flatnonzero(self.column(name)) if self.some(name) else _NOWHERE

    def value(self, name: str, at: Index) -> npt.NDArray[np.int64]:
        """Return a field at each of these positions as int64, 0 where the position is -1."""
        if not self.some(name):
            return np.zeros(len(at), np.int64)
        values = self.column(name).take(at, mode="wrap").astype(np.int64)  # -1: the last
        values[at < 0] = 0
        return values

    @cached_property
    def again(self) -> Mask:
        """The returns of later calls on a socket that was connecting already."""
        again: Mask = (self.column("flags") & Flag.AGAIN) != 0
        again &= self.column("type") == EventType.RETURN
        return again

    @cached_property
    def untracked(self) -> Mask:
        """The attempts that the kernel had no room to follow: only the call's result is known."""
        return self._any((self.column("flags") & Flag.UNTRACKED) != 0)

    @cached_property
    def lone(self) -> Mask:
        """The attempts of which there is nothing but a call's result, though it had a socket."""
        other = (self.column("type") != EventType.RETURN) | (self.column("start_ns") == 0)
        return ~self._any(other)

    def _any(self, events: Mask) -> Mask:
        # The attempts of which one of the events is there.
        found = np.zeros(self.count, np.bool_)
        found[self.group[events]] = True
        return found

    @cached_property
    def replaced(self) -> Mask:
        """The attempts whose struct sock a later one uses: their END was lost."""
        sock, start = self.column("sock")[self.heads], self.column("start_ns")[self.heads]
        found = np.zeros(self.count, np.bool_)
        found[:-1] = (sock[1:] == sock[:-1]) & (sock[1:] != 0) & (start[:-1] != 0)
        return found

    @cached_property
    def following_ns(self) -> Times:
        """When the attempt that comes next in the order was first heard of."""
        return np.roll(self.column("time_ns")[self.heads], -1)

    def of(self, attempts: Mask) -> Events:
        """Return the events of some attempts as rows, in the order in which they came."""
        return self.events.rows(np.sort(self.order[attempts[self.group]]))


def grouped(events: EventColumns) -> Grouped:
    """Sort events into attempts."""
    start, time = events["start_ns"], events["time_ns"]
    sock = events["sock"]
    # A failed call without a socket is an attempt of its own: its call is its start.
    alone = np.flatnonzero(start == 0)
    if len(alone):
        start, sock = start.copy(), sock.copy()
        start[alone], sock[alone] = time[alone], events["tid"][alone]
    order = _quickly(sock, start, time)
    if order is None or not _is_sorted(events, order, sock, start):
        # Type and error only settle ties: what came at one instant has no order of its own.
        order = np.lexsort((events["error"], events["type"], time, start, sock))
    start, sock = start[order], sock[order]
    new = np.ones(len(events), np.bool_)
    new[1:] = (start[1:] != start[:-1]) | (sock[1:] != sock[:-1])
    return Grouped(events, order, np.flatnonzero(new))


# By socket, then by time: nearly always that sorts by start as well, and ties are rare. A socket
# and a place in time are one number then, which sorts twenty times as fast as five columns.
def _quickly(sock: npt.NDArray[Any], start: npt.NDArray[Any], time: Times) -> Index | None:
    number = len(sock)
    if not number:
        return np.empty(0, np.intp)
    by_time = None if (time[1:] >= time[:-1]).all() else np.argsort(time, kind="stable")
    bits = number.bit_length()
    high = sock >= _KERNEL
    if high.any():
        # Threads stand for sockets that there are not: below the lowest socket.
        sock = np.where(high, sock - (sock[high].min() - _KERNEL), sock)
    if int(sock.max()).bit_length() + bits > 64:
        return None
    key = sock if by_time is None else sock[by_time]
    key = (key << np.uint64(bits)) | np.arange(number, dtype=np.uint64)
    order = (np.sort(key) & np.uint64((1 << bits) - 1)).astype(np.intp)
    return order if by_time is None else by_time[order]


def _is_sorted(
    events: EventColumns, order: Index, sock: npt.NDArray[Any], start: npt.NDArray[Any]
) -> bool:
    sock, start, time = sock[order], start[order], events["time_ns"][order]
    same = sock[1:] == sock[:-1]
    if (same & (start[1:] < start[:-1])).any():
        return False
    tied = np.flatnonzero(same & (start[1:] == start[:-1]) & (time[1:] == time[:-1]))
    first, second = (
        events["type"][rows].astype(np.int64) << 32 | events["error"][rows].astype(np.int64) + _HALF
        for rows in (order[tied], order[tied + 1])
    )
    return bool((first <= second).all())


def without_orphans(groups: Grouped) -> Grouped:
    """Return them without what came before the attempt it belongs to.

    That is a later call or question of an attempt whose row is finished, or whose beginning was
    lost: alone it would be taken for an attempt of its own.
    """
    sequel = groups.again | (groups.column("type") == EventType.ERROR)
    if not sequel.any():
        return groups
    own = groups.first(np.flatnonzero(~sequel))
    begun_ns = np.where(own >= 0, groups.column("time_ns")[own], NEVER)
    early = sequel & (groups.column("time_ns") < begun_ns[groups.group])
    return _kept(groups, ~early) if early.any() else groups


def _kept(groups: Grouped, mask: Mask) -> Grouped:
    heads = np.flatnonzero(np.diff(groups.group[mask], prepend=-1))
    return Grouped(groups.events, groups.order[mask], heads)
