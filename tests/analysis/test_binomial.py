"""The upper tail against enumeration, and the bound against the exact sum."""

import itertools
import math

import numpy as np
import pytest

from porttrace.analysis.binomial import together, upper_tail


def test_equals_enumeration() -> None:
    chances = [0.1, 0.5, 0.9, 1.0, 0.03]
    for successes in range(6):
        total = 0.0
        for flips in itertools.product([0, 1], repeat=5):
            if sum(flips) >= successes:
                total += math.prod(c if f else 1 - c for c, f in zip(chances, flips, strict=True))
        assert upper_tail(np.array(chances), successes) == pytest.approx(total)


def test_no_trials_prove_nothing() -> None:
    assert upper_tail(np.array([]), 0) == 1.0
    assert upper_tail(np.ones(4), 4) == 1.0


def test_small_tails_keep_their_digits() -> None:
    assert upper_tail(np.full(20, 1e-3), 20) == pytest.approx(1e-60)


@pytest.mark.parametrize("successes", [320, 600, 2500])
def test_the_bound_is_safe_and_close(successes: int) -> None:
    chances = np.full(5000, 0.05)
    exact = _binomial_tail(5000, 0.05, successes)
    bound = upper_tail(chances, successes)
    assert exact <= bound
    assert math.log(max(bound, 1e-300)) <= 0.8 * math.log(max(exact, 1e-320))


def _binomial_tail(trials: int, chance: float, least: int) -> float:
    def log_mass(k: int) -> float:
        ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        return ways + k * math.log(chance) + (trials - k) * math.log1p(-chance)

    return math.fsum(math.exp(log_mass(k)) for k in range(least, trials + 1))


def test_tests_that_agree_weigh_more_together() -> None:
    assert together([0.2]) == pytest.approx(0.2)
    # chi-square with four degrees of freedom: q (1 - ln q) of the product q
    assert together([0.05, 0.05]) == pytest.approx(0.0025 * (1 - math.log(0.0025)))
    assert together([1.0, 1.0, 1.0]) == 1.0
    assert together([0.01, 1.0]) > 0.01


def test_together_is_a_chance() -> None:
    draw = np.random.default_rng(1)
    drawn = [together(draw.random(4).tolist()) for _ in range(4000)]
    assert np.mean(np.array(drawn) <= 0.1) == pytest.approx(0.1, abs=0.02)
