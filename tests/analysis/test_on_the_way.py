"""Throttles behind SYN_SENT are found at their place; slow, lossy and late networks are not."""

import random

import pytest

from porttrace.analysis.findings import diagnose
from porttrace.analysis.model import Finding, Trace

from .simulate import KEYS, MS, START_NS, Client, S
from .wires import Asked, dropped, free, limited, lost, queued, wanted, written

SEEDS = range(6)
PLACES = ("egress", "network", "ingress")


def throttles(trace: Trace) -> list[Finding]:
    rules = ("serialized-connects", "limited-connects", "paced-connects")
    return [found for found in diagnose(trace) if found.rule in rules]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("place", PLACES)
def test_a_line_is_found_where_it_stands(place: str, slots: int, seed: int) -> None:
    asked = queued(wanted(seed, 5 + 2 * slots, 8), slots, seed)
    (found,) = throttles(written(asked, place))
    assert (found.place, found.mechanism) == (place, "queue")
    assert (found.scope, found.slots) == ("process", slots)
    assert found.confidence >= 0.8


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("place", "slots"), [("egress", 1), ("egress", 2), ("network", 1)])
def test_lost_without_a_slot_and_sent_again(place: str, slots: int, seed: int) -> None:
    asked = dropped(wanted(seed, 4 + 2 * slots, 8), slots, seed)
    (found,) = throttles(written([each for each in asked if each.go or each.life_ns], place))
    assert (found.place, found.mechanism) == (place, "drop")
    assert (found.scope, found.slots) == ("process", slots)
    assert found.confidence >= (0.79 if place == "egress" else 0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_slots_behind_a_gateway_that_drops_are_never_firm(seed: int) -> None:
    # Which of many unanswered SYNs passed cannot be told from this side of it.
    asked = dropped(wanted(seed, 8, 8), 2, seed)
    trace = written([each for each in asked if each.go or each.life_ns], "network")
    assert all((f.place, f.mechanism) == ("network", "drop") for f in throttles(trace))
    assert all(found.confidence < 0.8 for found in throttles(trace))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("place", PLACES)
def test_attempts_that_wait_for_nobody(place: str, seed: int) -> None:
    asked, dice = wanted(seed, 8, 8), random.Random(seed)
    late = [int(dice.expovariate(1 / (200 * MS))) if dice.random() < 0.4 else 0 for _ in asked]
    assert throttles(written(free(asked, late), place)) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("place", ["egress", "network"])
def test_chance_loses_syns_whatever_is_open(place: str, share: float, seed: int) -> None:
    assert throttles(written(lost(wanted(seed, 8, 8), share, seed), place)) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scope", ["process", "destination"])
def test_a_rate_counts_the_syns_of_dead_attempts_too(scope: str, seed: int) -> None:
    asked = limited(wanted(seed, 8, 10, 0.25), 2.5, 2, KEYS[scope], seed)
    trace = written([each for each in asked if each.go or each.life_ns], "egress")
    told = throttles(trace)
    assert len(told) == 1 if scope == "process" else 1 <= len(told) <= 2  # of two living ones
    for found in told:
        assert (found.rule, found.place, found.mechanism) == ("paced-connects", "egress", "drop")
        assert found.scope == scope
        assert found.evidence["rate_per_s"] == pytest.approx(2.5, rel=0.1)


def test_a_far_peer_is_no_line() -> None:
    asked = wanted(1, 6, 8)
    assert throttles(written(free(asked, [80 * MS] * len(asked)), "network")) == []


def test_what_was_not_watched_is_not_judged() -> None:
    trace = written(queued(wanted(1, 7, 8), 1, 1), "egress")
    trace.rows["watched"] = False
    assert [found.place for found in throttles(trace) if found.place == "egress"] == []


def test_who_gave_up_at_a_living_destination_held_no_slot() -> None:
    # The web site whose agent tries a dead monitor for 21 s again and again, behind a router that
    # drops; a page gives up after 60 s. Those that did go where others were answered meanwhile.
    agent, page = Client(7, 1, "192.0.2.66:9100"), "192.0.2.2:389"
    asked = [Asked(START_NS + 22 * number * S, agent, 21 * S) for number in range(5)]
    asked += [
        Asked(START_NS + (1000 + 1013 * number) * MS, Client(7, 10 + number, page))
        for number in range(40)
    ]
    asked = dropped(sorted(asked, key=lambda each: each.start), 1, 1)
    for each in asked:
        if not each.life_ns and not 0 < each.go - each.start < 60 * S:
            each.life_ns, each.go = 60 * S, 0
            each.resent = tuple(time for time in each.resent if time < each.start + each.life_ns)
    (found,) = throttles(written(asked, "network"))
    assert (found.place, found.mechanism, found.scope, found.slots) == (
        "network",
        "drop",
        "process",
        1,
    )
    assert {party.destination for party in found.blockers[:2]} == {"192.0.2.66:9100"}
    assert found.confidence < 0.8
