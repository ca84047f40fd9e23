"""Synthetic attempts from simulated queues: throttles of any slots, scope and place, and controls.

A `Client` is a thread that connects again and again. A discrete-event loop lets each of its
attempts through a throttle (or past none) and writes the marks that the tracer would have seen.
"""

import heapq
import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from porttrace.analysis.model import ATTEMPT, Attempts, Outcome, Process, Trace

MS = 1_000_000
S = 1_000_000_000
START_NS = 1_000 * S


@dataclass(frozen=True)
class Client:
    """A thread that connects `rounds` times; it thinks, connects, waits for it, and thinks again.

    A client that does not block has its connects spread by its thinking time alone.
    """

    pid: int
    tid: int
    destination: str = "192.0.2.2:389"
    uid: int = 1000
    cgroup: int = 77
    think_ms: float = 50.0
    service_ms: float = 20.0
    outcome: Outcome = Outcome.established
    rounds: int = 10
    blocking: bool = True
    steady: bool = False  # services of one length, not exponential
    first_ms: float | None = None


@dataclass
class _Call:
    client: Client
    asked: int
    service: int
    released: int = 0
    ended: int = 0


Key = Callable[[Client], Hashable]
KEYS: dict[str, Key] = {
    "thread": lambda c: c.tid,
    "destination": lambda c: c.destination,
    "process": lambda c: c.pid,
    "user": lambda c: c.uid,
    "cgroup": lambda c: c.cgroup,
    "host": lambda c: 0,
}


@dataclass(frozen=True)
class Throttle:
    """Lets `slots` attempts of a scope go at once; it notices an end only after a lag."""

    slots: int
    scope: str = "process"
    place: str = "gate"
    lag_ms: tuple[float, float] = (0.05, 1.0)


@dataclass
class _Line:
    open: int = 0
    waiting: deque[_Call] = field(default_factory=deque)


class Simulation:
    """The event loop; `delay` replaces the throttle by a function (call, time) -> release time."""

    def __init__(
        self,
        clients: Sequence[Client],
        seed: int,
        throttle: Throttle | None = None,
        delay: Callable[[int], int] | None = None,
    ) -> None:
        self._random = random.Random(seed)
        self._throttle = throttle
        self._delay = delay
        self._events: list[tuple[int, int, str, _Call]] = []
        self._order = itertools.count()
        self._lines: dict[Hashable, _Line] = defaultdict(_Line)
        self._left = {client: client.rounds for client in clients}
        self.calls: list[_Call] = []
        for client in clients:
            self._next_round(client, START_NS)

    def run(self, until_ns: int = 10**18) -> list[_Call]:
        """Run until nobody has anything left to do, or until a time."""
        while self._events and self._events[0][0] <= until_ns:
            now, _, kind, call = heapq.heappop(self._events)
            getattr(self, "_" + kind)(now, call)
        return self.calls

    def _at(self, time: int, kind: str, call: _Call) -> None:
        heapq.heappush(self._events, (time, next(self._order), kind, call))

    def _next_round(self, client: Client, now: int) -> None:
        if self._left[client] == 0:
            return
        self._left[client] -= 1
        first = self._left[client] == client.rounds - 1
        think = self._random.expovariate(1 / (client.think_ms * MS))
        if first and client.first_ms is not None:
            think = client.first_ms * MS
        spread = 1.0 if client.steady else self._random.expovariate(1)
        service = int(max(0.05, client.service_ms * spread) * MS)
        self._at(now + int(think) + 1, "ask", _Call(client, now + int(think) + 1, service))

    def _ask(self, now: int, call: _Call) -> None:
        self.calls.append(call)
        if not call.client.blocking:
            self._next_round(call.client, now)
        if self._delay:
            self._at(self._delay(now), "release", call)
        elif self._throttle is None:
            self._at(now + 30_000, "release", call)
        else:
            self._line(call).waiting.append(call)
            self._serve(now, call)

    def _line(self, call: _Call) -> _Line:
        assert self._throttle is not None
        return self._lines[KEYS[self._throttle.scope](call.client)]

    def _serve(self, now: int, call: _Call) -> None:
        line = self._line(call)
        assert self._throttle is not None
        while line.waiting and line.open < self._throttle.slots:
            line.open += 1
            self._at(now + self._random.randint(20_000, 90_000), "release", line.waiting.popleft())

    def _release(self, now: int, call: _Call) -> None:
        call.released = now
        self._at(now + call.service, "end", call)

    def _end(self, now: int, call: _Call) -> None:
        call.ended = now
        if call.client.blocking:
            self._next_round(call.client, now + 40_000)
        if self._throttle is not None:
            low, high = self._throttle.lag_ms
            lag = int(self._random.uniform(low, high) * MS)
            self._at(now + lag, "free", call)

    def _free(self, now: int, call: _Call) -> None:
        self._line(call).open -= 1
        self._serve(now, call)


def packed(address: str) -> bytes:
    """Return a dotted IPv4 address as 16 bytes, mapped."""
    return b"\0" * 10 + b"\xff\xff" + bytes(int(part) for part in address.split("."))


def row(call_id: int, client: Client, marks: dict[str, int], outcome: Outcome) -> np.void:
    """Return one `ATTEMPT` row of `client` with these marks, ns."""
    address, port = client.destination.rsplit(":", 1)
    attempt: np.void = np.zeros(1, ATTEMPT)[0]
    attempt["attempt_id"], attempt["pid"], attempt["tid"] = call_id, client.pid, client.tid
    attempt["uid"], attempt["cgroup"], attempt["family"] = client.uid, client.cgroup, 2
    attempt["daddr"], attempt["dport"] = np.void(packed(address)), int(port)
    attempt["comm"], attempt["complete"] = f"t{client.tid}".encode(), True
    attempt["blocking"], attempt["outcome"] = client.blocking, outcome
    attempt["gate_stack"] = attempt["connect_stack"] = -1
    for mark, time in marks.items():
        attempt[mark] = time
    return attempt


def _marks(call: _Call, place: str, until_ns: int) -> dict[str, int]:
    begin, go, end = call.asked, call.released, call.ended
    marks = {"return_ns": end + 20_000, "end_ns": end}
    if place == "connect":
        marks |= {"call_ns": begin, "syn_ns": go}
    else:
        marks |= {"call_ns": go, "syn_ns": go + 9_000 if go else 0}
        waited = (go or until_ns) - begin > MS // 10
        marks |= {{"gate": "gate_ns", "user": "sleep_ns"}[place]: begin if waited else 0}
    if not call.client.blocking:
        marks["return_ns"] = go + 10_000
    return {mark: time if 0 < time <= until_ns else 0 for mark, time in marks.items()}


def trace_of(calls: Sequence[_Call], place: str = "gate", until_ns: int = 0) -> Trace:
    """Return the trace of these calls, cut off at `until_ns` if given."""
    last = max((max(c.ended, c.asked) for c in calls), default=START_NS)
    until_ns = until_ns or last + 10 * MS
    rows = []
    for number, call in enumerate(sorted(calls, key=lambda c: c.asked), 1):
        marks = _marks(call, place, until_ns)
        if place == "user" and not marks["call_ns"]:
            continue  # nothing of it has reached the kernel yet
        outcome = call.client.outcome if marks["end_ns"] else Outcome.pending
        rows.append(row(number, call.client, marks, outcome))
    attempts: Attempts = np.array(rows, ATTEMPT) if rows else np.empty(0, ATTEMPT)
    pids = {c.client.pid: c.client.uid for c in calls}
    processes = {p: Process(p, comm=f"p{p}", uid=uid, netns=9) for p, uid in pids.items()}
    return Trace(attempts, START_NS, until_ns, processes)


def throttled(clients: Sequence[Client], throttle: Throttle, seed: int) -> Trace:
    """Return the trace of `clients` behind a throttle."""
    return trace_of(Simulation(clients, seed, throttle).run(), throttle.place)


def delayed(clients: Sequence[Client], delay: Callable[[int], int], seed: int) -> Trace:
    """Return the trace of `clients` whose connects are delayed at the gate by a function."""
    return trace_of(Simulation(clients, seed, delay=delay).run())


def preloaded(trace: Trace) -> Trace:
    """Return the trace with a library in every process that defines connect()."""
    library = ("/opt/agent/libguard.so",)
    processes = {pid: replace(p, preloads=library) for pid, p in trace.processes.items()}
    return replace(trace, processes=processes)


def serial(rng: random.Random, pace_ms: float, jitter: float) -> Callable[[int], int]:
    """Return a supervisor that handles one call after the other, each in about `pace_ms`."""
    free_at = [0]

    def delay(now: int) -> int:
        work = pace_ms * MS * (1 + jitter * rng.uniform(-1, 1))
        free_at[0] = max(free_at[0], now) + int(work)
        return free_at[0]

    return delay


def starved(rng: random.Random, mean_ms: float, share: float) -> Callable[[int], int]:
    """Return a scheduler that lets some calls wait for a CPU, whatever else goes on."""

    def delay(now: int) -> int:
        late = rng.expovariate(1 / (mean_ms * MS)) if rng.random() < share else 0
        return now + 30_000 + int(late)

    return delay


def stopped(rng: random.Random, every_ms: float, for_ms: float) -> Callable[[int], int]:
    """Return a host that stands still again and again: all calls go on together, or in a burst."""
    step_ns = rng.choice([0, 200_000, 1_500_000])
    last = [0]

    def delay(now: int) -> int:
        phase = now % int(every_ms * MS)
        release = now + 30_000 if phase > for_ms * MS else now - phase + int(for_ms * MS)
        last[0] = max(release, last[0] + step_ns if last[0] >= release else release)
        return last[0]

    return delay


def bucket(rng: random.Random, pace_ms: float, burst: int) -> Callable[[int], int]:
    """Return a rate limit: releases spaced by `pace_ms` once a burst is used up."""
    credit: deque[int] = deque([0] * burst, maxlen=burst)
    last = [0]

    def delay(now: int) -> int:
        release = max(now + 30_000, credit[0] + int(pace_ms * MS * burst), last[0])
        release += rng.randint(0, 200_000)
        credit.append(release)
        last[0] = release
        return release

    return delay
