"""Equal waits, and those that only lie near each other."""

import numpy as np
import pytest

from porttrace.analysis.findings.timers import clusters, is_windows, round_s, split, tight

MS = 1_000_000


def ns(*waits_ms: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([int(wait * MS) for wait in waits_ms], np.int64)


@pytest.mark.parametrize(
    ("seconds", "nearest"),
    [(3, 3), (3.13, 3), (2.995, 3), (2.98, 0), (3.2, 0), (21, 0), (0.5, 0.5)],
)
def test_round_numbers(seconds: float, nearest: float) -> None:
    assert round_s(seconds) == nearest


def test_windows() -> None:
    assert is_windows(21.0) and is_windows(21.3) and not is_windows(20.0)


def test_clusters_are_measured_from_their_shortest() -> None:
    waits = ns(600, 690, 780, 10_000, 10_499, 10_600)
    groups = [sorted(waits[group].tolist()) for group in clusters(waits)]
    assert groups == [ns(*g).tolist() for g in ((600, 690), (780,), (10_000, 10_499), (10_600,))]
    assert clusters(ns()) == []


@pytest.mark.parametrize(
    ("waits", "is_tight"), [((1700, 1720), True), ((1700, 1721), False), ((9000, 9090), True)]
)
def test_tight(waits: tuple[float, ...], is_tight: bool) -> None:
    assert tight(ns(*waits)) == is_tight


@pytest.mark.parametrize(
    ("waits", "timers", "others"),
    [
        ((), 0, 0),
        ((1700,), 0, 1),
        ((3000,), 1, 0),
        ((3000, 5000), 2, 0),
        ((3000, 1700), 0, 2),
        ((1700, 1750), 1, 0),
        ((1700, 1700, 3000), 2, 0),
        ((1700, 1700, 2300, 4700, 6600), 1, 3),
        ((*[5000] * 20, 1700, 1700), 2, 0),
        ((*[5000] * 20, 1300, 2200, 4700), 1, 3),
        ((1000, 2000, 4000, 8000, 16_000) * 3, 5, 0),
        (tuple(range(600, 9000, 42)), 0, 200),
    ],
)
def test_split(waits: tuple[float, ...], timers: int, others: int) -> None:
    parts = split(ns(*waits))
    assert (len(parts.timers), len(parts.others)) == (timers, others)
    together = np.concatenate([*parts.timers, parts.others])
    assert sorted(together.tolist()) == list(range(len(waits)))
