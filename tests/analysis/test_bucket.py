"""SYNs through buckets of tokens, and SYNs lost otherwise: only the former are told from chance."""

import heapq
import random
from collections.abc import Iterator

import numpy as np
import pytest

from porttrace.analysis.bucket import Bucket, Syns, bucket
from porttrace.analysis.scope import LIKELY_P

RUNGS_S = (1, 1, 1, 1, 1, 2, 4, 8, 16)  # between a SYN and the next, as Linux 6.5 and later send


def bursts(draw: random.Random, seconds: float) -> Iterator[float]:
    """Times of connects that come a few at once, then rest."""
    now = 0.0
    while now < seconds:
        for _ in range(draw.choice([1, 1, 2, 6])):
            yield now
            now += 0.003
        now += draw.expovariate(1 / 0.7)


def limited(seed: int, rate: float, burst: int) -> Syns:
    """SYNs under a limit of `rate` a second: those beyond it come again on the rungs."""
    draw, tokens, last = random.Random(seed), float(burst), 0.0
    coming = [(at, at, 0) for at in bursts(draw, 30)]
    heapq.heapify(coming)
    passed, dropped = [], []
    while coming:
        now, first, tries = heapq.heappop(coming)
        tokens, last = min(burst, tokens + (now - last) * rate), now
        if tokens >= 1:
            tokens -= 1
            passed.append(now)
            dropped += [first] if tries else []
        elif tries < len(RUNGS_S):
            again = now + RUNGS_S[tries] + draw.random() * 0.004
            heapq.heappush(coming, (again, first, tries + 1))
    return syns(passed, dropped)


def lost(seed: int, share: float) -> Syns:
    """SYNs of which `share` is lost by chance; each is sent again until it passes."""
    draw = random.Random(seed)
    passed, dropped = [], []
    for first in bursts(draw, 60):
        tries = 0
        while draw.random() < share:
            tries += 1
        passed.append(first + tries)
        dropped += [first] if tries else []
    return syns(passed, dropped)


def syns(passed: list[float], dropped: list[float]) -> Syns:
    times = np.array(passed + dropped)
    order = np.argsort(times, kind="stable")
    none_open = np.zeros(len(times), np.int64)
    return Syns((times[order] * 1e9).astype(np.int64), order >= len(passed), none_open)


def is_found(found: Bucket | None) -> bool:
    return found is not None and found.fits() and found.p_value <= LIKELY_P


@pytest.mark.parametrize(("rate", "burst", "near"), [(3, 4, 0.05), (5, 1, 0.15), (3, 10, 0.05)])
def test_a_limit_is_found_with_its_numbers(rate: float, burst: int, near: float) -> None:
    # Some of these draws never let the bucket of 3/s fill again: a rate that is a little off is
    # worse there than quite another.
    tested = [bucket(limited(seed, rate, burst)) for seed in range(45)]
    hit = [each for each in tested if each and each.drops >= 20]
    found = [each for each in hit if is_found(each)]
    assert len(found) >= max(25, len(hit) - 1)
    for each in found:
        assert each.rate == pytest.approx(rate, rel=near)
        assert abs(each.burst - burst) <= 2


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3])
def test_losses_by_chance_are_no_limit(share: float) -> None:
    assert not any(is_found(bucket(lost(seed, share))) for seed in range(30))
