"""Throttles of packets around real programs: they limit as told, whom they are told, and no more.

What passed a throttle is read off the server's wire, what a program waited is its own truth.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab_wire import Wire, listening
from porttrace.lab.hosts import BLACKHOLE_V6, CLIENT_V4, SERVER_V4
from porttrace.lab.run import run_throttled
from porttrace.lab.site import DEAD, LIVE, Record, Site, open_site, read_records, run
from porttrace.lab.throttle import PACKET_KINDS, ROUTED_KINDS, SCOPES_OF_KIND, Throttle
from tracing import wait_until

pytestmark = pytest.mark.kernel

ENDS = ["--dead", DEAD, "--live", LIVE]
ENDS_V6 = ["--dead", f"[{BLACKHOLE_V6}]:9100", "--live", "[2001:db8::2]:80"]
HOLDING = ("egress-hold", "gateway", "ingress-hold")
DROPPING = ("egress-drop", "gateway-drop")
SLACK_NS = 20_000_000


@pytest.fixture(scope="module")
def routed() -> Iterator[Site]:
    """Yield a site with a router: every throttle works there."""
    with open_site(router=True) as opened:
        yield opened


def seconds(row: Record) -> float:
    return float(row["end_ns"] - row["start_ns"]) / 1e9


def live(rows: list[Record]) -> list[Record]:
    return [row for row in rows if row["thread"].startswith("live")]


def seed_case(site: Site, throttle: Throttle, *options: str) -> list[Record]:
    return site.truth("two_threads", *ENDS, "--dead-time", "1", *options, throttle=throttle)


def most_at_once(rows: list[Record], wire: Wire) -> int:
    """Count the attempts that were past the throttle at once: from their SYN to their end."""
    first_ns = wire.first_ns()
    spans: list[tuple[int, int]] = [
        (first_ns[r["sport"]], r["end_ns"] - SLACK_NS) for r in rows if r["sport"] in first_ns
    ]
    assert spans
    most: int = max(sum(start <= at < end for start, end in spans) for at, _end in spans)
    return most


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("kind", HOLDING)
def test_held_attempts_go_on_when_one_ends(routed: Site, kind: str, slots: int) -> None:
    full = ["--dead-threads", str(slots), "--live-threads", "3"]
    waits = [seconds(row) for row in live(seed_case(routed, Throttle(kind, slots), *full))]
    assert waits == pytest.approx([0.5] * 3, abs=0.1)
    # one slot to spare: all of them pass through it
    waits = [seconds(row) for row in live(seed_case(routed, Throttle(kind, slots + 1), *full))]
    assert max(waits) < 0.3


@pytest.mark.parametrize("kind", DROPPING)
def test_a_dropped_attempt_goes_on_with_its_next_syn(routed: Site, kind: str) -> None:
    with listening(routed.hosts.client) as wire:
        (row,) = live(seed_case(routed, Throttle(kind, 1)))
    # Called at 0.5 s, the dead one ends at 1 s, the SYN comes again at 1.5 s.
    assert seconds(row) == pytest.approx(1.0, abs=0.15)
    seen = [sport for _at, sport, _dport in wire.syns].count(row["sport"])
    assert seen == (2 if kind == "gateway-drop" else 1)


@pytest.mark.parametrize(
    ("throttle", "result"),
    [
        (Throttle("deny"), "ECONNREFUSED"),
        (Throttle("deny", answer="port"), "ECONNREFUSED"),
        (Throttle("deny", answer="prohibited"), "EHOSTUNREACH"),
        (Throttle("deny-cgroup", scope="cgroup"), "EPERM"),
    ],
)
def test_attempts_are_denied_exactly_while_one_is_in_flight(
    routed: Site, throttle: Throttle, result: str
) -> None:
    (row,) = live(seed_case(routed, throttle))
    assert row["result"] == result and seconds(row) < 0.3
    (row,) = live(seed_case(routed, throttle, "--delay", "1.1"))
    assert row["result"] == "connected" and seconds(row) < 0.3


def test_an_older_kernels_form_denies_as_well(site: Site) -> None:
    program = (
        "from porttrace.lab.throttles import connect_hook as hook; from porttrace.lab import run\n"
        "simple = hook._program\n"
        "def program(map_fd, exact):\n"
        "    return b'' if exact else simple(map_fd, False)\n"
        "hook._program = program\n"
        "raise SystemExit(run.main())\n"
    )
    options = ["two_threads", *ENDS, "--dead-time", "1", "--dead-threads", "2"]
    throttled = site.argv(*options, throttle=Throttle("deny-cgroup", 2, "cgroup"))
    at = throttled.index("-m")
    rows = read_records(run([*throttled[:at], "-c", program, *throttled[at + 2 :]]))
    assert [row["result"] for row in live(rows)] == ["EPERM"]


def test_a_denying_cgroup_has_as_many_slots_as_told(site: Site) -> None:
    full = ["--dead-threads", "2", "--live-threads", "3"]
    throttle = Throttle("deny-cgroup", 2, "cgroup")
    assert {row["result"] for row in live(seed_case(site, throttle, *full))} == {"EPERM"}
    one_less = ["--dead-threads", "1", "--live-threads", "1"]
    assert {row["result"] for row in live(seed_case(site, throttle, *one_less))} == {"connected"}


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("kind", ["egress-hold", "egress-drop", "deny", "gateway", "gateway-drop"])
def test_never_more_than_the_slots_are_past_the_throttle(
    routed: Site, kind: str, slots: int
) -> None:
    amount = ["--threads", "6", "--connects", "3", "--dead-share", "0.6", "--dead-time", "0.4"]
    for _ in range(3):
        with listening(routed.hosts.server) as wire:
            rows = routed.truth("storm", *ENDS, *amount, throttle=Throttle(kind, slots))
        assert len(rows) == 18
        most = most_at_once(rows, wire)
        if most == slots:
            break  # else a thread that got no CPU says late that its attempt is over
    assert most == slots


@pytest.mark.parametrize("ends", [ENDS, ENDS_V6], ids=["v4", "v6"])
@pytest.mark.parametrize("kind", sorted(PACKET_KINDS - {"rate", "rate-hold"}))
def test_both_families_are_throttled(routed: Site, kind: str, ends: list[str]) -> None:
    rows = routed.truth("two_threads", *ends, "--dead-time", "1", throttle=Throttle(kind))
    (row,) = live(rows)
    assert row["result"] == "ECONNREFUSED" if kind == "deny" else seconds(row) > 0.4


# Process 0 alone has a dead attempt. Of the eight, 0 and 4 share a user; 0, 2, 4 and 6 a cgroup.
HELD_WITH_FIRST = {"process": 0, "user": 1, "cgroup": 3, "host": 7, "destination": 0}


@pytest.mark.parametrize("scope", HELD_WITH_FIRST)
@pytest.mark.parametrize("kind", ["egress-hold", "ingress-hold"])
def test_outsiders_of_the_scope_run_freely(site: Site, kind: str, scope: str) -> None:
    places = ["--processes", "8", "--users", "4", "--cgroups", "2", "--dead-processes", "1"]
    amount = ["--threads", "1", "--connects", "1", "--dead-share", "1", "--dead-time", "1"]
    rows = site.truth(
        *("storm", *ENDS, *places, *amount, "--live-after", "0.3"),
        throttle=Throttle(kind, 1, scope),
    )
    held = [row for row in rows if row["destination"] == LIVE and seconds(row) > 0.3]
    free = [row for row in rows if row["destination"] == LIVE and seconds(row) < 0.2]
    assert (len(held), len(free)) == (HELD_WITH_FIRST[scope], 7 - HELD_WITH_FIRST[scope])


def test_attempts_to_one_destination_go_one_at_a_time(site: Site) -> None:
    amount = ["--threads", "3", "--connects", "2", "--dead-share", "1", "--dead-time", "0.4"]
    with listening(site.hosts.server) as wire:
        rows = site.truth(
            "storm", *ENDS, *amount, throttle=Throttle("egress-hold", 1, "destination")
        )
    assert len(rows) == 6 and most_at_once(rows, wire) == 1


def test_on_the_clients_wire_a_gateway_is_told_from_a_local_hold(routed: Site) -> None:
    left_s = {}
    for kind in ("egress-hold", "gateway"):
        with listening(routed.hosts.client) as wire:
            (row,) = live(seed_case(routed, Throttle(kind)))
        left_s[kind] = (wire.first_ns()[row["sport"]] - row["start_ns"]) / 1e9
        assert seconds(row) == pytest.approx(0.5, abs=0.1)
    assert left_s["egress-hold"] == pytest.approx(0.5, abs=0.1)
    assert left_s["gateway"] < 0.05


def test_a_syn_sent_again_takes_no_second_slot_and_is_not_let_go_twice(routed: Site) -> None:
    options = [*ENDS, "--dead-time", "2.5", "--live-threads", "2"]
    with listening(routed.hosts.client) as client, listening(routed.hosts.server) as server:
        rows = routed.truth("two_threads", *options, throttle=Throttle("gateway", 1))
    for row in live(rows):
        sent, passed = ([s for _at, s, _d in w.syns].count(row["sport"]) for w in (client, server))
        assert (sent, passed) == (2, 1)
        assert seconds(row) == pytest.approx(2.0, abs=0.1)


def spaces_s(site: Site, throttle: Throttle, *options: str) -> list[float]:
    """Return the seconds between the SYNs that reach the server, of five attempts at once."""
    amount = ["--threads", "5", "--connects", "1", "--dead-share", "0"]
    with listening(site.hosts.server) as wire:
        rows = site.truth("storm", *ENDS, *amount, *options, throttle=throttle)
    assert {row["result"] for row in rows} == {"connected"}
    times = sorted(wire.first_ns().values())
    return [(later - at) / 1e9 for at, later in itertools.pairwise(times)]


def test_a_pace_lets_one_go_at_a_time_whatever_ends(site: Site) -> None:
    spaces = spaces_s(site, Throttle("rate-hold", 1, "host", rate_per_s=5))
    assert spaces == pytest.approx([0.2] * 4, abs=0.05)


def test_a_rate_drops_what_is_beyond(site: Site) -> None:
    spaces = spaces_s(site, Throttle("rate", 1, "host", rate_per_s=1))
    assert len(spaces) == 4 and min(spaces) > 0.7


def test_a_rate_by_user_counts_each_by_itself(site: Site) -> None:
    options = ["--processes", "2", "--users", "2", "--threads", "1"]
    assert max(spaces_s(site, Throttle("rate", 1, "user", rate_per_s=1), *options)) < 0.3
    assert max(spaces_s(site, Throttle("rate", 1, "host", rate_per_s=1), *options)) > 0.7


def test_a_reader_that_holds_nothing_lets_a_burst_go(site: Site) -> None:
    options = ["--threads", "50", "--connects", "5"]
    rows = site.truth("controls", "burst", *ENDS, *options, throttle=Throttle("egress-hold", 0))
    assert len(rows) == 250 and max(map(seconds, rows)) < 1


def rules_left(site: Site, kind: str) -> str:
    shown = []
    place = site.hosts.router if kind in ROUTED_KINDS else site.hosts.client
    for words in (["nft", "list", "ruleset"], ["iptables", "-t", "mangle", "-S"]):
        argv = ["ip", "netns", "exec", place, *words]
        shown.append(run(argv))
    return "".join(line for line in "".join(shown).splitlines() if "porttrace" in line.lower())


@pytest.mark.parametrize("kind", sorted(PACKET_KINDS))
def test_nothing_stays_behind(routed: Site, kind: str) -> None:
    scope = SCOPES_OF_KIND[kind][0]
    run(routed.hosts.in_client(Throttle(kind, 1, scope).argv(["true"])))
    assert rules_left(routed, kind) == ""


CONNECT = "import socket; socket.create_connection(('192.0.2.2', 80), timeout=2); print('done')"


def test_a_killed_reader_holds_nobody_and_the_next_one_starts(site: Site) -> None:
    throttle = Throttle("egress-hold")
    options = [*ENDS, "--dead-time", "30", "--delay", "0.1"]
    supervisor = subprocess.Popen(site.argv("two_threads", *options, throttle=throttle))
    wait_until(lambda: rules_left(site, "egress-hold"))
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait(timeout=5)
    assert rules_left(site, "egress-hold")  # they go with the namespace, and let all pass
    assert run(site.hosts.in_client([sys.executable, "-c", CONNECT])) == "done\n"
    (row,) = live(seed_case(site, throttle))
    assert seconds(row) == pytest.approx(0.5, abs=0.1)
    assert rules_left(site, "egress-hold") == ""


@pytest.mark.parametrize("kind", ["egress-hold", "gateway"])
def test_outside_of_the_lab_a_site_is_made_for_the_command(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    program = f"{CONNECT}; import subprocess; print(subprocess.getoutput('ip -4 addr'))"
    assert run_throttled(Throttle(kind), [sys.executable, "-c", program]) == 0
    shown = capfd.readouterr()
    assert CLIENT_V4 in shown.out and "done" in shown.out
    assert SERVER_V4 in shown.err


def test_a_gateway_without_a_router_says_what_is_missing(site: Site) -> None:
    argv = site.hosts.in_client(Throttle("gateway").argv(["true"]))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "there is no router" in done.stderr


def test_a_second_reader_says_why_it_cannot_be(site: Site) -> None:
    inner = Throttle("egress-hold").argv(["true"])
    argv = site.hosts.in_client(Throttle("egress-hold").argv(inner))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "has a reader already" in done.stderr
