"""A host far above the rest is told, one of a few hosts or a little above is not."""

import pytest

from fleets import fleet_of, part
from porttrace.analysis.fleet.outliers import outliers

MS = 1_000_000


def told(*each_ms: float, attempts: int = 10) -> set[tuple[str, str]]:
    parts = [part(f"h{n}", attempts=attempts, each_ns=int(ms * MS)) for n, ms in enumerate(each_ms)]
    return {(each.host, each.number) for each in outliers(fleet_of(*parts))}


def test_one_that_is_far_above() -> None:
    found = told(10, 11, 9, 10, 12, 10, 9, 11, 500)
    assert found == {
        ("h8", number) for number in ("held_p99_s", "held_mean_s", "answer_p50_s", "answer_p99_s")
    }


def test_also_where_all_others_are_the_same() -> None:
    assert ("h9", "held_p99_s") in told(*[10] * 9, 500)


@pytest.mark.parametrize(
    "each", [[10] * 9, [10] * 8 + [15], [10, 10, 10, 500], list(range(10, 30))]
)
def test_none(each: list[float]) -> None:
    assert not told(*each)


def test_how_far() -> None:
    parts = [part(f"h{n}", each_ns=(1000 if n == 8 else 10) * MS) for n in range(9)]
    first = outliers(fleet_of(*parts))[0]
    assert (first.host, first.number) == ("h8", "held_p99_s")
    assert first.times == pytest.approx(100, rel=0.02)
    assert first.value == pytest.approx(1.0, rel=0.011)
