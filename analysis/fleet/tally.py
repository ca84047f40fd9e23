"""Who has most time, out of more names than anyone keeps: the largest, and how far off they may be.

A tally of one recording has `SENT` names. Of those it let go it says only how much each can have
had at most (`floor_ns`), so that a name which comes back is known to lack no more than that: the
true time of a name that is listed lies between `total_ns` and `total_ns + over_ns`, that of one
that is not is at most `floor_ns`. This holds of any number of tallies put together, in any order
(Misra-Gries summaries); as long as no more than `KEPT` names come, the order does not matter.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

SENT = 1_024
"""So many names the tally of one recording has."""
KEPT = 16_384
"""So many names are kept of all of them."""


@dataclass(frozen=True)
class Entry:
    """What was counted under one name; times are ns, summed over attempts."""

    attempts: int = 0
    failed: int = 0  # of these, those over without a connection
    held_ns: int = 0  # held on their hosts
    total_ns: int = 0  # from the first mark to the outcome
    over_ns: int = 0  # so much more total time it may have had while it was not listed
    hosts: int = 0  # bit n is set: host n has it

    def plus(self, other: "Entry") -> "Entry":
        """Return both together."""
        return Entry(
            self.attempts + other.attempts,
            self.failed + other.failed,
            self.held_ns + other.held_ns,
            self.total_ns + other.total_ns,
            self.over_ns + other.over_ns,
            self.hosts | other.hosts,
        )


@dataclass(frozen=True)
class Tally:
    """The names with most `total_ns`."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    floor_ns: int = 0  # no name that is not listed has more total time; 0: all are listed

    def ranked(self) -> list[tuple[str, Entry]]:
        """Return names and entries, most total time first; equal ones by name."""
        return sorted(self.entries.items(), key=lambda item: (-item[1].total_ns, item[0]))


def tally(counted: Iterable[tuple[str, Entry]], most: int = SENT) -> Tally:
    """Return the tally of names and entries; a name that comes again is added up."""
    entries: dict[str, Entry] = {}
    for name, entry in counted:
        entries[name] = entries[name].plus(entry) if name in entries else entry
    return _cut(entries, 0, most)


class Totals:
    """Tallies put together in place: adding one costs what that one has, not what is there."""

    def __init__(self, most: int = KEPT) -> None:
        self._most, self._floor_ns = most, 0
        # over_ns less _floor_ns: then a tally that does not list a name need not touch it.
        self._entries: dict[str, Entry] = {}

    def add(self, other: Tally, host: int = 0) -> None:
        """Add the tally of a recording of host number `host`."""
        self._floor_ns += other.floor_ns
        for name, entry in other.entries.items():
            over_ns = entry.over_ns - other.floor_ns
            more = replace(entry, over_ns=over_ns, hosts=entry.hosts | 1 << host)
            before = self._entries.get(name)
            self._entries[name] = before.plus(more) if before else more
        if len(self._entries) > 2 * self._most:
            self._keep(self.tally())

    def tally(self) -> Tally:
        """Return what there is now, at most the names to be kept."""
        entries = {
            name: replace(entry, over_ns=entry.over_ns + self._floor_ns)
            for name, entry in self._entries.items()
        }
        return _cut(entries, self._floor_ns, self._most)

    def _keep(self, whole: Tally) -> None:
        self._floor_ns = whole.floor_ns
        self._entries = {
            name: replace(entry, over_ns=entry.over_ns - whole.floor_ns)
            for name, entry in whole.entries.items()
        }


def _cut(entries: dict[str, Entry], floor_ns: int, most: int) -> Tally:
    if len(entries) <= most:
        return Tally(entries, floor_ns)
    # by the name where times are equal, so that the order of merging has no say
    kept = heapq.nsmallest(most, entries, key=lambda name: (-entries[name].total_ns, name))
    gone = entries.keys() - set(kept)
    highest = max(entries[name].total_ns + entries[name].over_ns for name in gone)
    return Tally({name: entries[name] for name in kept}, max(floor_ns, highest))
