"""Filters work in the kernel: what they leave out never becomes an event."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from porttrace.lab.site import Site, open_site
from tracing import Traced, run, trace

pytestmark = pytest.mark.kernel

CLIENT = """
import os, socket, sys, time
for word in sys.argv[1:]:
    family, address, port, bound = word.split("/")
    with socket.socket(getattr(socket, family)) as s:
        if int(bound):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("", int(bound)))
        s.connect_ex((address, int(port)))
"""
FOUR = "AF_INET/192.0.2.2/80/0"
REFUSED = "AF_INET/192.0.2.2/9/0"
SIX = "AF_INET6/2001:db8::2/80/0"
MAPPED = "AF_INET6/::ffff:192.0.2.2/80/0"
BOUND = "AF_INET/192.0.2.2/389/45678"
ALL = (FOUR, REFUSED, SIX, MAPPED, BOUND)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


def client(site: Site, *words: str) -> list[str]:
    return site.hosts.in_client([sys.executable, "-c", CLIENT, *words])


def went_to(traced: Traced) -> list[tuple[str, int]]:
    return [(row["daddr"], row["dport"]) for row in traced.attempts]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), 5),
        (("-P", "9"), 1),
        (("-P", "9,389"), 2),
        (("-4",), 4),
        (("-6",), 1),
        (("-L", "45678"), 1),
        (("-u", "0"), 5),
        (("-u", "nobody"), 0),
        (("--comm", "no-such-name"), 0),
        (("-P", "80", "-6"), 1),
    ],
)
def test_a_filter_lets_through_what_it_names(
    site: Site, options: tuple[str, ...], expected: int
) -> None:
    traced = trace(client(site, *ALL), *options)
    assert len(traced.attempts) == expected, went_to(traced)
    assert traced.report["attempts"]["total"] == expected
    assert traced.code == 0


def test_a_local_port_is_known_even_when_it_was_not_bound(site: Site) -> None:
    # GIVEN a range of one ephemeral port in the client's namespace
    os.system(" ".join(site.hosts.in_client(
        ["sysctl", "-qw", "net.ipv4.ip_local_port_range='43611 43611'"])))  # fmt: skip
    try:
        traced = trace(client(site, REFUSED), "-L", "43611")
        other = trace(client(site, REFUSED), "-L", "43612")
    finally:
        os.system(" ".join(site.hosts.in_client(
            ["sysctl", "-qw", "net.ipv4.ip_local_port_range='32768 60999'"])))  # fmt: skip
    assert [row["sport"] for row in traced.attempts] == [43611]
    assert traced.attempts[0]["syn_ns"] <= traced.attempts[0]["end_ns"]
    assert other.attempts == []


def test_comm_and_cgroup_choose_among_processes(site: Site) -> None:
    loop = "for i in 1 2 3; do {}; done".format(" ".join(map(_quoted, client(site, FOUR))))
    named = run("--json", "--comm", "python", "-P", "80", "--", "sh", "-c", loop)
    assert named.stdout.count('"type": "attempt"') == 3
    cgroup = _own_cgroup()
    if cgroup:
        traced = trace(client(site, FOUR), "--cgroup", cgroup)
        assert len(traced.attempts) == 1


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)


def _own_cgroup() -> str:
    # The directory of this test's own cgroup v2, "" where there is none.
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    tree = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), "")
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line[3:] for line in groups if line.startswith("0::")), "")
    return tree + own if tree and own else ""


def test_a_cgroup_that_is_none_is_a_clear_error(tmp_path: object) -> None:
    for path, word in ((str(tmp_path), "not a directory of the cgroup v2 tree"),
                       ("/no/such/place", "No such file")):  # fmt: skip
        done = run("--cgroup", path, "-d", "1")
        assert done.returncode == 1
        assert word in done.stderr and "hint:" in done.stderr
        assert "Traceback" not in done.stderr


def test_pid_without_children_leaves_children_out(site: Site) -> None:
    child = " ".join(map(_quoted, client(site, FOUR)))
    with_children = trace(["sh", "-c", f"{child}; true"])
    without = trace(["sh", "-c", f"{child}; true"], "--no-children")
    assert len(with_children.attempts) == 1
    assert without.attempts == []


def test_two_tracers_at_once_see_the_same(site: Site) -> None:
    inner = [sys.executable, "-m", "porttrace.cli", "--json", "--", *client(site, *ALL)]
    outer = trace(inner)
    assert len(outer.attempts) == 5
