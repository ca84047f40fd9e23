"""What hosts with a throttle have in common is counted; what nobody looked at is not absent."""

from fleets import fleet_of, part
from porttrace.analysis.fleet.compare import shared
from porttrace.analysis.fleet.model import Throttle

GATE = Throttle("serialized-connects", "gate", "process", 1, "queue")
GUARD = ("lsm-foreign", "the security module guard is active")


def test_the_telling_fact_comes_first() -> None:
    kernel = ("kernel", "6.1")
    having = [
        part(f"a{n}", throttles=frozenset({GATE}), facts=frozenset({GUARD, kernel}), census=True)
        for n in range(3)
    ]
    without = [part(f"b{n}", facts=frozenset({kernel}), census=True) for n in range(4)]
    (found,) = shared(fleet_of(*having, *without))
    assert found.throttle == GATE
    assert (found.having, len(found.lacking), found.not_seen) == (("a0", "a1", "a2"), 4, ())
    first = found.common[0]
    assert (first.kind, first.having, first.of_having) == ("lsm-foreign", 3, 3)
    assert (first.lacking, first.of_lacking, first.apart) == (0, 4, 1.0)
    same = next(each for each in found.common if each.kind == "kernel")
    assert (same.having, same.lacking, same.apart) == (3, 4, 0.0)


def test_hosts_nobody_looked_at_do_not_count() -> None:
    having = part("a", throttles=frozenset({GATE}), facts=frozenset({GUARD}), census=True)
    (found,) = shared(fleet_of(having, part("b")))
    guard = next(each for each in found.common if each.kind == "lsm-foreign")
    assert (guard.lacking, guard.of_lacking) == (0, 0)
    mode = next(each for each in found.common if each.kind == "hook mode")
    assert (mode.lacking, mode.of_lacking) == (1, 1)


def test_who_could_not_have_shown_it_is_told_apart() -> None:
    having = part("a", throttles=frozenset({GATE}))
    blind = part("b", about={"gates_seen": False})
    (found,) = shared(fleet_of(having, blind, part("c"), part("idle", attempts=0)))
    assert (found.lacking, found.not_seen) == (("c",), ("b", "idle"))
    egress = Throttle("serialized-connects", "egress", "process", 1, "drop")
    (found,) = shared(
        fleet_of(part("a", throttles=frozenset({egress})), part("b", about={"wire": False}))
    )
    assert found.not_seen == ("b",)


def test_no_throttle_nothing_to_compare() -> None:
    assert shared(fleet_of(part("a"))) == []
