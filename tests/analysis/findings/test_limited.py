"""Throttles that deny are found with slots, scope and place; failures of other kinds are not."""

import errno
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porttrace.analysis.concurrency import Ints
from porttrace.analysis.denials import hypergeometric_tail
from porttrace.analysis.findings import diagnose, limited
from porttrace.analysis.findings.limited import limited_connects
from porttrace.analysis.model import Attempts, Finding, Outcome, Trace

from ..deniers import How, Slots, agent_and_logins, lossy, world  # noqa: TID252
from ..simulate import MS, START_NS, Client, S  # noqa: TID252
from ..workloads import crowd  # noqa: TID252

Control = Callable[[int], Trace]
SEEDS = range(6)
REFUSED = How(errno.ECONNREFUSED, sent=True)


def verdicts(trace: Trace) -> list[tuple[int, str, str]]:
    return [(f.slots, f.scope, f.place) for f in limited_connects(trace, ()) if f.confidence >= 0.5]


def busy(slots: int, processes: int = 1) -> list[Client]:
    """Return enough demand for some slots: many threads, one of each process with a dead port."""
    rng = random.Random(slots)
    return crowd(rng, processes, 2 * slots + 3, 80, service_ms=40, think_ms=60)


@pytest.mark.parametrize("slots", [1, 2, 3, 10])
@pytest.mark.parametrize("scope", ["process", "user", "host"])
def test_slots_and_scope_are_inferred(slots: int, scope: str) -> None:
    for seed in SEEDS:
        number = {"process": 2, "user": 4, "host": 3}[scope]
        clients = busy(slots, 1 if scope == "process" else number)
        trace = world(clients, seed, Slots(slots, scope))
        found = verdicts(trace)
        assert found and set(found) == {(slots, scope, "connect")}, seed


def test_a_limit_per_destination() -> None:
    clients = busy(3)
    found = verdicts(world(clients, 1, Slots(1, "destination"), how=REFUSED))
    assert found and set(found) == {(1, "destination", "")}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_story_with_denials(seed: int) -> None:
    trace = world(agent_and_logins(), seed, Slots(1))
    (finding,) = limited_connects(trace, ())
    assert (finding.slots, finding.scope, finding.place) == (1, "process", "connect")
    assert finding.mechanism == "deny" and finding.confidence >= 0.6
    assert finding.severity == "critical"
    assert finding.blockers[0].destination == "192.0.2.66:9100"
    assert {v.outcome for v in finding.victims} == {"denied"}
    assert finding.evidence["error"] == "EPERM"


def test_it_reads_as_sentences() -> None:
    (finding,) = limited_connects(world(agent_and_logins(rounds=20), 3, Slots(1)), ())
    assert finding.confidence >= 0.8
    number = finding.evidence["denied"]
    assert finding.summary.startswith(
        "Process p7 (pid 7) may have only 1 TCP connect attempt open at a time; more are denied."
        f" {number} attempts (192.0.2."
    )
    assert (
        "failed at once with EPERM, inside the kernel's connect, before a packet was sent"
        " (connect), while another one was open, most often by 192.0.2.66:9100 (thread t700);"
        " the same destinations were let through when fewer were open." in finding.summary
    )
    assert {h.name: h.verdict for h in finding.hypotheses} == {
        "destination that refuses anyway": "refuted",
        "outage at the same time": "refuted",
        "limit per time": "refuted",
        "server that takes no more": "refuted",
        "lost events": "refuted",
    }
    assert finding.advice[0].startswith("Keep the slot free of 192.0.2.66:9100: stop that client")
    assert "Retry EPERM after a moment" in finding.advice[0]
    assert "or per user, cgroup, netns or host: this trace cannot tell" in finding.advice[1]
    assert str(finding.evidence["settle"]).startswith("Whether it counts per process or per user")


@pytest.mark.parametrize("late_ns", [20_000, 5 * MS, 120 * MS])
def test_answers_from_the_network_leave_the_place_open(late_ns: int) -> None:
    how = How(errno.EHOSTUNREACH, sent=True, late_ns=late_ns)
    (finding,) = limited_connects(world(agent_and_logins(rounds=20), 5, Slots(1), how=how), ())
    assert (finding.slots, finding.scope, finding.place) == (1, "process", "")
    assert "wire probe" in str(finding.evidence["settle"])


@pytest.mark.parametrize(
    ("left", "answered", "place"),
    [(False, False, "egress"), (True, True, "network"), (True, False, "")],
)
def test_the_wire_tells_who_denies(
    left: bool, answered: bool, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = {"wire_ns": left, "answer_ns": answered}

    def mark(attempts: Attempts, name: str) -> Ints:
        # Those that passed did leave, and were answered.
        passed = attempts["errno"] == 0
        times: Ints = attempts["syn_ns"].astype(np.int64) * (marks[name] | passed)
        return times

    monkeypatch.setattr(limited, "wire_seen", lambda _: True)
    monkeypatch.setattr(limited, "wire_mark", mark)
    how = How(errno.EHOSTUNREACH, sent=True)
    (finding,) = limited_connects(world(agent_and_logins(rounds=20), 5, Slots(1), how=how), ())
    assert finding.place == place


def test_answered_at_the_gate() -> None:
    # GIVEN a supervisor that answers the system call itself
    trace = world(agent_and_logins(rounds=20), 5, Slots(1))
    rows = trace.rows.copy()
    denied = rows["errno"] > 0
    rows["gate_ns"][denied], rows["call_ns"][denied] = rows["call_ns"][denied], 0
    (finding,) = limited_connects(replace(trace, attempts=rows), ())
    assert (finding.place, finding.slots) == ("gate", 1)


def test_one_destination_that_refuses_may_be_the_server_itself() -> None:
    clients = busy(2)
    clients = [replace(c, destination="192.0.2.2:80") for c in clients]
    (finding,) = limited_connects(world(clients, 1, Slots(2), how=REFUSED), ())
    assert finding.confidence <= 0.75
    assert {h.name: h.verdict for h in finding.hypotheses}["server that takes no more"] == "open"


def test_equal_services_cannot_be_told_from_a_limit_per_time() -> None:
    clients = [Client(7, 70 + i, f"192.0.2.{i}:80", think_ms=90, service_ms=200, steady=True,
                      rounds=60) for i in range(1, 5)]  # fmt: skip
    (finding,) = limited_connects(world(clients, 2, Slots(1)), ())
    assert {h.name: h.verdict for h in finding.hypotheses}["limit per time"] == "open"
    assert finding.confidence <= 0.7


# -- controls -------------------------------------------------------------------------------------


def dead_and_live(seed: int) -> Trace:
    """Return a destination that always refuses beside live ones, under any load."""
    return world(agent_and_logins(), seed, None, lambda c, _: c.destination.endswith(".2:389"))


def outage(seed: int) -> Trace:
    """Return a net that is down once while a dead attempt hangs, and refuses everybody else."""
    rng = random.Random(seed)
    begin = START_NS + rng.randint(5, 20) * S
    until = begin + rng.randint(3, 15) * S
    return world(
        agent_and_logins(), seed, None,
        lambda c, now: c.tid != 700 and begin <= now < until, REFUSED,
    )  # fmt: skip


def flapping(seed: int) -> Trace:
    """Return a server that is down again and again, at its own times."""
    rng = random.Random(seed)
    times = np.cumsum([rng.expovariate(1 / 2) for _ in range(200)]) * S + START_NS
    return world(
        agent_and_logins(rounds=20), seed, None,
        lambda c, now: c.tid != 700 and int(np.searchsorted(times, now)) % 2 == 1, REFUSED,
    )  # fmt: skip


def sprinkled(seed: int) -> Trace:
    """Return failures by chance."""
    rng = random.Random(seed)
    return world(busy(3), seed, None, lambda c, now: rng.random() < 0.3)


def rationed(seed: int) -> Trace:
    """Return a limit per time that denies what is too much."""
    rng, passed = random.Random(seed), [0]
    gap, burst = rng.choice([20, 100, 300]) * MS, rng.choice([1, 3])

    def rule(client: Client, now: int) -> bool:
        passed[0] = max(passed[0], now - burst * gap)
        if passed[0] + gap > now:
            return True
        passed[0] += gap
        return False

    return world(busy(3), seed, None, rule)


def nobody_denied(seed: int) -> Trace:
    """Return any load without anything in the way."""
    return world(busy(4, 2), seed)


def overlapping_only(seed: int) -> Trace:
    """Return a server that refuses whoever is not from a certain thread, whatever is open."""
    return world(busy(2), seed, None, lambda c, _: c.tid % 3 == 1)


CONTROLS: tuple[Control, ...] = (
    dead_and_live, outage, flapping, sprinkled, rationed, nobody_denied, overlapping_only,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.__name__)
def test_nothing_else_is_called_limited(control: Control, seed: int) -> None:
    trace = control(seed)
    found = limited_connects(trace, ())
    if control.__name__ == "rationed":
        # A limit per time may look like slots by luck: never firmly so.
        found = [f for f in found if f.confidence > 0.7]
    assert not found
    assert not [f for f in limited_connects(lossy(trace, seed), ()) if f.confidence > 0.7]


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_lost_events_make_no_verdict_wrong(slots: int, seed: int) -> None:
    trace = lossy(world(busy(slots), seed, Slots(slots)), seed)
    found: list[Finding] = limited_connects(trace, ())
    assert all(f.confidence <= 0.75 for f in found)
    assert {(f.slots, f.scope) for f in found} <= {(slots, "process")}


def test_port_shortage_and_long_failures_are_no_denials() -> None:
    trace = world(agent_and_logins(), 1, Slots(1))
    rows = trace.rows.copy()
    rows["outcome"][rows["errno"] > 0] = Outcome.no_port
    assert limited_connects(replace(trace, attempts=rows), ()) == []
    rows = trace.rows.copy()
    rows["end_ns"][rows["errno"] > 0] += 2 * S
    assert limited_connects(replace(trace, attempts=rows), ()) == []


def test_the_report_has_it() -> None:
    found = diagnose(world(agent_and_logins(rounds=20), 3, Slots(1)))
    assert "limited-connects" in [f.rule for f in found]
    assert "serialized-connects" not in [f.rule for f in found]


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=200)
def test_the_tail_is_a_probability_that_falls(a: int, b: int, c: int, d: int) -> None:
    # GIVEN a busy stretches denied, b not; c free stretches passed, d not
    chance = hypergeometric_tail(a, a + b, c, c + d)
    assert 0 < chance <= 1
    if a and c and (b or d):
        # THEN one more in keeping with slots is never less telling, where nothing else changes
        better = hypergeometric_tail(a + 1, a + b + 1, c + 1, c + d + 1)
        assert better <= chance + 1e-12


def test_the_tail_is_fishers() -> None:
    assert hypergeometric_tail(3, 3, 3, 3) == pytest.approx(1 / 20)
    assert hypergeometric_tail(9, 9, 9, 9) == pytest.approx(1 / 48_620)
    assert hypergeometric_tail(0, 0, 5, 5) == 1.0
