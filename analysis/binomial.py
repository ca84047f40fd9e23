"""The number of successes of independent trials with unequal chances, and its upper tail."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_EXACT_TRIALS = 2000


def upper_tail(chances: npt.NDArray[np.float64], successes: int) -> float:
    """Return the probability (never too small) of at least `successes` among all trials.

    Exact up to 2,000 trials; beyond, Chernoff's bound, which is safe and loses little when the
    answer is tiny. Trials that cannot fail carry no information and cost nothing.
    """
    sure = int(np.count_nonzero(chances >= 1.0))
    # Sorted, so that the order of the trials does not even change the last digit.
    chances, successes = np.sort(chances[chances < 1.0]), successes - sure
    if successes <= 0:
        return 1.0
    if successes > len(chances):
        return 0.0
    if len(chances) > _EXACT_TRIALS:
        return _chernoff(chances, successes)
    return _exact(chances, successes)


def together(chances: Sequence[float]) -> float:
    """Return the chance that independent tests come out as unlikely as these, by Fisher's method.

    -2 times the sum of n logarithms is distributed as chi-square with 2n degrees of freedom.
    """
    half = -sum(math.log(max(chance, 1e-300)) for chance in chances)
    term, total = 1.0, 1.0
    for number in range(1, len(chances)):
        term *= half / number
        total += term
    return min(1.0, math.exp(-half) * total)


# Only the distribution from the tail inwards is summed, so that 1e-60 keeps its digits.
def _exact(chances: npt.NDArray[np.float64], successes: int) -> float:
    mass = np.zeros(len(chances) + 1)
    mass[0] = 1.0
    for chance in chances:
        mass[1:] = mass[1:] * (1 - chance) + mass[:-1] * chance
        mass[0] *= 1 - chance
    return min(1.0, float(mass[successes:].sum()))


# min over t of E[exp(tX)] exp(-tk), by bisection of its convex logarithm's slope. Every t bounds.
def _chernoff(chances: npt.NDArray[np.float64], successes: int) -> float:
    if successes <= chances.sum():
        return 1.0
    low, high = 0.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        raised = chances * math.exp(middle)
        slope = float((raised / (1 - chances + raised)).sum()) - successes
        low, high = (middle, high) if slope < 0 else (low, middle)
    log_bound = float(np.log1p(chances * math.expm1(low)).sum()) - low * successes
    return min(1.0, math.exp(max(log_bound, -700.0)))
