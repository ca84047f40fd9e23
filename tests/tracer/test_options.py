"""One value tells the filter in words to a person and in flags to the compiler."""

import pytest

from porttrace.tracer.options import AF_INET, AF_INET6, TraceOptions

ALL = TraceOptions(
    pids=frozenset((20, 3)),
    follow_children=True,
    comms=frozenset(("nginx",)),
    uids=frozenset((33,)),
    remote_ports=frozenset((443, 80)),
    local_ports=frozenset((5000,)),
    family=AF_INET,
    cgroups=("/system.slice/a", "/user.slice"),
)


def test_everything_is_traced_without_a_word() -> None:
    options = TraceOptions()
    assert options.describe() == ""
    assert not options.targeted
    assert options.cflags() == ["-DMAX_ATTEMPTS=65536", "-DWIRE", "-DBINDS"]
    assert "-DWIRE" not in TraceOptions(wire=False).cflags()


@pytest.mark.parametrize(
    ("binds", "flags"),
    [
        ("all", {"-DBINDS"}),
        ("fixed", {"-DBINDS", "-DBINDS_FIXED"}),
        ("failed", {"-DBINDS", "-DBINDS_FAILED"}),
        ("none", set()),
    ],
)
def test_which_binds(binds: str, flags: set[str]) -> None:
    assert {flag for flag in TraceOptions(binds=binds).cflags() if "BINDS" in flag} == flags


def test_a_filter_on_the_other_end_leaves_binds_out() -> None:
    assert "-DBINDS" not in TraceOptions(remote_ports=frozenset({80})).cflags()


def test_what_sockets_of_ipv6_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, on in ((None, False), ("0", False), ("1", True)):
        settings = {"net.ipv6.bindv6only": value}
        monkeypatch.setattr("porttrace.tracer.options.sysctl", settings.__getitem__)
        assert ("-DV6ONLY_BY_DEFAULT" in TraceOptions().cflags()) is on


def test_every_filter_in_words() -> None:
    assert ALL.describe() == (
        "pid 3,20 and children, comm nginx, uid 33, remote port 80,443, local port 5000, IPv4, "
        "cgroup /system.slice/a,/user.slice"
    )
    assert TraceOptions(family=AF_INET6).describe() == "IPv6"


def test_every_filter_in_flags() -> None:
    assert set(ALL.cflags()[1:]) == {
        "-DFILTER_PID",
        "-DFILTER_COMM",
        "-DFILTER_UID",
        "-DFILTER_RPORT",
        "-DFILTER_LPORT",
        "-DFOLLOW_CHILDREN",
        "-DGATE",
        "-DWIRE",
        "-DFILTER_FAMILY=2",
        "-DFILTER_CGROUP=2",
    }
    assert TraceOptions(extra_flags=("-DX",)).cflags()[-1] == "-DX"


@pytest.mark.parametrize(
    ("options", "targeted"),
    [
        (TraceOptions(pids=frozenset((1,))), True),
        (TraceOptions(comms=frozenset(("a",))), True),
        (TraceOptions(uids=frozenset((0,))), True),
        (TraceOptions(cgroups=("/a",)), True),
        (TraceOptions(remote_ports=frozenset((80,)), family=AF_INET), False),
    ],
)
def test_who_is_watched_by_the_scheduler(options: TraceOptions, targeted: bool) -> None:
    assert options.targeted is targeted
    assert ("-DGATE" in options.cflags()) is targeted
