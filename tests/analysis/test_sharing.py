"""The rules by themselves; tests/lab/test_binds.py holds all of them against the kernel."""

from __future__ import annotations

from dataclasses import replace
from errno import EADDRINUSE, EOPNOTSUPP
from itertools import product
from typing import Any

import pytest

from porttrace.analysis.sharing import STATES, Call, Claim, meet, outcomes, predict, several, why

WILDCARD = Claim(port=8080, uid=1000)
LISTENER = replace(WILDCARD, state="listening")


def shared(claim: Claim = WILDCARD, **changes: Any) -> Claim:
    return replace(claim, **changes)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (WILDCARD, WILDCARD, EADDRINUSE),
        (WILDCARD, shared(protocol="udp"), 0),
        (WILDCARD, shared(port=8081), 0),
        (WILDCARD, shared(port=0), 0),
        (WILDCARD, shared(address="192.0.2.1"), EADDRINUSE),
        (shared(address="192.0.2.2"), shared(address="192.0.2.1"), 0),
        (shared(device="lo"), shared(device="eth0"), 0),
        (shared(device="lo"), WILDCARD, EADDRINUSE),
        (shared(reuseaddr=True), WILDCARD, EADDRINUSE),
        (WILDCARD, shared(reuseaddr=True), EADDRINUSE),
        (shared(reuseaddr=True), shared(reuseaddr=True, uid=0), 0),
        (shared(LISTENER, reuseaddr=True), shared(reuseaddr=True), EADDRINUSE),
        (shared(LISTENER, reuseport=True), shared(reuseport=True), 0),
        (shared(LISTENER, reuseport=True), shared(reuseport=True, uid=0), EADDRINUSE),
        (shared(state="time_wait"), shared(reuseaddr=True), EADDRINUSE),
        (shared(state="time_wait", reuseaddr=True), shared(reuseaddr=True), 0),
        (shared(state="time_wait", reuseport=True), shared(reuseport=True, uid=0), 0),
    ],
)
def test_two_sockets_of_tcp(first: Claim, second: Claim, expected: int) -> None:
    assert predict(first, second) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {"reuseaddr": True}, EADDRINUSE),
        ({"reuseaddr": True}, {"reuseaddr": True, "uid": 0}, 0),
        ({"reuseport": True}, {"reuseport": True, "uid": 0}, EADDRINUSE),
        ({"reuseport": True}, {"reuseport": True}, 0),
    ],
)
def test_two_sockets_of_udp(first: dict[str, Any], second: dict[str, Any], expected: int) -> None:
    one, other = (shared(protocol="udp", **changes) for changes in (first, second))
    assert predict(one, other) == expected
    assert predict(one, other, "listen") == EOPNOTSUPP


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("0.0.0.0", "::", True),
        ("::", "0.0.0.0", True),
        ("::", "192.0.2.1", True),
        ("192.0.2.1", "::", True),
        ("::", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "0.0.0.0", False),
        ("2001:db8::1", "::", True),
        ("2001:db8::1", "2001:db8::2", False),
        ("fe80::1%lo", "fe80::1%eth0", False),
    ],
)
def test_which_addresses_meet(first: str, second: str, expected: bool) -> None:
    assert meet(shared(address=first), shared(address=second)) is expected


def test_ipv6_only_leaves_ipv4_alone() -> None:
    only = shared(address="::", v6only=True)
    for address in ("0.0.0.0", "192.0.2.1", "::ffff:0.0.0.0"):
        assert not meet(only, shared(address=address)) and not meet(shared(address=address), only)
    assert meet(only, shared(address="::")) and meet(shared(address="::"), only)
    assert "IPV6_V6ONLY" in why(only, WILDCARD)


def test_a_connection_over_ipv6_still_meets_the_ipv4_wildcard() -> None:
    connected = shared(address="2001:db8::1", state="connected")
    assert predict(connected, WILDCARD) == EADDRINUSE
    assert "even connected" in why(connected, WILDCARD)
    assert predict(connected, shared(address="192.0.2.1")) == 0
    assert predict(connected, shared(address="::ffff:0.0.0.0")) == 0
    assert predict(shared(connected, v6only=True), WILDCARD) == 0


def test_listening_is_tried_again_at_listen() -> None:
    first, second = shared(reuseaddr=True), shared(reuseaddr=True)
    assert predict(first, second) == predict(first, second, "listen") == 0
    assert predict(shared(first, state="listening"), second, "listen") == EADDRINUSE


def test_what_is_not_known_is_tried_both_ways() -> None:
    unknown = shared(state="connected", reuseaddr=None)
    second = shared(reuseaddr=True)
    assert outcomes(unknown, second) == {0, EADDRINUSE}
    assert outcomes(unknown, WILDCARD) == {EADDRINUSE}
    assert predict(unknown, second) == EADDRINUSE
    group = shared(LISTENER, reuseport=True, uid=-1)
    assert outcomes(group, shared(reuseport=True)) == {0, EADDRINUSE}
    assert outcomes(group, WILDCARD) == {EADDRINUSE}


def test_of_several_whoever_is_in_the_way_is_enough() -> None:
    apart = shared(address="192.0.2.2")
    asked = shared(address="192.0.2.1")
    assert several([], asked) == several([apart], asked) == {0}
    assert several([apart, WILDCARD], asked) == several([WILDCARD, apart], asked) == {EADDRINUSE}
    assert several([apart, shared(reuseaddr=None)], shared(reuseaddr=True)) == {EADDRINUSE}
    unknown = shared(reuseaddr=None)
    assert several([unknown], shared(address="192.0.2.1", reuseaddr=True)) == {0, EADDRINUSE}


def test_a_group_may_let_in_whom_another_user_keeps_out() -> None:
    group = shared(reuseaddr=True, reuseport=True)
    stranger = shared(group, uid=0)
    assert predict(group, stranger) == 0
    assert several([group, stranger], shared(reuseport=True)) == {0, EADDRINUSE}
    assert several([stranger], shared(reuseport=True)) == {EADDRINUSE}
    assert several([group, stranger], WILDCARD) == {EADDRINUSE}


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="localhost"):
        predict(WILDCARD, shared(address="localhost"))


CLAIMS = [
    Claim(protocol, address, 8080, v6only, reuseaddr, reuseport, uid)
    for protocol, (address, v6only), reuseaddr, reuseport, uid in product(
        ("tcp", "udp"),
        (("0.0.0.0", False), ("192.0.2.1", False), ("::", False), ("::", True)),
        (False, True),
        (False, True),
        (0, 1000),
    )
]


@pytest.mark.parametrize("call", ["bind", "listen"])
def test_every_outcome_has_one_sentence(call: Call) -> None:
    told: dict[str, set[int]] = {}
    for state, first, second in product(STATES, CLAIMS, CLAIMS):
        one = replace(first, state=state)
        sentence = why(one, second, call)
        assert sentence.endswith(".") and "{" not in sentence
        told.setdefault(sentence, set()).add(predict(one, second, call))
    assert all(len(errnos) == 1 for errnos in told.values())
