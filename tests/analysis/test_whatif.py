"""The queue model: exact for a queue, monotone, checked against real recordings, and modest."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porttrace.analysis import whatif
from porttrace.analysis.holds import HELD_NS
from porttrace.analysis.model import Outcome, Trace
from porttrace.analysis.recording import load
from porttrace.analysis.replay import Demand, calibrated, replay
from porttrace.analysis.whatif import WhatIfError

from . import simulate
from .simulate import MS, Client, S, Throttle
from .workloads import crowd

CHECKOUT = Path(__file__).parents[2]
DEAD, LIVE = "192.0.2.66:9100", "192.0.2.2:389"
STORIES = (
    CHECKOUT / "notebooks" / "data" / "serialized-logins.ptrace",
    CHECKOUT / "tests" / "data" / "v1-storm.ptrace",
    CHECKOUT / "tests" / "data" / "v1-two-threads.ptrace",
)


def demand(*attempts: tuple[float, float, str], slots: int = 1, lag_ms: float = 0) -> Demand:
    """Return a demand of (asked, service in ms, destination) behind one throttle."""
    asked, service, to = zip(*sorted(attempts), strict=True)
    number = len(asked)
    return Demand(
        key=np.zeros(number, np.int64),
        asked=(np.array(asked) * MS).astype(np.int64),
        service=(np.array(service) * MS).astype(np.int64),
        waited=np.zeros(number, np.int64),
        good=np.array([name != DEAD for name in to]),
        to=np.array(to, np.str_),
        over=(np.array(asked) * MS + np.array(service) * MS).astype(np.int64),
        thread=np.full(number, -1, np.int64),
        slots=slots,
        lag_ns=int(lag_ms * MS),
    )


STORY = demand(
    (0, 3000, DEAD), (500, 2, LIVE), (1000, 2, LIVE), (5000, 3000, DEAD), (9000, 2, LIVE)
)


def waits_ms(of: Demand) -> list[float]:
    return [float(wait) for wait in replay(of) / MS]


def test_a_queue_by_hand() -> None:
    assert waits_ms(STORY) == [0, 2500, 2002, 0, 0]
    assert waits_ms(replace(STORY, lag_ns=MS)) == [0, 2501, 2004, 0, 0]
    assert waits_ms(replace(STORY, slots=2)) == [0, 0, 0, 0, 0]
    two = replace(STORY, key=np.array([0, 1, 0, 0, 0]))
    assert waits_ms(two) == [0, 0, 2000, 0, 0]


def test_a_thread_that_waits_less_asks_again_sooner() -> None:
    # GIVEN one slot, a thread that tries a dead port, and one that connects 200 ms after each end
    queue = demand((0, 1000, DEAD), (100, 10, LIVE), (1210, 10, LIVE), (1250, 1000, DEAD))
    over = queue.over + np.array([0, 900 * MS, 0, 0])
    queue = replace(queue, thread=np.array([1, 2, 2, 1]), over=over)
    assert waits_ms(queue) == [0, 900, 0, 0]
    # WHEN there are two slots, the second thread is done at 110 ms and asks again at 310
    assert waits_ms(replace(queue, slots=2)) == [0, 0, 0, 0]
    # AND with a dead port that holds the slot twice as long, it asks again when that is over
    longer = replace(queue, service=np.array([2000, 10, 10, 1000]) * MS)
    assert waits_ms(longer) == [0, 1900, 0, 0]
    # BUT one whose attempts overlap does not wait for them
    crossed = replace(
        longer, thread=np.array([1, 2, 2, 2]), over=over + np.array([0, 0, 90, 0]) * MS
    )
    assert waits_ms(crossed) == [0, 1900, 800, 770]
    # AND a timeout lets the first thread try again sooner: at 350 and not at 1250 ms
    early = demand((0, 1000, DEAD), (1250, 1000, DEAD), (400, 10, LIVE))
    early = replace(early, thread=np.array([1, -1, 1]))
    assert whatif.with_timeout(early, 0.1).lines[0].worst_s == pytest.approx(0.05)


attempts = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 800), st.sampled_from([DEAD, LIVE])),
    min_size=1, max_size=40,
)  # fmt: skip


@given(attempts, st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_never_more_than_the_slots_are_taken_and_none_stays_free(
    made: list[tuple[int, int, str]], slots: int
) -> None:
    # GIVEN any demand behind a throttle
    queue = demand(*made, slots=slots)
    begin = queue.asked + replay(queue)
    end = begin + queue.service
    # THEN whoever waits begins right when another one ends, with all slots taken until then
    for i in np.flatnonzero(begin > queue.asked):
        taken = (begin < begin[i]) & (end >= begin[i]) & (queue.service > 0)
        assert (end == begin[i]).any() and np.count_nonzero(taken) >= slots
    for time in begin:
        assert np.count_nonzero((begin <= time) & (end > time)) <= slots


@given(attempts, st.integers(1, 4), st.integers(0, 20))
@settings(max_examples=150, deadline=None)
def test_more_slots_never_lengthen_the_waits(
    made: list[tuple[int, int, str]], slots: int, lag_ms: int
) -> None:
    queue = demand(*made, slots=slots, lag_ms=lag_ms)
    more = replay(replace(queue, slots=slots + 1))
    assert more.sum() <= replay(queue).sum()
    assert (more <= replay(queue)).all()


@given(attempts, st.integers(1, 4), st.floats(0.01, 2))
@settings(max_examples=100, deadline=None)
def test_shorter_services_never_lengthen_the_waits(
    made: list[tuple[int, int, str]], slots: int, timeout_s: float
) -> None:
    queue = demand(*made, slots=slots)
    own = replay(queue).sum() / 1e9
    assert whatif.with_timeout(queue, timeout_s).total_s() <= own + 1e-9
    if DEAD in queue.to:
        assert whatif.with_probe(queue, (DEAD,)).total_s() <= own + 1e-9


@given(attempts)
@settings(max_examples=50, deadline=None)
def test_without_services_nobody_waits(made: list[tuple[int, int, str]]) -> None:
    queue = demand(*made, lag_ms=3)
    idle = replace(queue, service=np.zeros(len(queue.asked), np.int64))
    assert not replay(idle).any()


def test_unchanged_every_attempt_asks_when_it_did() -> None:
    # GIVEN a thread that the throttle let through a little later than the model does
    queue = demand((0, 1000, DEAD), (100, 10, LIVE), (1230, 10, LIVE), (1235, 1000, DEAD))
    waited = np.array([0, 920, 0, 0]) * MS
    over = queue.asked + waited + queue.service
    queue = replace(queue, thread=np.array([1, 2, 2, 1]), over=over, waited=waited)
    # THEN the thread's next attempt does not move in front of or behind another one's for that
    assert waits_ms(calibrated(queue)) == [0, 900, 0, 5]
    # BUT with two slots it asks again as much sooner as it waited less
    longer = replace(calibrated(queue), slots=2)
    assert waits_ms(longer) == [0, 0, 0, 0]


def test_who_was_let_through_takes_no_slot_and_never_waits() -> None:
    # GIVEN an attempt that went straight on while the only slot was taken, and one that waited
    queue = demand((0, 1000, DEAD), (100, 500, LIVE), (200, 10, "192.0.2.2:80"))
    queue = calibrated(replace(queue, waited=np.array([0, 0, 800]) * MS))
    assert queue.passed is not None and queue.passed.tolist() == [False, True, False]
    assert waits_ms(queue) == [0, 0, 800]
    # THEN it counts against the model
    fit = whatif.fit(queue)
    assert (fit.waits, fit.near, fit.passed, fit.off) == (2, 1, 1, ())
    assert not fit.good()


def test_a_destination_that_comes_out_otherwise_is_named() -> None:
    # GIVEN waits at two destinations, of which the model gives one
    queue = demand((0, 1000, DEAD), (100, 1, LIVE), (200, 1, "192.0.2.2:80"))
    queue = calibrated(replace(queue, waited=np.array([0, 900, 1500]) * MS))
    fit = whatif.fit(queue)
    (off,) = fit.off
    assert (off.destination, off.measured_s) == ("192.0.2.2:80", 1.5)
    assert off.predicted_s == pytest.approx(0.801)
    assert not fit.good()


def test_a_probe_that_costs_nothing_leaves_only_the_living() -> None:
    # GIVEN dead attempts that block, and live ones that come after one another
    told = whatif.with_probe(STORY, (DEAD,), 1e-9)
    assert told.total_s() == 0
    assert "2 attempts there got no connection" in told.assumptions[1]


def test_a_timeout_cuts_and_says_what_it_costs() -> None:
    slow = demand((0, 3000, DEAD), (500, 1500, LIVE), (1000, 2, LIVE))
    told = whatif.with_timeout(slow, 1)
    assert told.name == "connect timeout 1 s"
    assert told.total_s() == pytest.approx(0.5 + 1.0)
    assert told.assumptions[-1] == "1 attempt that did connect took longer and would fail"
    assert len(whatif.with_timeout(STORY, 1).assumptions) == 1


def test_a_restart_opens_everything_at_once_the_slowest_first() -> None:
    told = whatif.restart(STORY)
    assert [(line.destination, line.worst_s) for line in told.lines] == [(LIVE, 3.0), (DEAD, 0.0)]
    five = whatif.restart(STORY, pool=5)
    assert [(line.destination, line.worst_s) for line in five.lines] == [
        (LIVE, pytest.approx(15.008)), (DEAD, 12.0),
    ]  # fmt: skip
    assert [line.attempts for line in five.lines] == [5, 5]
    assert whatif.restart(replace(STORY, slots=10), pool=5).total_s() == 0


def test_an_unknown_destination_is_refused_with_the_known_ones() -> None:
    with pytest.raises(WhatIfError) as caught:
        whatif.with_probe(STORY, ("192.0.2.7:1",))
    assert LIVE in caught.value.hint and DEAD in caught.value.hint


# -- traces ---------------------------------------------------------------------------------------


def queued(slots: int, scope: str, seed: int, lag_ms: tuple[float, float] = (0, 0)) -> Trace:
    processes = 1 if scope == "process" else 3
    clients = crowd(random.Random(seed), processes, 2 * slots + 4, 12, service_ms=60)
    return simulate.throttled(clients, Throttle(slots, scope, "gate", lag_ms), seed)


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("scope", ["process", "host"])
@pytest.mark.parametrize("seed", range(3))
def test_the_own_slots_give_back_the_waits_of_a_queue(slots: int, scope: str, seed: int) -> None:
    throttle = whatif.throttle_of(queued(slots, scope, seed))
    assert (throttle.slots, throttle.scope, throttle.place) == (slots, scope, "gate")
    fit = whatif.believable(throttle)
    assert fit.share() == 1.0
    # up to the simulated throttle's own 20 to 90 us at each release
    assert fit.median_error_s < 0.001
    assert fit.predicted_s == pytest.approx(fit.measured_s, rel=0.02)
    # AND asked for its own slots it gives the very same, to each attempt that did not wait nothing
    again = whatif.with_slots(throttle.demand, slots)
    assert again.lines == whatif.unchanged(throttle.demand).lines
    assert again.total_s() == pytest.approx(fit.predicted_s)
    waits = replay(throttle.demand)
    assert (waits[throttle.demand.waited < HELD_NS] < HELD_NS).all()


@pytest.mark.parametrize(("recorded", "asked"), [(1, 2), (1, 4), (2, 1), (4, 1), (4, 2)])
def test_another_number_of_slots_is_predicted_as_it_turns_out(recorded: int, asked: int) -> None:
    # GIVEN the same clients behind throttles with other numbers of slots
    def traced(slots: int) -> float:
        clients = crowd(random.Random(7), 1, 12, 15, service_ms=60)
        throttle = whatif.throttle_of(simulate.throttled(clients, Throttle(slots), 7))
        return whatif.as_traced(throttle.demand).total_s()

    clients = crowd(random.Random(7), 1, 12, 15, service_ms=60)
    throttle = whatif.throttle_of(simulate.throttled(clients, Throttle(recorded), 7))
    predicted = whatif.with_slots(throttle.demand, asked).total_s()
    # THEN what is predicted from one is measured in the other, but for its other random services
    assert predicted == pytest.approx(traced(asked), rel=0.25)
    assert abs(traced(recorded) - traced(asked)) > 0.5 * traced(asked) or asked > recorded


def test_processes_with_a_throttle_each_are_replayed_side_by_side() -> None:
    clients = crowd(random.Random(3), 4, 6, 12, service_ms=60)
    throttle = whatif.throttle_of(simulate.throttled(clients, Throttle(1), 3))
    assert throttle.who == "4 groups, each for itself"
    assert len(np.unique(throttle.demand.key)) == 4
    assert whatif.believable(throttle).share() >= 0.98


def test_no_throttle_no_prediction() -> None:
    clients = crowd(random.Random(1), 1, 5, 12)
    free = simulate.delayed(clients, lambda now: now + 30_000, 1)
    with pytest.raises(WhatIfError, match="no throttle that queues"):
        whatif.throttle_of(free)


def test_a_throttle_that_serves_the_last_first_is_refused() -> None:
    # GIVEN a queue whose waits were dealt out in another order
    throttle = whatif.throttle_of(queued(1, "process", 1))
    waited = throttle.demand.waited
    dealt = np.random.default_rng(1).permutation(waited)
    shuffled = calibrated(replace(throttle.demand, waited=dealt))
    with pytest.raises(WhatIfError) as caught:
        whatif.believable(replace(throttle, demand=shuffled))
    assert "waits come out within 10%" in str(caught.value)
    assert "order of asking" in caught.value.hint


def test_who_was_never_served_is_left_out_and_counted() -> None:
    agent = Client(12, 13, DEAD, service_ms=9000, steady=True, rounds=1, first_ms=1,
                   outcome=Outcome.timed_out)  # fmt: skip
    login = Client(12, 14, service_ms=2, rounds=1, first_ms=500)
    calls = simulate.Simulation([agent, login], 1, Throttle(1)).run()
    trace = simulate.trace_of(calls, until_ns=simulate.START_NS + 5 * S)
    throttle = whatif.throttle_of(trace)
    assert throttle.unserved == 1
    with pytest.raises(WhatIfError, match="nobody behind this throttle has gone on yet"):
        whatif.believable(throttle)


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_real_recordings_fit(path: Path) -> None:
    throttle = whatif.throttle_of(load(path).trace)
    fit = whatif.believable(throttle)
    assert fit.near == fit.waits >= 1
    assert fit.median_error_s < 0.01
    assert fit.predicted_s == pytest.approx(fit.measured_s, rel=0.05)
    assert whatif.with_slots(throttle.demand, 4).total_s() < 0.05 * fit.measured_s


def test_the_logins_of_the_story_are_saved_by_a_probe() -> None:
    demand_of = whatif.throttle_of(load(STORIES[0]).trace).demand
    probed = whatif.with_probe(demand_of, (DEAD,))
    assert probed.total_s() < 0.05 * whatif.as_traced(demand_of).total_s()
    timed = whatif.with_timeout(demand_of, 1.0)
    assert probed.total_s() < timed.total_s() < whatif.as_traced(demand_of).total_s()
