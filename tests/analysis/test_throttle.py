"""The test itself: slots, handoffs, busy, cap and chance on small queues written out by hand."""

import numpy as np
import pytest

from porttrace.analysis.holds import Queue, Spans
from porttrace.analysis.throttle import Verdict, examine

MS = 1_000_000


def queue(*attempts: tuple[float, float, float]) -> Queue:
    """Return a queue of attempts (asked, let go, ended), in ms; 0 for ended: not over."""
    asked, go, end = (np.array(c) * MS for c in np.array(attempts, float).T)
    last = int(max(go.max(), end.max())) + 10_000 * MS
    over = end > 0
    held = Spans(asked.astype(np.int64), go.astype(np.int64), np.ones(len(go), bool))
    stop = np.where(over, end, last).astype(np.int64)
    return Queue(held, Spans(go.astype(np.int64), stop, over))


def verdict_of(*attempts: tuple[float, float, float]) -> Verdict:
    verdict = examine(queue(*attempts))
    assert verdict is not None
    return verdict


def test_nobody_held_gives_no_verdict() -> None:
    assert examine(queue((10, 10, 500), (20, 21, 60))) is None


def test_one_victim_behind_one_blocker() -> None:
    verdict = verdict_of((1, 1, 6001), (500, 6001.5, 6003))
    assert verdict.throttled()
    assert (verdict.slots, verdict.held, verdict.handoffs) == (1, 1, 1)
    # Half a millisecond after the blocker's end in 5.5 s; two ways of looking.
    assert verdict.p_value == pytest.approx(2 * 0.5 / 5501.5, rel=1e-3)
    assert verdict.epsilon_ns == MS // 2 + 1
    assert verdict.lag_ns == MS // 2


@pytest.mark.parametrize("slots", [1, 2, 3, 10])
def test_one_more_attempt_than_slots_tells_their_number(slots: int) -> None:
    blockers = [(1 + 40 * i, 1 + 40 * i, 3000 + 70 * i) for i in range(slots)]
    verdict = verdict_of(*blockers, (500, 3000.5, 3002))
    assert verdict.throttled()
    assert verdict.slots == slots


def test_a_free_slot_while_somebody_is_held_refutes_it() -> None:
    # Let go right after an end, but for four seconds before it nothing was in service.
    verdict = verdict_of((1, 1, 100), (50, 5001, 5002), (5000, 5000, 5000.5))
    assert not verdict.throttled()


def test_more_than_the_slots_at_another_time_refutes_it() -> None:
    held = [(1, 1, 6001), (500, 6001.5, 6003)]
    assert verdict_of(*held, (7000, 7000, 7100), (7200, 7200, 7300)).throttled()
    verdict = verdict_of(*held, (7000, 7000, 7100), (7050, 7050, 7200))
    assert verdict.cap_exceeded == 1
    assert not verdict.throttled()


def test_a_short_overlap_at_a_handoff_is_no_excess() -> None:
    verdict = verdict_of(
        (1, 1, 3000), (100, 2999.5, 6000), (200, 6000.4, 9000), (300, 9000.5, 9500)
    )
    assert verdict.cap_exceeded == 0
    assert verdict.slots == 1


def test_an_overlap_by_one_that_is_over_first_is_an_excess() -> None:
    verdict = verdict_of((1, 1, 3000), (100, 1500, 1500.9), (200, 3000.5, 3500))
    assert verdict.cap_exceeded == 1


def test_a_burst_behind_one_end_counts_as_one_coincidence() -> None:
    drained = [(500 + i, 6001 + i, 6001.2 + i) for i in range(1, 10)]
    verdict = verdict_of((1, 1, 6001), *drained)
    assert verdict.handoffs == 9
    assert verdict.p_value > 1e-4


def test_a_release_at_a_steady_pace_is_no_queue() -> None:
    rng = np.random.default_rng(1)
    attempts = [
        (1.0 + i, 100.0 * (1 + i), 100.0 * (1 + i) + 93 + rng.uniform(0, 5)) for i in range(30)
    ]
    verdict = verdict_of(*attempts)
    assert verdict.paced
    assert not verdict.throttled()


def test_all_ends_and_releases_in_one_instant_have_another_cause() -> None:
    stopped = [(i * 100.0 + 1, i * 100.0 + 1, 5000.3 + i / 10) for i in range(3)]
    verdict = verdict_of(*stopped, (1000, 5000.4, 5001), (1100, 5000.6, 5001))
    assert verdict.common_cause
    assert not verdict.throttled()


def test_a_late_supervisor_shows_by_the_largest_of_its_lags() -> None:
    # Released 16, 42 and 86 ms after ends, after seconds of waiting: no fixed limit fits them all.
    verdict = verdict_of(
        (1, 1, 3001), (500, 3017, 3018), (4000, 4000, 7000), (4500, 7042, 7043), (5000, 7129, 7130)
    )
    assert verdict.throttled()
    assert (verdict.handoffs, verdict.testable) == (3, 3)
    assert verdict.p_value < 0.005


def test_one_release_far_from_any_end_leaves_the_largest_lag_out() -> None:
    verdict = verdict_of((1, 1, 3001), (500, 3017, 3018), (4000, 4000, 7000), (4500, 7900, 7901))
    assert verdict.explained() <= 0.5


def test_services_that_are_all_alike_are_no_pace_where_others_pass_in_between() -> None:
    # Each round: one to a dead port, 500 ms; one that waits for it. The next goes at once.
    rounds: list[tuple[float, float, float]] = []
    for number, late in enumerate((4, 9, 2, 7, 5)):
        start = 1 + number * 600
        rounds += [(start, start, start + 500), (start + 20, start + 500 + late, start + 510)]
    verdict = verdict_of(*rounds)
    assert verdict.throttled() and not verdict.paced
    assert verdict.slots == 1
