"""Who is in the way of a bind, and what to do about each kind of holder."""

from dataclasses import replace
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL

import pytest

from porttrace.analysis.may_bind import FINE, Verdict
from porttrace.analysis.port_advice import in_the_way, what_to_do
from porttrace.analysis.sharing import Claim
from porttrace.tracer.facts import Holder

ASKED = Claim("tcp", "0.0.0.0", 8080)
IN_USE = Verdict(frozenset((EADDRINUSE,)), "")
SERVER = Holder("listener", address="0.0.0.0", port=8080, pid=7, comm="web", uid=0, also=(8, 9))
CLIENT = Holder("client", address="192.0.2.1", port=8080, remote="192.0.2.9:80", pid=7, comm="cli")
OVER = Holder("time_wait", address="192.0.2.1", port=8080, remote="192.0.2.9:80", frees_in_s=42.2)
TAKEN = replace(CLIENT, kind="accepted")
LEAK = replace(CLIENT, kind="closing", state="CLOSE_WAIT")


def told(*holders: Holder, asked: Claim = ASKED, bind: Verdict = IN_USE, within: str = "") -> str:
    return " ".join(what_to_do(holders, asked, bind, within, 1024))


def test_nothing_to_do_where_it_works() -> None:
    assert told(bind=FINE) == ""


@pytest.mark.parametrize(
    ("holder", "text"),
    [
        (SERVER, "Stop web: kill 7 8 9 (all 3 have it open)"),
        (SERVER, "--reuseport asks for it"),
        (replace(SERVER, container="web1"), "Stop web in container web1"),
        (replace(SERVER, kind="bound", also=()), "Stop web: kill 7, or its service"),
        (OVER, "Wait 42 s; or let the server set SO_REUSEADDR before bind"),
        (OVER, "(--reuseaddr asks for that)"),
        (OVER, "ip netns exec a ss -tK state time-wait 'sport = 8080'"),
        (CLIENT, "ip netns exec a ss -tK state connected 'sport = 8080 and dst 192.0.2.9 and"),
        (CLIENT, "then reserve the port"),
        (replace(CLIENT, why="x (the last of 2 such sockets)"), "'sport = 8080' ends these conn"),
        (TAKEN, "Let the server set SO_REUSEADDR before bind, as nearly all do, this time and the"),
        (LEAK, "cli (pid 7) has to close it, it leaks the descriptor: kill 7"),
        (replace(LEAK, state="FIN_WAIT2"), "Let the server set SO_REUSEADDR"),
        (replace(SERVER, pid=0, also=()), "Find out whose it is, as root"),
    ],
)
def test_each_kind_has_its_cure(holder: Holder, text: str) -> None:
    assert text in told(holder, within="ip netns exec a ")


def test_what_was_asked_for_is_not_proposed() -> None:
    asked = replace(ASKED, reuseaddr=True, reuseport=True)
    assert "--reuseport" not in told(SERVER, asked=asked)
    assert "helps only where both have set it" in told(OVER, asked=asked)
    assert "--reuseaddr" not in told(OVER, asked=asked)


def test_the_kernels_own_cannot_be_stopped() -> None:
    assert told(Holder("kernel", port=8080)) == ""


def test_a_listener_s_connections_are_no_second_matter() -> None:
    assert told(SERVER, TAKEN) == told(SERVER)


def test_rights_and_addresses() -> None:
    low = replace(ASKED, port=80)
    text = told(asked=low, bind=Verdict(frozenset((EACCES,)), ""), within="ip netns exec a ")
    assert "setcap cap_net_bind_service=+ep PROGRAM" in text
    assert "ip netns exec a sysctl -w net.ipv4.ip_unprivileged_port_start=80" in text
    text = told(asked=replace(ASKED, address="::7"), bind=Verdict(frozenset((EADDRNOTAVAIL,)), ""))
    assert "ip address add ::7 dev DEVICE" in text and "net.ipv6.ip_nonlocal_bind=1" in text


LISTENING = Claim("tcp", "0.0.0.0", 8080, state="listening")
WAITING = Claim("tcp", "192.0.2.1", 8080, state="time_wait", uid=-1, reuseaddr=None)
NARROW = Claim("tcp", "192.0.2.5", 8080, state="listening")


@pytest.mark.parametrize(
    ("asked", "ways"),
    [
        (ASKED, (True, True, True)),
        (replace(ASKED, reuseaddr=True), (True, None, True)),
        (replace(ASKED, address="192.0.2.5"), (True, False, True)),
        (replace(ASKED, address="192.0.2.5", protocol="udp"), (False, False, False)),
    ],
)
def test_which_of_several_is_in_the_way(asked: Claim, ways: tuple[bool | None, ...]) -> None:
    holders = (SERVER, OVER, replace(SERVER, address="192.0.2.5"))
    standing = [LISTENING, WAITING, NARROW]
    assert in_the_way(holders, asked, standing) == ways


def test_listen_counts_where_bind_works() -> None:
    """SO_REUSEADDR on both: bound beside each other, but one of them listens."""
    wide = replace(LISTENING, address="::ffff:192.0.2.1", reuseaddr=True, state="bound")
    holder = Holder("bound", address="192.0.2.1", port=8080, uid=0)
    assert in_the_way((holder,), replace(ASKED, reuseaddr=True), [wide]) == (False,)
    listens = replace(wide, state="listening")
    holder = replace(holder, kind="listener")
    assert in_the_way((holder,), replace(ASKED, reuseaddr=True), [listens]) == (True,)


def test_what_cannot_be_matched_is_not_known() -> None:
    assert in_the_way((SERVER,), ASKED, []) == (None,)
