"""What the steps of a trial mean; and a real trial of nothing but loopback."""

import pytest

from porttrace.tracer.trial import Conclusion, Measured, Step, conclude

EVERYBODY = {"process": True, "user": True, "cgroup": True, "netns": True}


def steps(number: int, last: Step) -> tuple[Step, ...]:
    """Return `number` steps in which all went through, and then `last`."""
    return (*(Step(n, "through", 0, "connected", 0.001, 0) for n in range(number)), last)


def result(last: Step, **held: bool) -> Conclusion:
    return conclude(Measured(steps(last.open, last), held))


def test_no_throttle() -> None:
    found = result(Step(8, "through", 0, "connected", 0.0012, 0))
    assert (found.slots, found.place, found.scope, found.mechanism) == (0, "", "", "")
    assert "with 8 attempts open another connect took 1.2 ms" in found.sentence


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (Step(3, "through", 0, "through", 0.0, 0), (3, "after the SYN", "queue")),
        (Step(3, "through", 0, "ended", 0.0, 111), (3, "after the SYN", "deny")),
        (Step(3, "through", 0, "before", 0.0, 0), (3, "before the SYN", "queue")),
        (Step(3, "before", 0, "before", 0.0, 0), (2, "before the SYN", "queue")),
        (Step(3, "ended", 1, "ended", 0.0, 1), (2, "before the SYN", "deny")),
    ],
)
def test_slots_and_place(last: Step, expected: tuple[int, str, str]) -> None:
    found = result(last, **EVERYBODY)
    assert (found.slots, found.place, found.mechanism) == expected


@pytest.mark.parametrize(
    ("held", "scope"),
    [
        ({"process": False, "user": False, "cgroup": False, "netns": False}, "process"),
        ({"process": True, "user": True, "cgroup": False, "netns": False}, "user"),
        ({"process": True, "user": False, "cgroup": True, "netns": False}, "cgroup"),
        ({"process": True, "user": True, "cgroup": True, "netns": False}, "user or cgroup"),
        ({"process": True, "user": False, "cgroup": False, "netns": False}, "user or cgroup"),
        (EVERYBODY, "netns"),
    ],
)
def test_scope(held: dict[str, bool], scope: str) -> None:
    assert result(Step(2, "through", 0, "before", 0.0, 0), **held).scope == scope


def test_a_throttle_of_one_destination() -> None:
    found = result(Step(3, "before", 0, "connected", 0.001, 0), **EVERYBODY)
    assert (found.slots, found.scope) == (2, "destination")


def test_slots_that_others_have() -> None:
    found = result(Step(1, "before", 0, "before", 0.0, 0), **EVERYBODY)
    assert (found.slots, found.scope) == (0, "")
    assert "Not even one" in found.sentence
