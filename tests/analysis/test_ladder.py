"""Rungs as measured: SYNs into a black hole on Linux 6.18, both with linear timeouts 4 and 0."""

import pytest

from porttrace.analysis.ladder import given_up, is_near, ladder, of_host

# (retries, linear): SYNs sent again after, gave up after; seconds, from a packet capture
MEASURED = {
    (1, 4): ([1.03, 2.05], 3.075),
    (2, 4): ([1.03, 2.05, 3.07, 4.1, 5.12], 7.139),
    (3, 4): ([1.03, 2.05, 3.07, 4.1, 5.12, 7.14, 11.27], 19.462),
    (4, 4): ([1.03, 2.05, 3.07, 4.1, 5.12, 7.14, 11.27, 19.46], 35.586),
    (5, 4): ([1.03, 2.05, 3.07, 4.1, 5.12, 7.14, 11.27, 19.46, 35.59], 67.841),
    (6, 4): ([1.02, 2.05, 3.07, 4.1, 5.12, 7.14, 11.27, 19.46, 35.58, 67.84], 133.379),
    (1, 0): ([1.0], 3.018),
    (2, 0): ([1.03, 3.05], 7.144),
    (3, 0): ([1.03, 3.04, 7.14], 15.332),
    (4, 0): ([1.02, 3.04, 7.14, 15.33], 31.456),
    (5, 0): ([1.02, 3.04, 7.14, 15.32, 31.45], 63.708),
    (6, 0): ([1.01, 3.03, 7.12, 15.31, 31.44, 63.7], 129.235),
}


@pytest.mark.parametrize("setting", MEASURED)
def test_the_ladder_is_the_measured_one(setting: tuple[int, int]) -> None:
    rungs, give_up = MEASURED[setting]
    computed = ladder(*setting)
    assert len(computed.rungs_s) == len(rungs)
    assert all(is_near(seen, due) for seen, due in zip(rungs, computed.rungs_s, strict=True))
    assert is_near(give_up, computed.give_up_s)


def test_the_two_ladders_by_heart() -> None:
    assert ladder(6, 0).rungs_s == (1, 3, 7, 15, 31, 63)
    assert ladder(6, 0).give_up_s == 127
    assert ladder(6, 4).rungs_s == (1, 2, 3, 4, 5, 7, 11, 19, 35, 67)
    assert ladder(6, 4).give_up_s == 131


def test_long_ladders_rise_no_faster_than_the_longest_timer() -> None:
    rungs = ladder(10, 0).rungs_s
    assert rungs[6:] == (127, 247, 367, 487)


def test_sysctls_are_found_by_either_name_and_default() -> None:
    assert of_host({}).give_up_s == 127
    assert of_host({"tcp_syn_retries": 2, "tcp_syn_linear_timeouts": 4}).give_up_s == 7
    assert of_host({"net.ipv4.tcp_syn_retries": 3}).give_up_s == 15


@pytest.mark.parametrize(
    ("waited_s", "retries"), [(133.4, 6), (7.14, 2), (19.5, 3), (21.0, None), (10.2, None)]
)
def test_give_up_times_tell_the_number_of_retries(waited_s: float, retries: int | None) -> None:
    step = given_up(waited_s, {"tcp_syn_retries": 6, "tcp_syn_linear_timeouts": 4})
    assert (step.retries if step else None) == retries
