"""Each rule is silent about the worlds of the others, also with a tenth of the events lost."""

import random
from collections.abc import Callable, Iterable

import pytest

from porttrace.analysis.findings import diagnose
from porttrace.analysis.model import Trace

from .. import controls, simulate  # noqa: TID252
from ..deniers import Slots, agent_and_logins, lossy, world  # noqa: TID252
from ..simulate import Throttle  # noqa: TID252
from ..workloads import crowd  # noqa: TID252
from .test_family import both, in_turn
from .test_lost import lossy_path
from .test_paced import dropping, held
from .test_storm import stream

World = Callable[[int], Trace]
CAUSES = (
    "serialized-connects", "limited-connects", "paced-connects", "syn-lost", "connect-storm",
    "broken-family",
)  # fmt: skip


def queued(seed: int) -> Trace:
    """Return busy processes behind a throttle that queues."""
    rng = random.Random(seed)
    slots = rng.choice([1, 2, 3])
    clients = crowd(rng, rng.choice([1, 3]), 2 * slots + 3, 15, service_ms=60)
    scope = rng.choice(["process", "user", "host"])
    return simulate.throttled(
        clients, Throttle(slots, scope, rng.choice(["gate", "connect"])), seed
    )


def denied(seed: int) -> Trace:
    """Return the story behind a throttle that denies."""
    return world(agent_and_logins(rounds=20), seed, Slots(1))


WORLDS: dict[str, tuple[World, set[str]]] = {
    "queued": (queued, {"serialized-connects"}),
    "denied": (denied, {"limited-connects"}),
    "rate that holds": (lambda seed: held(100, 1, seed), {"paced-connects"}),
    "rate that drops": (lambda seed: dropping(seed, 3, 3, mean_s=0.45), {"paced-connects"}),
    "lossy path": (lambda seed: lossy_path(seed, 0.2), {"syn-lost"}),
    "storm": (lambda seed: stream(80, 20, seed=seed), {"connect-storm"}),
    "dead IPv6": (lambda seed: both(*in_turn(8 + seed)), {"broken-family"}),
}
"""Worlds by name, and the one rule that must speak there."""


def causes(trace: Trace) -> set[str]:
    return {finding.rule for finding in diagnose(trace)} & set(CAUSES)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", WORLDS)
def test_only_its_own_rule_speaks(name: str, seed: int) -> None:
    make, expected = WORLDS[name]
    trace = make(seed)
    assert causes(trace) == expected
    # AND with lost events none speaks that should not: that SYNs were dropped stays true of a rate
    # that cannot be told any more
    weaker = {"syn-lost"} if name == "rate that drops" else set()
    assert causes(lossy(trace, seed)) <= expected | weaker


def silent(seeds: Iterable[int]) -> Iterable[tuple[str, int, set[str]]]:
    """Yield the causes that are found in the controls, of those that are not simply slow."""
    for control in controls.CONTROLS:
        for seed in seeds:
            made = control(seed)
            yield control.__name__, seed, causes(made)
            yield f"lossy {control.__name__}", seed, causes(lossy(made, seed))


def test_the_controls_have_no_cause() -> None:
    found = [each for each in silent(range(3)) if each[2]]
    # A supervisor that handles one call after the other keeps a pace indeed (see test_paced).
    others = [each for each in found if "supervisor" not in each[0] and "paced" not in each[0]]
    assert not others
    assert all(each[2] == {"paced-connects"} for each in found)
