"""Once a second, in a thread of its own: what the targets' network namespaces say of shortage.

Nobody waits for it: the reader of the events only takes what is there. It reads and changes
nothing, enters each namespace in a thread that ends afterwards, and spends at most 1 % of a core,
less what it has saved: after more than that it rests a hundred times as long.
"""

import contextlib
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from porttrace.tracer import namespaces, processes, shortage
from porttrace.tracer.facts import Sample
from porttrace.tracer.sampled import Destination, Namespace

EVERY_S = 1.0
MOST_NAMESPACES = 16
_SHARE = 100  # rests so many times as long as it worked
_SAVED_S = 0.2  # of one core at most: the first search for an owner is costly, and soon wanted
_MOST_WANTED, _MOST_WAITING, _MOST_PIDS = 64, 600, 8
_NEIGHBOURS_AGAIN_S = 30.0
_TIGHT = 4  # times as often where ports are nearly gone, or a queue is full
_HURRY_S = 0.1  # between samples at least
_T = TypeVar("_T")


class Sampler:
    """Samples the namespaces that `see` named, from `start` to `stop`; `taken` is what is new."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._places: dict[int, deque[int]] = {}  # netns to processes in it, the latest last
        self._wanted: dict[Destination, int] = {}  # that lost SYNs, and the netns of who sent them
        self._states: dict[int, Namespace] = {}
        self._neighbours = _Neighbours()
        self._waiting: deque[Sample] = deque(maxlen=_MOST_WAITING)
        self.left_out: set[int] = set()  # namespaces beyond `MOST_NAMESPACES`
        self.worked_s = 0.0  # seconds of one core
        self.error: Exception | None = None  # what ended it before its time
        self._stop, self._wake = threading.Event(), threading.Event()
        self._anew = threading.Event()
        self._done, self._left = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin; the first samples are taken at once."""
        self._thread.start()

    def finish(self) -> None:
        """Take one last sample of each namespace, and wait for it."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._done.wait()

    def stop(self) -> None:
        """Do as `finish`, and end the thread; that is an event to whoever traces ourselves."""
        self.finish()
        self._left.set()
        if self._thread.is_alive():
            self._thread.join()

    def see(self, pid: int, netns: int) -> None:
        """Note that a target is in a network namespace (inode; 0: not known)."""
        with self._lock:
            if netns and (netns in self._places or len(self._places) < MOST_NAMESPACES):
                self._places.setdefault(netns, deque(maxlen=_MOST_PIDS)).append(pid)
            elif netns:
                self.left_out.add(netns)

    def want(self, lost: Iterable[Destination], netns: int) -> None:
        """Note destinations whose SYNs had to be sent again: are they on this host?"""
        with self._lock:
            for destination in lost:
                if len(self._wanted) < _MOST_WANTED:
                    self._wanted.setdefault(destination, netns)

    def hurry(self) -> None:
        """Ask for samples before their time: something failed that they may explain."""
        self._wake.set()

    def renew(self) -> None:
        """Begin anew: forget what was asked and found so far, which is bounded and grows old."""
        self._anew.set()

    def taken(self) -> tuple[Sample, ...]:
        """Return the samples that were taken since the last call, in order of time."""
        found = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._waiting.popleft())
        return tuple(found)

    # -- the sampler's thread ----------------------------------------------------

    def _run(self) -> None:
        try:
            self._go_round()
        except Exception as error:
            self.error = error
        self._done.set()
        self._left.wait()

    def _go_round(self) -> None:
        saved_s, at_s = _SAVED_S, time.monotonic()
        while True:
            before_s, last = self.worked_s, self._stop.is_set()
            self._round(last)
            if last:
                return
            now_s = time.monotonic()
            saved_s = min(_SAVED_S, saved_s + (now_s - at_s) / _SHARE)
            saved_s -= self.worked_s - before_s
            at_s, rest_s = now_s, max(0.0, -saved_s * _SHARE)
            self._stop.wait(max(_HURRY_S, rest_s))
            tight = any(state.is_tight() for state in self._states.values())
            every_s = self._every_s / _TIGHT if tight else self._every_s
            self._wake.wait(max(0.0, every_s - max(_HURRY_S, rest_s)))
            self._wake.clear()

    def _round(self, last: bool) -> None:
        begun_s = time.thread_time()
        with self._lock:
            if self._anew.is_set():
                self._anew.clear()
                self._states, self._neighbours = {}, _Neighbours()
                self._wanted.clear()
                self.left_out.clear()
            wanted, places = dict(self._wanted), {n: [*pids] for n, pids in self._places.items()}
        for netns, pids in places.items():
            self._sample(netns, pids, wanted, last)
        found = {name for state in self._states.values() for name in state.serves}
        self.worked_s += self._neighbours.look(wanted, set(places), found)
        for netns, pid in list(self._neighbours.places.items()):
            self._sample(netns, [pid], wanted, last)
        self.worked_s += time.thread_time() - begun_s

    def _sample(
        self, netns: int, pids: list[int], wanted: Mapping[Destination, int], last: bool
    ) -> None:
        state = self._states.setdefault(netns, Namespace(netns))
        for pid in reversed(pids):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                look = functools.partial(state.look, pid, wanted, last)
                sample, worked_s = in_netns(pid, netns, look)
                self.worked_s += worked_s
                if sample:
                    self._waiting.append(sample)
                return
        self._forget(netns, pids)

    # None of them is there, or none in this namespace; who has come meanwhile stays.
    def _forget(self, netns: int, pids: list[int]) -> None:
        self._neighbours.places.pop(netns, None)
        with self._lock:
            left = [pid for pid in self._places.pop(netns, ()) if pid not in pids]
            if left:
                self._places[netns] = deque(left, maxlen=_MOST_PIDS)


class _Neighbours:
    # Namespaces of nobody that is traced, where a destination of the targets is.
    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self._asked: set[Destination] = set()
        self._asked_s = -_NEIGHBOURS_AGAIN_S

    def look(
        self, wanted: Mapping[Destination, int], known: set[int], found: set[Destination]
    ) -> float:
        """Search namespaces that are not `known` for those `wanted` and not `found`, now and then.

        Returns the seconds of one core that it took in other threads.
        """
        new = set(wanted) - found - self._asked
        if not new or time.monotonic() - self._asked_s < _NEIGHBOURS_AGAIN_S / 10:
            return 0.0
        self._asked_s, worked_s = time.monotonic(), 0.0
        self._asked |= new
        others = {
            n: pid for pid in processes.all_pids() if (n := processes.netns(pid)) not in known
        }
        for netns, pid in list(others.items())[:MOST_NAMESPACES]:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                here, took_s = in_netns(pid, netns, lambda: any(map(is_beside, new)))
                worked_s += took_s
                if here:
                    self.places[netns] = pid
        return worked_s


def is_beside(destination: Destination) -> bool:
    """Return whether the calling thread's namespace has that address, and listens there."""
    return not shortage.is_loopback(destination[0]) and shortage.serves(*destination)


def in_netns(pid: int, netns: int, work: Callable[[], _T]) -> tuple[_T, float]:
    """Run `work` in the network namespace of `pid`, which must be `netns` (inode).

    Returns what it returned, and the seconds of one core that it took in another thread. Raises
    OSError when the process is gone or elsewhere, or its namespace cannot be entered.
    """

    def measured() -> tuple[_T, float]:
        begun_s = time.thread_time()
        return work(), time.thread_time() - begun_s

    with open(f"/proc/{pid}/ns/net", "rb") as handle:
        if os.fstat(handle.fileno()).st_ino != netns:
            raise ProcessLookupError(f"process {pid} has moved to another network namespace")
        # Into our own one we need no privilege, and no thread.
        if netns == processes.netns(threading.get_native_id()):
            return work(), 0.0
        return namespaces.inside(handle.fileno(), measured)
