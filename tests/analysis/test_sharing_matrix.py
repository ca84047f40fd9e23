"""Tables and differences of the matrix, over trials that obey the rules and some that do not."""

from __future__ import annotations

from dataclasses import replace
from errno import EADDRINUSE

from porttrace.analysis.sharing_matrix import (
    MIXED,
    Trial,
    address_grids,
    disagreements,
    option_grids,
)
from sharing_trials import obedient

OPTIONS = ("none", "REUSEADDR", "REUSEPORT", "both")


def changed(trials: tuple[Trial, ...], at: int, errno: int | None) -> list[Trial]:
    return [replace(t, errno=errno) if n == at else t for n, t in enumerate(trials)]


def place_of_a(trials: tuple[Trial, ...], call: str, errno: int | None) -> int:
    return next(n for n, t in enumerate(trials) if (t.call, t.errno) == (call, errno))


def test_where_the_kernel_obeys_nothing_differs() -> None:
    assert not disagreements(obedient("tcp")) and not disagreements(obedient("udp"))


def test_each_kind_of_difference_is_found() -> None:
    trials = obedient("tcp")
    wrong: list[tuple[str, int | None, int | None]] = [
        *(("bind", 0, EADDRINUSE), ("bind", EADDRINUSE, 0), ("listen", None, 0)),
        *(("listen", 0, None), ("listen", 0, EADDRINUSE), ("bind", EADDRINUSE, 13)),
    ]
    for call, expected, seen in wrong:
        at = place_of_a(trials, call, expected)
        assert disagreements(changed(trials, at, seen)) == [replace(trials[at], errno=seen)]


def test_a_first_socket_that_could_not_go_on_differs_too() -> None:
    trials = obedient("tcp")
    at = place_of_a(trials, "listen", 0)
    stuck = replace(trials[at], errno=None, first_errno=EADDRINUSE)
    assert disagreements([stuck]) == [stuck]
    unreached = trials[place_of_a(trials, "listen", None)]
    assert disagreements([replace(unreached, first_errno=EADDRINUSE)])


def test_udp_has_one_table_of_options() -> None:
    (grid,) = option_grids(obedient("udp"))
    assert grid.title == "UDP, the second calls bind, the first is bound, connected or client"
    assert grid.columns == OPTIONS
    assert grid.rows == (
        ("none", ("no", "no", "no", "no")),
        ("REUSEADDR", ("no", "yes", "no", "yes")),
        ("REUSEPORT", ("no", "no", "one user", "one user")),
        ("both", ("no", "yes", "one user", "yes")),
    )


def test_tcp_tells_listening_and_time_wait_from_the_rest() -> None:
    titles = [
        grid.title.removeprefix("TCP, the second calls ") for grid in option_grids(obedient("tcp"))
    ]
    assert titles == [
        "bind, the first is bound, connected, client or accepted",
        "bind, the first is listening",
        "bind, the first is time_wait",
        "listen, the first is bound, connected or time_wait",
        "listen, the first is listening",
    ]


def test_a_cell_that_depends_on_more_is_mixed() -> None:
    trials = obedient("udp")
    at = next(
        n for n, t in enumerate(trials) if t.errno == 0 and t.first.reuseaddr and t.second.reuseaddr
    )
    while (trials[at].first_place, trials[at].second_place) != ("0.0.0.0", "[::]"):
        at += 1
    grids = option_grids(changed(trials, at, EADDRINUSE))
    assert len(grids) == 2 and sum(MIXED in cells for _, cells in grids[0].rows) == 1


def test_addresses_collide_alike_for_both_protocols() -> None:
    grids = address_grids([*obedient("tcp"), *obedient("udp")])
    assert [grid.title for grid in grids] == [
        "The first is bound (TCP), listening (TCP) or bound (UDP)",
        "The first is connected (TCP), accepted (TCP), time_wait (TCP) or connected (UDP)",
        "The first is client (TCP) or client (UDP)",
    ]
    bound, connected, _ = (dict(grid.rows) for grid in grids)
    assert set(bound["[::]"]) == {"no"} and "yes" in connected["[::]"]
    assert len(connected) == len(bound) + 1
