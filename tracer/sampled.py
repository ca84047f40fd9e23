"""One network namespace as it is sampled again and again: only what tells something is told."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path

from porttrace.tracer import netplace, processes, shortage, sockets
from porttrace.tracer.facts import Listener, Sample, Usage
from porttrace.tracer.shortage import Listening

CROWDED = 0.5
"""Of the local ports: while there are fewer sockets, no destination can be short of them."""

_TIGHT = 0.7  # of the local ports, towards one destination
_ANEW_NS = 10_000_000_000  # small changes are told so often
_TELLING = 0.1  # a change of a number by so much is told at once
_OWNER_AGAIN_S = 30.0
_MOST_OWNERS = 256
_COUNT_SHARE = 0.005  # of a core, for counting sockets

Destination = tuple[bytes, int]
"""16 bytes, IPv4 mapped, and a port."""


class Namespace:
    """Looks at the namespace that the calling thread is in, and compares it with before."""

    def __init__(self, netns: int) -> None:
        self._netns = netns
        self._name = netplace.name_of(netns)
        self._is_own = netns == processes.netns(os.getpid())
        self.serves: set[Destination] = set()
        self._asked: set[Destination] = set()
        self._told: Sample | None = None
        self._usage = Usage()
        self._count_after_s = 0.0
        self._owners: dict[int, tuple[int, str]] = {}
        self._owners_s: dict[int, float] = {}

    def look(self, pid: int, wanted: Mapping[Destination, int], last: bool) -> Sample | None:
        """Return a sample, all of it, when it tells something new; always at the `last` look.

        `pid`: a process in the namespace. `wanted`: see `Sampler.want`.
        """
        self._ask(wanted)
        settings, sockets_ = shortage.settings(), shortage.sockets()
        first, end = shortage.port_range(settings)
        found, kept = shortage.listening(first, end)
        ports = frozenset(port for _, port in self.serves)
        sample = Sample(
            time_ns=time.monotonic_ns(),
            netns=self._netns,
            pid=pid,
            counters=shortage.counters(),
            sockets=sockets_,
            settings=settings,
            conntrack=shortage.conntrack(),
            listeners=tuple(self._owned(each) for each in shortage.told(found, ports)),
            usage=self._count(first, end, kept, sockets_),
            serves=tuple(sorted(shortage.endpoint(*each) for each in self.serves)),
            name=self._name,
            own=self._is_own,
        )
        if last or is_news(self._told, sample):
            self._told = sample
            return sample
        return None

    def is_tight(self) -> bool:
        """Tell whether a shortage was near at the last look: the next one should come soon."""
        told = self._told
        if told is None:
            return False
        first, last = shortage.port_range(told.settings or {})
        most = max((each.used for each in self._usage.groups), default=0)
        full = any(0 < each.limit <= each.queue for each in told.listeners or ())
        return full or most >= _TIGHT * (last - first + 1)

    def _ask(self, wanted: Mapping[Destination, int]) -> None:
        for destination in wanted.keys() - self._asked:
            self._asked.add(destination)
            near = wanted[destination] == self._netns or not shortage.is_loopback(destination[0])
            if near and shortage.serves(*destination):
                self.serves.add(destination)

    # Only where the ports can be short; and the costlier it was, the later again.
    def _count(self, first: int, last: int, kept: int, known: Mapping[str, int]) -> Usage:
        in_all = known.get("inuse", 0) + known.get("tw", 0)
        if not first or in_all < CROWDED * (last - first + 1):
            self._usage = Usage()
        elif time.monotonic() >= self._count_after_s:
            begun_s = time.thread_time()
            self._usage = shortage.usage(first, last, kept, in_all)
            took_s = time.thread_time() - begun_s
            self._count_after_s = time.monotonic() + took_s / _COUNT_SHARE
        return self._usage

    def _owned(self, each: Listening) -> Listener:
        if each.near() and each.inode not in self._owners:
            self._find_owner(each.inode)
        pid, comm = self._owners.get(each.inode, (0, ""))
        return dataclasses.replace(each.shown, pid=pid, comm=comm)

    # All processes are searched, so only when it matters, and seldom in vain.
    def _find_owner(self, inode: int) -> None:
        now_s = time.monotonic()
        if now_s < self._owners_s.get(inode, 0.0) or len(self._owners_s) >= _MOST_OWNERS:
            return
        self._owners_s[inode] = now_s + _OWNER_AGAIN_S
        with contextlib.suppress(OSError):
            pid = sockets.owners({inode}, frozenset()).get(inode, 0)
            if pid:
                comm = Path(f"/proc/{pid}/comm").read_text(errors="surrogateescape")
                self._owners[inode] = (pid, comm.rstrip("\n"))


def is_news(told: Sample | None, now: Sample) -> bool:
    """Tell whether a sample says something that the one told last did not.

    Numbers that never rest (sockets, entries of the connection tracking) by a tenth, or after 10 s.
    """
    if told is None:
        return True
    for name in ("counters", "settings", "listeners", "usage", "serves"):
        if getattr(told, name) != getattr(now, name):
            return True
    before, after = _moving(told), _moving(now)
    if _steps(told) != _steps(now) or before.keys() != after.keys():
        return True
    later = now.time_ns - told.time_ns >= _ANEW_NS
    if later:
        return before != after
    return any(abs(after[key] - before[key]) > max(8, _TELLING * before[key]) for key in after)


def _moving(sample: Sample) -> dict[str, int]:
    tracked = (sample.conntrack or {}).get("count", 0)
    return {**(sample.sockets or {}), "tracked": tracked}


def _steps(sample: Sample) -> dict[str, int]:
    return {key: value for key, value in (sample.conntrack or {}).items() if key != "count"}
