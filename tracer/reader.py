"""A thread that only reads: what analysis and printing take never makes events wait.

When its reader cannot keep up for long, it stops reading: the kernel then loses
events and counts them exactly, which memory running out would not.
"""

import threading
import time
from collections import deque

from porttrace.tracer.event import EVENT, Events, no_events, together
from porttrace.tracer.memory import most_waiting, spare_bytes
from porttrace.tracer.probe import Probe

ROUND_MS = 50


class Reader:
    """Reads rounds from the probe until `stop`."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._rounds: deque[tuple[int, Events]] = deque()
        self._bytes = 0
        self._round_ms = probe.options.round_ms
        self._most = most_waiting(spare_bytes(), probe.options.backlog_bytes)
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def take(self, timeout_ms: int) -> list[tuple[int, Events]]:
        """Return the rounds read since the last call, waiting at most `timeout_ms` for one.

        Each is (when its draining began, its events in buffer order); empty ones count.
        """
        self._ready.wait(timeout_ms / 1000)
        with self._lock:
            rounds = list(self._rounds)
            self._rounds.clear()
            self._bytes = 0
            self._ready.clear()
        return rounds

    def stop(self) -> None:
        """Read one last time and end the thread. Safe to call twice."""
        self._stopped.set()
        self._probe.wake()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if self._bytes > self._most:
                self._stopped.wait(self._round_ms / 1000)
            else:
                self._round(self._round_ms)
        self._round(0)

    def _round(self, timeout_ms: int) -> None:
        self._probe.wait(timeout_ms)
        started_ns = time.monotonic_ns()
        events = self._probe.read()
        with self._lock:
            self._rounds.append((started_ns, events))
            self._bytes += len(events) * EVENT.itemsize
            self._ready.set()


def joined(rounds: list[tuple[int, Events]]) -> tuple[int, Events]:
    """Return several rounds as one: the start of the last, and all events."""
    if not rounds:
        return 0, no_events()
    return rounds[-1][0], together([events for _, events in rounds])
