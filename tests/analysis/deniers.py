"""Worlds in which attempts fail at once: throttles that deny, and everything that only looks so."""

import errno
import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from porttrace.analysis.model import ATTEMPT, Host, Loss, Outcome, Process, Trace

from . import simulate
from .simulate import KEYS, MS, START_NS, Client

Rule = Callable[[Client, int], bool]
"""Tells whether an attempt of a client at a time (ns) is denied."""

_OUTCOMES = {
    errno.EPERM: Outcome.denied,
    errno.EACCES: Outcome.denied,
    errno.ECONNREFUSED: Outcome.refused,
    errno.EHOSTUNREACH: Outcome.unreachable,
    errno.EAGAIN: Outcome.failed,
}


@dataclass
class Slots:
    """Denies while `slots` attempts of a scope are open."""

    slots: int
    scope: str = "process"
    open: dict[Any, int] = field(default_factory=dict)

    def key(self, client: Client) -> Any:
        """Return whom the client counts with."""
        return KEYS[self.scope](client)

    def full(self, client: Client) -> bool:
        """Tell whether no slot is free for the client."""
        return self.open.get(self.key(client), 0) >= self.slots

    def take(self, client: Client, number: int) -> None:
        """Take a slot, or give one back with -1."""
        self.open[self.key(client)] = self.open.get(self.key(client), 0) + number


@dataclass(frozen=True)
class How:
    """How a denial looks: its errno, whether it comes behind the SYN, and how late."""

    errno: int = errno.EPERM
    sent: bool = False
    late_ns: int = 20_000


def world(
    clients: Sequence[Client],
    seed: int,
    slots: Slots | None = None,
    rule: Rule | None = None,
    how: How | None = None,
) -> Trace:
    """Return the trace of clients that think, connect, are let through or denied, and go on."""
    rng, how = random.Random(seed), how or How()
    order = itertools.count()
    queue: list[tuple[int, int, Client, bool]] = []
    left = {client: client.rounds for client in clients}
    rows: list[np.void] = []

    def think(client: Client, now: int) -> None:
        if left[client]:
            left[client] -= 1
            first = left[client] == client.rounds - 1 and client.first_ms is not None
            ms = (client.first_ms or 0) if first else rng.expovariate(1 / client.think_ms)
            heapq.heappush(queue, (now + 1 + int(ms * MS), next(order), client, True))

    for client in clients:
        think(client, START_NS)
    while queue:
        now, _, client, asks = heapq.heappop(queue)
        if not asks:
            if slots:
                slots.take(client, -1)
            continue
        denied = bool(slots and slots.full(client)) or bool(rule and rule(client, now))
        length = how.late_ns if denied else _service(rng, client)
        rows.append(_row(len(rows) + 1, client, now, length, how if denied else None))
        think(client, now + length + 30_000)
        if not denied:
            if slots:
                slots.take(client, 1)
            heapq.heappush(queue, (now + 9_000 + length, next(order), client, False))
    return _trace(rows, clients)


def _service(rng: random.Random, client: Client) -> int:
    spread = 1.0 if client.steady else rng.expovariate(1)
    return int(max(0.05, client.service_ms * spread) * MS)


def _row(number: int, client: Client, now: int, length: int, denied: How | None) -> np.void:
    marks = {"call_ns": now, "syn_ns": now + 9_000, "end_ns": now + 9_000 + length}
    marks["return_ns"] = marks["end_ns"] + 10_000
    if denied and not denied.sent:
        marks["syn_ns"] = 0
    outcome = _OUTCOMES[denied.errno] if denied else client.outcome
    row = simulate.row(number, client, marks, outcome)
    row["errno"] = denied.errno if denied else 0
    return row


def _trace(rows: list[np.void], clients: Sequence[Client]) -> Trace:
    attempts = np.array(rows, ATTEMPT)
    processes = {c.pid: Process(c.pid, comm=f"p{c.pid}", uid=c.uid, netns=9) for c in clients}
    end_ns = int(attempts["end_ns"].max()) + 10 * MS
    return Trace(attempts, START_NS, end_ns, processes, host=Host())


def agent_and_logins(
    pid: int = 7, logins: int = 3, rounds: int = 12, uid: int = 1000, live: int = 2
) -> list[Client]:
    """Return an agent that tries a dead server again and again, beside logins to live ones."""
    agent = Client(
        pid, pid * 100, "192.0.2.66:9100", uid, pid, think_ms=900, service_ms=3000, steady=True,
        outcome=Outcome.cancelled, rounds=rounds,
    )  # fmt: skip
    login = replace(
        agent, think_ms=400, service_ms=2, steady=False, outcome=Outcome.established,
        rounds=8 * rounds,
    )  # fmt: skip
    others = [
        replace(login, tid=pid * 100 + i, destination=f"192.0.2.{2 + i % live}:389")
        for i in range(1, logins + 1)
    ]
    return [agent, *others]


def lossy(trace: Trace, seed: int, share: float = 0.1) -> Trace:
    """Return the trace as it would be with a share of its events lost at random.

    Each attempt has a START, an END and a RETURN; who lacks all of them is not there, and who
    lacks the END has an outcome that is not known.
    """
    rng = np.random.default_rng(seed)
    rows = trace.rows.copy()
    sent = rows["syn_ns"] > 0
    start, end, back = (rng.random(len(rows)) < share for _ in range(3))
    gone = np.where(sent, start & end & back, back)
    rows["complete"] = False
    no_end = sent & end
    rows["end_ns"][no_end] = 0
    rows["outcome"][no_end & back] = Outcome.unknown
    rows["return_ns"][back] = 0
    # The result of a blocking call that failed tells the outcome without the END.
    told = no_end & ~back & (rows["blocking"] == 1) & (rows["errno"] > 0)
    rows["outcome"][no_end & ~told] = Outcome.unknown
    rows["errno"][no_end & ~told] = 0
    lost = (Loss(trace.start_ns, trace.end_ns, 0, int(gone.sum()) + 1),)
    return replace(trace, attempts=rows[~gone], losses=lost)
