"""Whole simulated worlds: every throttle is found out, and nothing else is taken for one."""

import random
from dataclasses import replace

import numpy as np
import pytest

from porttrace.analysis.findings.serialized import serialized_connects
from porttrace.analysis.model import Finding, Loss, Outcome, Trace

from . import simulate
from .controls import CONTROLS, Control, shorten
from .simulate import Client, Throttle
from .workloads import crowd

SEEDS = 14


def world(place: str, slots: int, scope: str, seed: int) -> Trace:
    """Return a busy world behind a throttle with `slots` slots per `scope`."""
    rng = random.Random(seed)
    threads = 2 * slots + 3 if scope == "process" else slots + 3
    service_ms = 120 * slots if scope == "host" else 60 * max(1, slots // 2)
    clients = crowd(rng, 4, threads, 12 if slots < 10 else 8, service_ms=service_ms)
    if scope == "thread":
        # Only a thread that does not block can have several attempts open.
        clients = [
            replace(c, blocking=False, think_ms=c.service_ms / slots, rounds=30)
            for c in clients
            if c.outcome == Outcome.established
        ]
    lag_ms = rng.choice([(0.05, 1.0), (0.05, 1.0), (1.0, 5.0)])
    trace = simulate.throttled(clients, Throttle(slots, scope, place, lag_ms), seed)
    return simulate.preloaded(trace) if place == "user" else trace


@pytest.mark.parametrize("scope", ["thread", "destination", "process", "user", "host"])
@pytest.mark.parametrize("slots", [1, 2, 3, 10])
@pytest.mark.parametrize("place", ["gate", "connect", "user"])
def test_slots_scope_and_place_are_inferred(place: str, slots: int, scope: str) -> None:
    wrong = []
    for seed in range(3):
        found = serialized_connects(world(place, slots, scope, seed), ())
        right = [(f.slots, f.scope, f.place) == (slots, scope, place) for f in found]
        if not right or not all(right):
            wrong.append((seed, [(f.slots, f.scope, f.place) for f in found]))
    assert not wrong


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.__name__)
def test_nothing_else_is_called_throttled(control: Control) -> None:
    called = [seed for seed in range(SEEDS) if serialized_connects(control(seed), ())]
    assert not called


def test_there_are_enough_controls() -> None:
    assert len(CONTROLS) * SEEDS >= 300


def seed_case(victims: int = 1) -> Trace:
    """Return the two-thread program: one attempt to a dead port, then some to a healthy one."""
    dead = Client(
        12, 13, "192.0.2.66:9100", service_ms=6000, outcome=Outcome.timed_out, rounds=1,
        steady=True, first_ms=1,
    )  # fmt: skip
    healthy = [
        Client(12, 14 + i, service_ms=1, rounds=1, steady=True, first_ms=500 + 300 * i)
        for i in range(victims)
    ]
    return simulate.throttled([dead, *healthy], Throttle(1), seed=1)


def only(trace: Trace) -> Finding:
    """Return the one finding of a trace."""
    (finding,) = serialized_connects(trace, ())
    return finding


def test_two_attempts_are_likely_never_firm() -> None:
    finding = only(seed_case())
    assert finding.confidence == 0.7
    assert (finding.slots, finding.scope, finding.place) == (1, "process", "gate")
    assert [v.destination for v in finding.victims] == ["192.0.2.2:389"]
    assert [b.destination for b in finding.blockers] == ["192.0.2.66:9100"]
    assert finding.severity == "critical"


def test_the_summary_reads_as_a_sentence() -> None:
    assert only(seed_case(victims=2)).summary == (
        "Process p12 (pid 12) can, it seems, only have 1 TCP connect attempt open at a time."
        " Its longest blocking attempt to 192.0.2.66:9100 (thread t13) got no answer for 6.0 s;"
        " meanwhile 2 other connects were stopped before the kernel started them (gate):"
        " the worst, to 192.0.2.2:389, waited 5.5 s and then connected in 1 ms."
    )


def test_many_handoffs_are_firm() -> None:
    found = serialized_connects(world("gate", 1, "user", 1), ())
    assert len(found) == 2
    assert all(f.confidence >= 0.8 for f in found)
    assert all(f.evidence["p_value"] < 1e-4 for f in found)  # type: ignore[operator]


def test_a_victim_that_still_waits_gives_a_likely_verdict() -> None:
    trace = seed_case()
    early = shorten(trace, trace.start_ns + 1_200 * simulate.MS)
    assert serialized_connects(early, ()) == []
    finding = only(shorten(trace, trace.start_ns + 3_000 * simulate.MS))
    assert finding.confidence == 0.6
    assert finding.victims[0].outcome == "pending"
    assert "for 2.5 s so far" in finding.summary and "If it goes on" in finding.summary


def test_loss_weakens_and_never_makes() -> None:
    trace = world("gate", 1, "host", 2)
    lossy = replace(trace, losses=(Loss(trace.start_ns, trace.end_ns, 0, 5),))
    assert only(trace).confidence > 0.8
    assert only(lossy).confidence == 0.75
    control = CONTROLS[0](1)
    assert not serialized_connects(replace(control, losses=lossy.losses), ())


def test_turns_in_user_space_need_a_library_to_be_a_throttle() -> None:
    trace = world("user", 1, "process", 3)
    found = serialized_connects(trace, ())
    assert found
    assert all(f.confidence < 0.8 for f in found)
    bare = {pid: replace(p, preloads=()) for pid, p in trace.processes.items()}
    assert not serialized_connects(replace(trace, processes=bare), ())


def test_one_process_alone_is_not_called_a_host() -> None:
    clients = crowd(random.Random(1), 1, 6, 12)
    finding = only(simulate.throttled(clients, Throttle(1, "host"), 1))
    assert finding.scope == "process"
    same = {s["scope"] for s in finding.evidence["scopes"] if s["verdict"] == "same"}  # type: ignore[attr-defined]
    assert same == {"user", "cgroup", "netns", "host"}


def test_the_order_of_rows_has_no_say() -> None:
    trace = world("gate", 2, "process", 5)
    order = np.random.default_rng(5).permutation(len(trace.attempts))
    shuffled = replace(trace, attempts=trace.attempts[order])
    assert serialized_connects(shuffled, ()) == serialized_connects(trace, ())


@pytest.mark.parametrize("scope", ["process", "user", "host"])
@pytest.mark.parametrize("slots", [2, 3])
def test_full_throttles_side_by_side_are_not_added_up(scope: str, slots: int) -> None:
    # All are full all the time, and notice an end late: the sum of their slots fits as well.
    for seed in range(6):
        rng = random.Random(seed)
        clients = crowd(rng, 4, 2 * slots + 4, 10, service_ms=60, think_ms=5)
        late = Throttle(slots, scope, "gate", (1.0, 12.0))
        found = serialized_connects(simulate.throttled(clients, late, seed), ())
        assert found and {(f.scope, f.slots) for f in found} == {(scope, slots)}


def test_where_many_events_are_lost_nothing_is_told_that_needs_counting() -> None:
    for slots in (1, 2):
        trace = world("gate", slots, "process", 2)
        lost = Loss(trace.start_ns, trace.end_ns, 0, len(trace.attempts) // 4)
        found = serialized_connects(replace(trace, losses=(lost,)), ())
        assert {f.slots for f in found} == ({1} if slots == 1 else set())
        few = serialized_connects(replace(trace, losses=(replace(lost, count=3),)), ())
        assert {f.slots for f in few} == {slots}


def test_ends_that_nobody_knows_tell_of_losses_that_nobody_counted() -> None:
    for slots, told in ((1, {1}), (2, set[int]())):
        trace = world("gate", slots, "process", 2)
        attempts = trace.rows.copy()
        attempts["outcome"][::20] = Outcome.unknown
        found = serialized_connects(replace(trace, attempts=attempts), ())
        assert {f.slots for f in found} <= told


def test_moments_of_a_busy_machine_do_not_hide_who_is_counted() -> None:
    # A throttle by thread; other calls of the process are held for 12 ms now and then by chance.
    trace = world("gate", 2, "thread", 1)
    attempts = trace.rows.copy()
    free = np.flatnonzero(attempts["gate_ns"] == 0)[::6]
    attempts["gate_ns"][free] = attempts["call_ns"][free] - 12 * simulate.MS
    found = serialized_connects(replace(trace, attempts=attempts), ())
    assert {(f.scope, f.slots) for f in found} == {("thread", 2)}
