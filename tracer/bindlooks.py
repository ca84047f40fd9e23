"""A thread that looks into calls of bind(2) and listen(2) that failed, while the holder is there.

It has a small buffer of its own, which wakes it for every such call: neither reading nor writing
of events waits for it. What comes too fast is not looked up: the kernel wakes it for 320 calls a
second and CPU at most (BELLS_A_SPAN in bpf/bind.h), and it takes a third of one CPU at most. Calls
that fail alike within `ALIKE_S` share one look.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator

from porttrace.tracer import processes
from porttrace.tracer.asking import complete
from porttrace.tracer.bindfacts import Facts, Failure, look_into
from porttrace.tracer.containers import Container
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.event import Events
from porttrace.tracer.facts import Holder, Looked
from porttrace.tracer.perfbuffer import PerfBuffer

ALIKE_S = 0.25
MOST_KEYS = 64
"""So many calls at most are answered by one look; the row of another says "not looked up"."""
MOST_KINDS = 16
"""So many different calls at most are looked into at once."""
_REST = 2.0  # times as long as a look took
_LEAST_REST_S = 0.002
_THOROUGH_UNDER = 4  # different calls at once; more are looked into quickly
_WAIT_MS = 10_000  # each call wakes it, and so does the end: a host without any has its rest
_REUSEPORT = 2  # OPTION_REUSEPORT
_V6ONLY = 4  # OPTION_V6ONLY

Moved = Callable[[int], int]
_Found = tuple[tuple[Holder, ...], Facts]


class Lookups:
    """Looks into what comes by `bell` until `stop`. `moved_ns` is as Probe.moved_ns."""

    def __init__(
        self,
        bell: PerfBuffer,
        name_of: Callable[[Container], str] | None = None,
        moved_ns: Moved = lambda _: 0,
    ) -> None:
        self._bell, self._name_of, self._moved_ns = bell, name_of, moved_ns
        self._done: list[Looked] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._last: dict[Failure, tuple[float, _Found]] = {}
        self._thread = threading.Thread(target=self._run, name="binds", daemon=True)
        self._thread.start()

    def taken(self) -> tuple[Looked, ...]:
        """Return what was found since the last call."""
        with self._lock:
            done, self._done = tuple(self._done), []
        return done

    def stop(self) -> None:
        """Look into what is there, end the thread and close the buffer. Safe to call twice."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._bell.wake()
        self._thread.join()
        self._bell.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if self._bell.wait(_WAIT_MS):
                self._round()
        self._round()

    def _round(self) -> None:
        kinds = alike(complete(self._bell.read()), self._moved_ns)
        for failure, keys in list(kinds.items())[:MOST_KINDS]:
            begun_s = time.monotonic()
            found = self._look(failure, thorough=len(kinds) < _THOROUGH_UNDER)
            after_s = (time.monotonic_ns() - keys[0][0]) / 1e9
            with self._lock:
                self._done.append(Looked(tuple(keys[:MOST_KEYS]), *found, after_s))
            self._stopped.wait(max(_LEAST_REST_S, (time.monotonic() - begun_s) * _REST))

    def _look(self, failure: Failure, thorough: bool) -> _Found:
        now_s = time.monotonic()
        self._last = {each: last for each, last in self._last.items() if now_s - last[0] < ALIKE_S}
        if failure not in self._last:
            found = self._looked(failure, thorough)
            self._last[failure] = time.monotonic(), found
        return self._last[failure][1]

    def _looked(self, failure: Failure, thorough: bool) -> _Found:
        # One look that fails is told, and never the end of all others.
        try:
            return look_into(failure, thorough, self._name_of)
        except (OSError, ValueError, PorttraceError) as error:
            why = f"looking who holds the port failed: {error}"
            return (
                Holder("unknown", failure.protocol, failure.address, failure.port, why=why),
            ), {}


def alike(events: Events, moved_ns: Moved) -> dict[Failure, list[tuple[int, int]]]:
    """Return the failed calls by what they have in common: time_ns and tid of each."""
    kinds: dict[Failure, list[tuple[int, int]]] = {}
    for failure, key in _failures(events, moved_ns):
        kinds.setdefault(failure, []).append(key)
    return kinds


def _failures(events: Events, moved_ns: Moved) -> Iterator[tuple[Failure, tuple[int, int]]]:
    for event in events:
        pid, tid = int(event["pid"]), int(event["tid"])
        failure = Failure(
            pid=pid,
            protocol={6: "tcp", 17: "udp"}.get(int(event["newstate"]), ""),
            address=address_of(event["saddr"].tobytes()),
            port=int(event["sport"]),
            errno=-int(event["error"]),
            v6only=bool(event["answer"] & _V6ONLY),
            reuseport=bool(event["answer"] & _REUSEPORT),
            netns=int(event["peer_pid"]) or _netns_now(pid, tid, int(event["call_ns"]), moved_ns),
        )
        yield failure, (int(event["time_ns"]), tid)


# Without BTF the kernel does not tell: then that of the thread, if it is still there and has not
# moved. What it was when its process was first seen, or that of all who are traced, would be a
# guess: an innocent in another namespace may have the port. Read first: it may move meanwhile.
def _netns_now(pid: int, tid: int, called_ns: int, moved_ns: Moved) -> int:
    number = processes.netns_of_thread(pid, tid)
    return number if moved_ns(tid) < called_ns else 0


def address_of(packed: bytes) -> str:
    """Return 16 address bytes as text, IPv4 unmapped: "0.0.0.0", "::"."""
    if packed[:12] == bytes(10) + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)
