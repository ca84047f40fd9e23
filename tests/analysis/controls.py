"""Worlds without a throttle that look a little like one: none may be called throttled."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from porttrace.analysis.model import ATTEMPT, Outcome, Trace

from . import simulate
from .simulate import MS, START_NS, Client, S
from .workloads import crowd

Control = Callable[[int], Trace]


def burst(seed: int) -> Trace:
    """Return any load without anything in the way."""
    rng = random.Random(seed)
    clients = crowd(rng, 3, rng.randint(2, 12), 20, think_ms=rng.choice([1, 10, 100]))
    return simulate.delayed(clients, lambda now: now + rng.randint(20_000, 90_000), seed)


def starvation(seed: int) -> Trace:
    """Return threads that now and then wait for a CPU at the gate."""
    rng = random.Random(seed)
    clients = crowd(rng, 2, rng.randint(2, 10), 15, think_ms=rng.choice([5, 50, 300]))
    delay = simulate.starved(rng, rng.choice([15, 60, 400, 1500]), rng.choice([0.05, 0.3, 1.0]))
    return simulate.delayed(clients, delay, seed)


def few_starved(seed: int) -> Trace:
    """Return one long attempt to a dead port, and a few others that are late for other reasons."""
    rng = random.Random(seed)
    dead = Client(
        12,
        13,
        "192.0.2.66:9100",
        service_ms=6000,
        outcome=Outcome.timed_out,
        rounds=1,
        steady=True,
        first_ms=1,
    )
    late = [
        Client(12, 14 + i, service_ms=5, rounds=1, first_ms=rng.uniform(1, 8000))
        for i in range(rng.randint(1, 4))
    ]
    return simulate.delayed(
        [dead, *late], simulate.starved(rng, rng.choice([500, 3000]), 0.9), seed
    )


def supervisor(seed: int) -> Trace:
    """Return a slow supervisor that handles one call after the other; connects are quick."""
    rng = random.Random(seed)
    clients = crowd(
        rng, 1, rng.randint(2, 12), 20, service_ms=rng.choice([0.05, 0.2, 1.0]), dead=0, think_ms=5
    )
    delay = simulate.serial(
        rng, rng.choice([0.5, 3, 12, 20, 35, 50, 200]), rng.choice([0, 0.1, 0.5])
    )
    return simulate.delayed(clients, delay, seed)


def busy_supervisor(seed: int) -> Trace:
    """Return a slow supervisor whose pace is close to the length of the connects."""
    rng = random.Random(seed)
    pace = rng.choice([3, 12, 30, 80, 200])
    clients = [
        replace(client, steady=rng.random() < 0.5)
        for client in crowd(
            rng,
            1,
            rng.randint(3, 12),
            20,
            service_ms=pace * rng.uniform(0.2, 2.5),
            dead=0,
            think_ms=5,
        )
    ]
    return simulate.delayed(clients, simulate.serial(rng, pace, rng.choice([0, 0.05, 0.3])), seed)


def even_supervisor(seed: int) -> Trace:
    """Return a slow supervisor in front of connects of one and the same length.

    Were that length a multiple of its pace, to one in a hundred, nothing could tell it from a
    queue: those are left out.
    """
    rng = random.Random(seed)
    pace = rng.choice([12, 30, 80, 200])
    service = pace * (rng.randint(0, 1) + rng.uniform(0.3, 0.99))
    clients = [
        Client(7, 70 + i, think_ms=2, service_ms=service, steady=True, rounds=20)
        for i in range(rng.randint(3, 10))
    ]
    return simulate.delayed(clients, simulate.serial(rng, pace, rng.choice([0, 0.02, 0.1])), seed)


def standstill(seed: int) -> Trace:
    """Return a process that is stopped again and again: what waited goes on in one burst."""
    rng = random.Random(seed)
    clients = crowd(rng, 1, rng.randint(3, 10), 15, service_ms=rng.choice([0.2, 5, 40]))
    delay = simulate.stopped(rng, rng.choice([500, 3000]), rng.choice([50, 400]))
    return simulate.delayed(clients, delay, seed)


def frozen(seed: int) -> Trace:
    """Return a process that is stopped with its timers: its timeouts, too, end when it goes on."""
    rng = random.Random(seed)
    resume = START_NS + 5 * S
    rows, number = [], 0
    for i in range(rng.randint(2, 6)):
        number += 1
        client = Client(7, 70 + i, "192.0.2.66:9100")
        call = START_NS + int(rng.uniform(0, 900) * MS)
        marks = {
            "call_ns": call,
            "syn_ns": call + 9_000,
            "end_ns": resume + rng.randint(0, 900_000),
        }
        rows.append(simulate.row(number, client, marks, Outcome.cancelled))
    for i in range(rng.randint(1, 6)):
        number += 1
        client = Client(7, 80 + i, "192.0.2.2:389")
        gate = START_NS + int(rng.uniform(900, 4900) * MS)
        call = resume + rng.randint(0, 900_000)
        marks = {"gate_ns": gate, "call_ns": call, "syn_ns": call + 9_000, "end_ns": call + MS}
        rows.append(simulate.row(number, client, marks, Outcome.established))
    return Trace(np.array(rows, ATTEMPT), START_NS, resume + S)


def tracer(seed: int) -> Trace:
    """Return a program under a tracer of system calls: small delays, seldom a large one."""
    rng = random.Random(seed)
    clients = crowd(rng, 1, rng.randint(2, 10), 30)

    def delay(now: int) -> int:
        return now + int((rng.uniform(0.1, 3) if rng.random() < 0.95 else rng.uniform(10, 40)) * MS)

    return simulate.delayed(clients, delay, seed)


def paced(seed: int) -> Trace:
    """Return a rate limit at the gate."""
    rng = random.Random(seed)
    clients = crowd(rng, 1, rng.randint(3, 10), 20, service_ms=rng.choice([0.2, 5, 50, 200]))
    delay = simulate.bucket(rng, rng.choice([11, 25, 100, 500]), rng.choice([1, 3, 10]))
    return simulate.delayed(clients, delay, seed)


def sequential(seed: int) -> Trace:
    """Return one thread that connects again and again, under a scheduler that is late at times."""
    rng = random.Random(seed)
    clients = [Client(9, 90, "192.0.2.9:80", service_ms=rng.choice([1, 50, 900]), rounds=40)]
    return simulate.delayed(clients, simulate.starved(rng, 30, 0.3), seed)


def lock(seed: int) -> Trace:
    """Return an application whose own lock lets its threads connect one at a time."""
    rng = random.Random(seed)
    clients = crowd(rng, 1, rng.randint(2, 8), 15)
    return simulate.throttled(clients, simulate.Throttle(rng.choice([1, 2]), place="user"), seed)


def idlers(seed: int) -> Trace:
    """Return workers that sleep until there is work, in a process with a harmless preload."""
    rng = random.Random(seed)
    clients = crowd(rng, 2, rng.randint(2, 8), 15, think_ms=rng.choice([20, 200]))
    delay = simulate.starved(rng, rng.choice([20, 300]), 0.9)
    calls = simulate.Simulation(clients, seed, delay=delay).run()
    return simulate.preloaded(simulate.trace_of(calls, "user"))


def cut(control: Control) -> Control:
    """Return the control with its recording ended somewhere in the middle."""

    def cut_off(seed: int) -> Trace:
        whole = control(seed)
        until = whole.start_ns + int((whole.end_ns - whole.start_ns) * random.Random(seed).random())
        return shorten(whole, until)

    cut_off.__name__ = f"cut_{control.__name__}"
    return cut_off


def shorten(whole: Trace, until_ns: int) -> Trace:
    """Return what of `whole` a recording that ended at `until_ns` would hold."""
    rows = whole.rows.copy()
    for mark in ("sleep_ns", "gate_ns", "call_ns", "syn_ns", "end_ns", "return_ns"):
        rows[mark][rows[mark] > until_ns] = 0
    rows["outcome"][rows["end_ns"] == 0] = Outcome.pending
    begun = (rows["gate_ns"] > 0) | (rows["call_ns"] > 0)
    return replace(whole, attempts=rows[begun], end_ns=until_ns)


WHOLE: tuple[Control, ...] = (
    burst, starvation, few_starved, supervisor, busy_supervisor, even_supervisor, standstill,
    frozen, tracer, paced, sequential, lock, idlers,
)  # fmt: skip
# A frozen process that is recorded no further than its standstill looks like a throttle whose slots
# are all taken: that is what "likely" is for.
CONTROLS: tuple[Control, ...] = WHOLE + tuple(cut(c) for c in WHOLE if c is not frozen)
