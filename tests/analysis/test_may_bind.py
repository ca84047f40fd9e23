"""What comes of a bind by rule, in the kernel's order; test_port.py compares it with trials."""

from dataclasses import replace
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EINVAL

import pytest

from porttrace.analysis.may_bind import Here, may_bind, may_listen
from porttrace.analysis.sharing import Claim

ROOT = Here(may_privileged=True)
ASKED = Claim(port=80)


def test_nothing_is_in_the_way() -> None:
    found = may_bind(ASKED, [], ROOT)
    assert (found.errnos, found.works, found.why) == (
        frozenset((0,)),
        True,
        "Nothing is in the way.",
    )


def test_a_listener_is() -> None:
    listener = Claim(port=80, state="listening", reuseaddr=True)
    found = may_bind(replace(ASKED, reuseaddr=True), [listener], ROOT)
    assert (found.errnos, found.works) == (frozenset((EADDRINUSE,)), False)
    assert "beside a listener SO_REUSEADDR is no help" in found.why


def test_the_worst_of_several_decides() -> None:
    other = Claim(port=80, address="192.0.2.1", state="listening")
    fine = Claim(port=80, address="127.0.0.1", state="connected", reuseaddr=True)
    asked = replace(ASKED, reuseaddr=True)
    assert may_bind(asked, [fine], ROOT).works is True
    assert may_bind(asked, [fine, other], ROOT).works is False
    assert may_bind(replace(asked, address="127.0.0.1"), [fine, other], ROOT).works is True


def test_what_is_not_known_may_go_either_way() -> None:
    over = Claim(port=80, state="time_wait", reuseaddr=None, reuseport=None, uid=-1)
    found = may_bind(replace(ASKED, reuseaddr=True), [over], ROOT)
    assert (found.errnos, found.works) == (frozenset((0, EADDRINUSE)), None)
    assert "closed connection" in found.why and "a trial tells" in found.why
    assert may_bind(ASKED, [over], ROOT).works is False  # whatever it had set, we set nothing


def test_a_bind_that_works_and_a_listen_that_does_not() -> None:
    asked = Claim(port=80, reuseaddr=True)
    bound = Claim(port=80, reuseaddr=True)
    assert may_bind(asked, [bound], ROOT).works is True
    assert may_listen(asked, [replace(bound, state="listening")]).errnos == {EADDRINUSE}


@pytest.mark.parametrize(
    ("asked", "here", "errno"),
    [
        (ASKED, Here(), EACCES),
        (ASKED, Here(unprivileged_from=80), 0),
        (replace(ASKED, port=0), Here(), 0),
        (ASKED, Here(address_is_local=False), EADDRNOTAVAIL),  # before the right
        (replace(ASKED, address="2001:db8::1"), Here(address_is_local=False), EACCES),  # after it
        (ASKED, replace(ROOT, address_is_local=False, nonlocal_allowed=True), 0),
        (ASKED, replace(ROOT, address_is_local=None), 0),
        (replace(ASKED, address="ff02::1"), Here(), EINVAL),  # TCP: before all else
        (replace(ASKED, address="ff02::1", protocol="udp"), Here(), EACCES),
        (replace(ASKED, address="ff02::1", protocol="udp"), ROOT, EINVAL),
        (replace(ASKED, address="ff0e::1", protocol="udp"), ROOT, 0),
        (replace(ASKED, address="fe80::1"), ROOT, EINVAL),
        (replace(ASKED, address="fe80::1%eth0"), ROOT, 0),
        (replace(ASKED, address="::ffff:127.0.0.1", v6only=True), ROOT, EINVAL),
    ],
)
def test_what_is_checked_before_the_port(asked: Claim, here: Here, errno: int) -> None:
    assert may_bind(asked, [], here).errnos == {errno}
