"""What a tally let go is bounded: the true time lies between what it says and that and the rest."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from porttrace.analysis.fleet.tally import Entry, Tally, Totals, tally

MOST = 4
hosts = st.lists(
    st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 100), max_size=10), max_size=8
)


def of(times: dict[str, int]) -> Tally:
    return tally(((name, Entry(1, 0, 0, time)) for name, time in times.items()), MOST)


@given(hosts)
def test_no_name_has_more_than_the_tally_allows(parts: list[dict[str, int]]) -> None:
    truth: Counter[str] = Counter()
    totals = Totals(MOST)
    for times in parts:
        truth.update(times)
        totals.add(of(times))
    together = totals.tally()
    assert len(together.entries) <= MOST
    for name, time in truth.items():
        entry = together.entries.get(name)
        if entry is None:
            assert time <= together.floor_ns
        else:
            assert entry.total_ns <= time <= entry.total_ns + entry.over_ns


@given(hosts)
def test_where_all_fits_it_is_exact(parts: list[dict[str, int]]) -> None:
    truth: Counter[str] = Counter()
    totals = Totals()
    for times in parts:
        truth.update(times)
        totals.add(tally((n, Entry(1, 0, 0, t)) for n, t in times.items()))
    together = totals.tally()
    assert together.floor_ns == 0
    assert {name: entry.total_ns for name, entry in together.entries.items()} == dict(truth)
    assert all(entry.over_ns == 0 for entry in together.entries.values())


@given(hosts)
def test_the_order_does_not_matter_while_all_names_are_kept(parts: list[dict[str, int]]) -> None:
    found = []
    for order in (parts, parts[::-1]):
        totals = Totals()
        for times in order:
            totals.add(of(times))
        found.append(totals.tally())
    assert found[0] == found[1]


def test_hosts_are_counted_once() -> None:
    totals = Totals()
    for number in (0, 1, 1, 70):
        totals.add(of({"a": 5}), number)
    together = totals.tally()
    assert together.entries["a"].hosts.bit_count() == 3
    assert together.entries["a"].attempts == 4


def test_ranked_by_time_then_name() -> None:
    assert [name for name, _ in of({"b": 1, "a": 1, "c": 9}).ranked()] == ["c", "a", "b"]
