"""Who has most time, out of more names than anyone keeps: the largest, and how far off they may be.

A tally keeps `MOST` names. Of one that it let go it remembers only how much that can have had at
most (`floor_ns`), so that a name which comes back is known to lack no more than that: the true
time of a name that is listed lies between `total_ns` and `total_ns + over_ns`, that of one that is
not is at most `floor_ns`. This holds after any merging, in any order (Misra-Gries summaries).
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

MOST = 256
"""So many names a tally keeps."""


@dataclass(frozen=True)
class Entry:
    """What was counted under one name; times are ns, summed over attempts."""

    attempts: int = 0
    failed: int = 0  # of these, those that were not established
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
    """The names with most `total_ns`, at most `MOST`."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    floor_ns: int = 0  # no name that is not listed has more total time; 0: all are listed

    def ranked(self) -> list[tuple[str, Entry]]:
        """Return names and entries, most total time first; equal ones by name."""
        return sorted(self.entries.items(), key=lambda item: (-item[1].total_ns, item[0]))

    def of_host(self, number: int) -> "Tally":
        """Return the tally with every name marked as seen on host `number`."""
        bit = 1 << number
        marked = {name: replace(entry, hosts=bit) for name, entry in self.entries.items()}
        return replace(self, entries=marked)


def tally(counted: Iterable[tuple[str, Entry]], most: int = MOST) -> Tally:
    """Return the tally of names and entries; a name that comes again is added up."""
    entries: dict[str, Entry] = {}
    for name, entry in counted:
        entries[name] = entries[name].plus(entry) if name in entries else entry
    return _cut(entries, 0, most)


def merged(one: Tally, other: Tally, most: int = MOST) -> Tally:
    """Return both tallies together."""
    entries = dict(one.entries)
    for name, entry in other.entries.items():
        before = entries.get(name, Entry(over_ns=one.floor_ns))
        entries[name] = before.plus(entry)
    for name in one.entries.keys() - other.entries.keys():
        entries[name] = replace(entries[name], over_ns=entries[name].over_ns + other.floor_ns)
    return _cut(entries, one.floor_ns + other.floor_ns, most)


def _cut(entries: dict[str, Entry], floor_ns: int, most: int) -> Tally:
    if len(entries) <= most:
        return Tally(entries, floor_ns)
    # by the name where times are equal, so that the order of merging has no say
    kept = heapq.nsmallest(most, entries, key=lambda name: (-entries[name].total_ns, name))
    gone = entries.keys() - set(kept)
    highest = max(entries[name].total_ns + entries[name].over_ns for name in gone)
    return Tally({name: entries[name] for name in kept}, max(floor_ns, highest))
