"""What the rules ask of samples."""

import pytest

from porttrace.analysis.model import Sample
from porttrace.analysis.samples import MOST_SAMPLES, Ports, grown, ports_of, reuses, thinned


def test_a_long_list_is_thinned_and_keeps_its_ends() -> None:
    samples = [Sample(number, 42) for number in range(3 * MOST_SAMPLES)]
    kept = thinned(samples)
    assert len(kept) <= MOST_SAMPLES
    times = [each.time_ns for each in kept]
    assert times == sorted(times) and (times[0], times[-1]) == (0, 3 * MOST_SAMPLES - 1)
    # the latest are all there
    assert times[-100:] == list(range(3 * MOST_SAMPLES - 100, 3 * MOST_SAMPLES))
    assert thinned(samples[:7]) == tuple(samples[:7])


def test_growth_of_a_counter() -> None:
    samples = [Sample(n, 42, counters={"ListenDrops": value}) for n, value in enumerate((4, 4, 9))]
    assert grown(samples, "ListenDrops") == 5
    assert grown(samples, "Weather") == 0 and grown([], "ListenDrops") == 0
    assert grown([Sample(1, 42)], "ListenDrops") == 0


@pytest.mark.parametrize(
    ("reserved", "number"),
    [("", 0), ("80,443", 0), ("40005", 1), ("39990-40001,40019-40030", 3), ("1-65535", 20)],
)
def test_reserved_ports_count_within_the_range(reserved: str, number: int) -> None:
    known = {"ip_local_port_range": "40000 40019", "ip_local_reserved_ports": reserved}
    ports = ports_of(known)
    assert ports == Ports(40000, 40019, number) and ports.number() == 20 - number


@pytest.mark.parametrize(("last", "number"), [(40000, 1), (40001, 2), (40010, 10), (40011, 12)])
def test_of_an_odd_range_the_last_port_is_never_chosen(last: int, number: int) -> None:
    assert Ports(40000, last, 0).number() == number


@pytest.mark.parametrize("known", [None, {}, {"ip_local_port_range": "x y"}])
def test_without_a_range_there_is_none(known: dict[str, str] | None) -> None:
    assert ports_of(known) is None


@pytest.mark.parametrize(
    ("mode", "stamps", "source", "destination", "again"),
    [
        ("0", "1", "127.0.0.1", "127.0.0.1:80", False),
        ("1", "1", "192.0.2.1", "192.0.2.2:80", True),
        ("1", "0", "192.0.2.1", "192.0.2.2:80", False),
        ("2", "1", "192.0.2.1", "192.0.2.2:80", False),
        ("2", "1", "127.0.0.1", "127.0.0.1:80", True),
        ("2", "1", "::1", "[::1]:80", True),
        ("2", "1", "2001:db8::1", "[2001:db8::1]:80", False),
    ],
)
def test_who_reuses_time_wait(
    mode: str, stamps: str, source: str, destination: str, again: bool
) -> None:
    known = {"tcp_tw_reuse": mode, "tcp_timestamps": stamps}
    assert reuses(known, source, destination) is again
