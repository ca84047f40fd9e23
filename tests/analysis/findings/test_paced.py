"""Rates are found with their number and whom they count; queues, pauses and loss are no rates."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from porttrace.analysis.findings import diagnose
from porttrace.analysis.findings.paced import paced_connects
from porttrace.analysis.ladder import of_host
from porttrace.analysis.model import ATTEMPT, Finding, Loss, Outcome, Process, Trace

from .. import controls, simulate  # noqa: TID252
from ..deniers import lossy  # noqa: TID252
from ..simulate import KEYS, MS, START_NS, Client, S, Throttle  # noqa: TID252
from ..wires import limited, wanted, written  # noqa: TID252
from ..workloads import crowd  # noqa: TID252
from .written import HOST

LIVE = Outcome.established
Delay = Callable[[int], int]


def tokens(gap_ms: float, burst: int, rng: random.Random, late_ns: int = 200_000) -> Delay:
    """Return a bucket of tokens: who finds none waits for the next one, in order of asking."""
    due = [0]

    def delay(now: int) -> int:
        due[0] = max(due[0], now - int((burst - 1) * gap_ms * MS)) + int(gap_ms * MS)
        go = max(now, due[0] - int(gap_ms * MS))
        return go + 30_000 + rng.randint(0, late_ns)

    return delay


def held(
    gap_ms: float, burst: int, seed: int, scope: str = "process", processes: int = 1,
    think_ms: float = 0, place: str = "gate",
) -> Trace:  # fmt: skip
    """Return clients behind a rate for each key of a scope, at times loaded and at times idle."""
    rng = random.Random(seed)
    clients = crowd(rng, processes, 6, 25, service_ms=5, dead=1,
                    think_ms=think_ms or gap_ms * rng.uniform(1.5, 3))  # fmt: skip
    # Loaded at first, and a few stragglers that come one by one.
    clients += [replace(clients[0], tid=9000 + p, pid=100 + p, cgroup=70 + p, uid=1000 + p % 2,
                        think_ms=gap_ms * 40, rounds=20, outcome=Outcome.established, service_ms=2)
                for p in range(processes)]  # fmt: skip
    lines: dict[object, Delay] = {}

    class Limited(simulate.Simulation):
        def _ask(self, now: int, call: "simulate._Call") -> None:
            key = KEYS[scope](call.client)
            self._delay = lines.setdefault(key, tokens(gap_ms, burst, rng))
            super()._ask(now, call)

    calls = Limited(clients, seed, delay=lambda now: now).run()
    return simulate.trace_of(calls, place)


def verdicts(found: list[Finding]) -> set[tuple[str, str, str]]:
    return {(f.scope, f.place, f.mechanism) for f in found}


@pytest.mark.parametrize("gap_ms", [25, 100, 1000])
@pytest.mark.parametrize("burst", [1, 5])
@pytest.mark.parametrize("place", ["gate", "connect"])
@pytest.mark.parametrize("seed", range(3))
def test_a_rate_that_holds(gap_ms: int, burst: int, place: str, seed: int) -> None:
    (finding,) = paced_connects(held(gap_ms, burst, seed, place=place), ())
    assert verdicts([finding]) == {("process", place, "queue")}
    assert finding.evidence["rate_per_s"] == pytest.approx(1000 / gap_ms, rel=0.05)
    assert abs(int(str(finding.evidence["burst"])) - burst) <= 1
    assert finding.confidence >= 0.7


@pytest.mark.parametrize("scope", ["process", "user", "host"])
@pytest.mark.parametrize("seed", range(3))
def test_whom_it_counts(scope: str, seed: int) -> None:
    found = paced_connects(held(60, 2, seed, scope, processes=4, think_ms=400), ())
    assert found and verdicts(found) == {(scope, "gate", "queue")}


def test_it_reads_as_a_sentence() -> None:
    trace = held(100, 1, 2)
    (finding,) = paced_connects(trace, ())
    assert finding.confidence >= 0.8
    assert finding.summary.startswith(
        "Process p100 (pid 100) gets at most 10 connects a second, whatever else ends: "
    )
    assert "were stopped before the kernel started them (gate) and let go 100 ms apart; the" in (
        finding.summary
    )
    assert {h.name: h.verdict for h in finding.hypotheses} == {
        "queue with slots": "refuted", "timer of the application": "refuted",
        "slow supervisor": "refuted", "late scheduling": "refuted", "lost events": "refuted",
    }  # fmt: skip
    assert "paced-connects" in [f.rule for f in diagnose(trace)]


def test_only_a_lone_call_tells_a_rate_from_a_slow_supervisor() -> None:
    # GIVEN calls that come faster than they are let go, all the time
    clients = crowd(random.Random(1), 1, 8, 20, service_ms=1, think_ms=5, dead=0)
    trace = simulate.delayed(clients, simulate.serial(random.Random(1), 50, 0), 1)
    (finding,) = paced_connects(trace, ())
    assert finding.confidence <= 0.7
    assert {h.name: h.verdict for h in finding.hypotheses}["slow supervisor"] == "open"
    # AND the same supervisor with lone calls, which it holds as long: no rate
    lone = [replace(c, think_ms=2000) for c in clients]
    calls = [*clients, *(replace(c, tid=c.tid + 500, first_ms=9000) for c in lone)]
    assert paced_connects(
        simulate.delayed(calls, simulate.serial(random.Random(1), 50, 0), 1), ()
    ) == []  # fmt: skip


# -- drops -----------------------------------------------------------------------------------------


def arrivals(rng: random.Random, number: int, mean_s: float) -> list[float]:
    """Return times (s) at which attempts are made: `mean_s` apart in the mean, often in bursts."""
    times: list[float] = []
    now = 0.0
    while len(times) < number:
        together = rng.choice([1, 1, 2, 6, 12])
        now += rng.expovariate(1 / (mean_s * together))
        times += [now + 0.004 * n for n in range(together)]
    return sorted(times[:number])


def dropping(
    seed: int, rate: float, burst: int, *, number: int = 150, mean_s: float = 0.2, to: int = 3,
    loss: float = 0, slots: int = 0, processes: int = 1,
) -> Trace:  # fmt: skip
    """Return attempts whose SYNs are dropped: beyond a rate, by chance, or for want of a slot."""
    rng, order = random.Random(seed), itertools.count()
    rungs = (0.0, *of_host(HOST.sysctls).rungs_s)
    starts = arrivals(rng, number, mean_s)
    queue = [(START_NS + int(at * S), next(order), i, 0) for i, at in enumerate(starts)]
    heapq.heapify(queue)
    had, last = float(burst), START_NS
    rows, open_until = np.zeros(number, ATTEMPT), [0]
    while queue:
        now, _, i, again = heapq.heappop(queue)
        had, last = min(burst, had + rate * (now - last) / S), now
        taken = sum(end > now for end in open_until) if slots else 0
        if (rate and had < 1) or rng.random() < loss or (slots and taken >= slots):
            if again + 1 == len(rungs):
                continue  # timed out: it is not in the trace
            late = rungs[again + 1] * rng.uniform(1.0, 1.02) * S
            begin = START_NS + int(starts[i] * S)
            heapq.heappush(queue, (begin + int(late), next(order), i, again + 1))
            continue
        had -= 1
        service = int((rng.uniform(0.5, 3) if slots and i % 6 == 0 else 0.004) * S)
        open_until.append(now + service)
        client = Client(7 + i % processes, 70 + i, f"192.0.2.{1 + i % to}:80", blocking=False)
        call = START_NS + int(starts[i] * S) - 9_000
        marks = {"call_ns": call, "syn_ns": call + 9_000, "end_ns": now + service}
        rows[i] = simulate.row(i + 1, client, marks, Outcome.established)
        rows["retransmits"][i] = again
    rows = rows[rows["attempt_id"] > 0]
    processes_ = {7 + p: Process(7 + p, comm="web", netns=9) for p in range(processes)}
    return Trace(rows, START_NS, int(rows["end_ns"].max()) + S, processes_, host=HOST)


@pytest.mark.parametrize(("rate", "burst"), [(2, 1), (4, 5), (3, 10)])
@pytest.mark.parametrize("seed", range(4))
def test_a_rate_that_drops(rate: float, burst: int, seed: int) -> None:
    trace = dropping(seed, rate, burst, mean_s=1.3 / rate)
    (finding,) = paced_connects(trace, ())
    assert verdicts([finding]) == {("process", "", "drop")}
    assert finding.evidence["rate_per_s"] == pytest.approx(rate, rel=0.1)
    assert abs(int(str(finding.evidence["burst"])) - burst) <= max(1, 0.4 * burst)
    assert finding.confidence >= 0.8
    assert "syn-lost" not in [f.rule for f in diagnose(trace)]


def test_a_rate_of_the_host_and_one_of_a_destination() -> None:
    both = paced_connects(dropping(1, 3, 3, processes=3, number=240, mean_s=0.45), ())
    assert verdicts(both) == {("user", "", "drop")}  # the same as the host, with one user
    (one,) = paced_connects(dropping(1, 3, 3, to=1, mean_s=0.45), ())
    assert one.confidence <= 0.75
    assert {h.name: h.verdict for h in one.hypotheses}["full accept queue"] == "open"


# -- controls --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("seed", range(8))
def test_loss_by_chance_is_no_rate(loss: float, seed: int) -> None:
    for mean_s in (0.02, 0.2, 2):
        assert paced_connects(dropping(seed, 0, 1, loss=loss, mean_s=mean_s), ()) == []


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_slots_that_drop_are_no_rate(slots: int, seed: int) -> None:
    assert paced_connects(dropping(seed, 0, 1, slots=slots, mean_s=0.4), ()) == []


def test_a_destination_that_answers_no_first_syn_is_no_rate() -> None:
    # GIVEN a dead host that is refused when its SYN is sent again, the event of one of them lost
    rows = np.zeros(120, ATTEMPT)
    for i in range(120):
        dead = i % 4 == 0
        at = START_NS + i * S // 2
        end = at + (1_020 if dead else 1) * MS
        client = Client(7, 70 + dead, "192.0.2.66:9100" if dead else "192.0.2.2:80")
        marks = {"call_ns": at - 9_000, "syn_ns": at, "end_ns": end}
        rows[i] = simulate.row(i + 1, client, marks, Outcome.refused if dead else LIVE)
        rows["retransmits"][i] = dead and i > 0
    trace = Trace(rows, START_NS, START_NS + 70 * S, {7: Process(7, comm="web")}, host=HOST)
    assert paced_connects(trace, ()) == []


OTHERS = tuple(
    control
    for control in controls.CONTROLS
    if not any(name in control.__name__ for name in ("supervisor", "paced", "tracer"))
)


@pytest.mark.parametrize("control", OTHERS, ids=lambda control: control.__name__)
def test_nothing_else_keeps_a_pace(control: controls.Control) -> None:
    assert not [seed for seed in range(12) if paced_connects(control(seed), ())]


@pytest.mark.parametrize(
    "control", [controls.supervisor, controls.busy_supervisor, controls.even_supervisor],
    ids=lambda control: control.__name__,
)  # fmt: skip
def test_a_supervisor_under_load_is_never_firmly_a_rate(control: controls.Control) -> None:
    sure = [f.confidence for seed in range(20) for f in paced_connects(control(seed), ())]
    assert max(sure, default=0) <= 0.7


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_queue_with_slots_is_no_rate(slots: int, steady: bool, seed: int) -> None:
    clients = [
        replace(client, steady=steady)
        for client in crowd(random.Random(seed), 1, 2 * slots + 3, 20, service_ms=80, dead=0)
    ]
    trace = simulate.throttled(clients, Throttle(slots), seed)
    assert paced_connects(trace, ()) == []


def test_an_application_that_paces_its_calls_holds_nothing() -> None:
    clients = [Client(7, 70, think_ms=100, steady=True, rounds=80)]
    assert paced_connects(simulate.delayed(clients, lambda now: now + 30_000, 1), ()) == []


@pytest.mark.parametrize("seed", range(6))
def test_lost_events_make_no_verdict_wrong(seed: int) -> None:
    found = paced_connects(lossy(held(100, 1, seed), seed), ())
    assert all(f.confidence <= 0.75 for f in found)
    assert verdicts(found) <= {("process", "gate", "queue")}
    trace = dropping(seed, 3, 3, mean_s=0.45)
    rows = trace.attempts[np.random.default_rng(seed).random(150) > 0.1]
    rows["complete"] = False
    dropped = replace(trace, attempts=rows, losses=(Loss(START_NS, trace.end_ns, 0, 9),))
    # Without the passes that were lost no bucket is right: nothing is said.
    assert len(paced_connects(trace, ())) == 1 and paced_connects(dropped, ()) == []


def test_a_server_whose_queue_ran_over_drops_at_its_own_pace() -> None:
    trace = dropping(1, 2, 1, mean_s=0.65)
    (found,) = paced_connects(trace, ())
    assert found.mechanism == "drop"
    queue = Finding("accept-queue", "warning", 0.9, {}, "x", victims=found.victims)
    assert paced_connects(trace, (queue,)) == []


def test_dropped_syns_are_no_rate_where_many_events_were_lost() -> None:
    asked = limited(wanted(1, 8, 10, 0.25), 2.5, 2, KEYS["process"], 1)
    trace = written([each for each in asked if each.go or each.life_ns], "egress")
    assert len(paced_connects(trace, ())) == 1
    few = Loss(trace.start_ns, trace.end_ns, 0, 2)
    (told,) = paced_connects(replace(trace, losses=(few,)), ())
    assert told.confidence <= 0.75
    many = replace(few, count=30)
    assert paced_connects(replace(trace, losses=(many,)), ()) == []
