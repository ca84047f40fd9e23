"""Clients for the simulated queues: enough demand, some healthy and some dead destinations."""

import random

from porttrace.analysis.model import Outcome

from .simulate import Client


def crowd(
    rng: random.Random,
    processes: int,
    threads: int,
    rounds: int,
    *,
    service_ms: float = 30.0,
    think_ms: float = 20.0,
    dead: int = 1,
) -> list[Client]:
    """Return threads of several processes of two users; `dead` of each process's go nowhere."""
    clients = []
    for p in range(processes):
        for t in range(threads):
            lost = t < dead
            client = Client(
                pid=100 + p,
                tid=1000 + 100 * p + t,
                uid=1000 + p % 2,
                cgroup=70 + p,
                destination="192.0.2.66:9100" if lost else f"192.0.2.{2 + t % 3}:389",
                think_ms=think_ms * rng.uniform(0.5, 2),
                service_ms=service_ms * (10 if lost else rng.uniform(0.3, 2)),
                outcome=Outcome.timed_out if lost else Outcome.established,
                rounds=max(1, rounds // 4) if lost else rounds,
            )
            clients.append(client)
    return clients
