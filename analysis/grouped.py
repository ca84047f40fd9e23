"""Events sorted into the attempts they tell of: an attempt's first or last event of some kind.

The identity of an attempt is its struct sock and when that entered SYN_SENT. What is asked of
every event is copied into columns, once: in rows of 150 bytes each look costs a line of cache.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from porttrace.analysis.rows import select, take
from porttrace.tracer.event import Events, EventType, Flag

Index = npt.NDArray[np.intp]
Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Grouped:
    """Events of attempts; positions are those in `events`, -1 where an attempt has no such event.

    The dictionary only remembers what has been copied already.
    """

    events: Events  # sorted by attempt, then by time
    order: Index  # where each of them stood before
    heads: Index  # of each attempt: its first event
    known: dict[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)

    @property
    def count(self) -> int:
        """The number of attempts."""
        return len(self.heads)

    @cached_property
    def group(self) -> Index:
        """The attempt of each event: 0, 1, ..."""
        return np.repeat(np.arange(self.count), np.diff(self.heads, append=len(self.events)))

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return one field of all events; times as int64."""
        if name not in self.known:
            values = self.events[name]
            signed = np.int64 if name.endswith("_ns") else values.dtype
            self.known[name] = values.astype(signed)
        return self.known[name]

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
        kind = self.column("type")
        found: Mask = kind == kinds[0]
        for other in kinds[1:]:
            found |= kind == other
        return np.flatnonzero(found)

    def value(self, name: str, at: Index) -> npt.NDArray[np.int64]:
        """Return a field at each of these positions as int64, 0 where the position is -1."""
        values = np.zeros(len(at), np.int64)
        there = np.flatnonzero(at >= 0)
        values[there] = self.column(name)[at[there]]
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
        flagged = np.flatnonzero((self.column("flags") & Flag.UNTRACKED) != 0)
        return self.first(flagged) >= 0

    @cached_property
    def lone(self) -> Mask:
        """The attempts of which there is nothing but a call's result, though it had a socket."""
        other = (self.column("type") != EventType.RETURN) | (self.column("start_ns") == 0)
        return self.first(np.flatnonzero(other)) < 0

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

    def of(self, attempts: Mask, events: Events) -> Events:
        """Return the events of some attempts as they stood in `events`, before they were sorted."""
        chosen = np.zeros(len(events), np.bool_)
        chosen[self.order] = attempts[self.group]
        return select(events, chosen)


def grouped(events: Events) -> Grouped:
    """Sort events into attempts."""
    start, time = events["start_ns"].copy(), events["time_ns"]
    # A failed call without a socket is an attempt of its own: its call is its start.
    alone = np.flatnonzero(start == 0)
    sock = events["sock"].copy()
    start[alone], sock[alone] = time[alone], events["tid"][alone]
    # Type and error only settle ties: what came at one instant has no order of its own.
    order = np.lexsort((events["error"], events["type"], time, start, sock))
    start, sock = start[order], sock[order]
    new = np.ones(len(events), np.bool_)
    new[1:] = (start[1:] != start[:-1]) | (sock[1:] != sock[:-1])
    return Grouped(take(events, order), order, np.flatnonzero(new))


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
    group = groups.group[mask]
    heads = np.flatnonzero(np.diff(group, prepend=-1))
    return Grouped(select(groups.events, mask), groups.order[mask], heads)
