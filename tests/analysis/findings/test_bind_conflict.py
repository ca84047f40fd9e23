"""Each errno and each holder in words that a person on call can act on, and no false alarm."""

import errno
from dataclasses import replace

import pytest

from binding import RANGE, call, in_use, listener, trace_of_binds
from builders import MS, S
from porttrace.analysis import tables
from porttrace.analysis.findings.bind_conflict import bind_conflict
from porttrace.analysis.model import BindOption, Finding, Looked, Trace
from porttrace.analysis.render.report import bind_json
from porttrace.analysis.render.text import bind_line
from porttrace.tracer.facts import Holder

ON = BindOption.reuseaddr
CLIENT = Holder("client", address="192.0.2.1", port=43611, remote="192.0.2.9:5432", pid=77,
                comm="java", uid=1000, user="app", age_s=90.0)  # fmt: skip


def only(trace: Trace) -> Finding:
    (finding,) = bind_conflict(trace, ())
    return finding


def told(trace: Trace) -> str:
    finding = only(trace)
    return f"{finding.summary} {' '.join(finding.advice)}"


def test_nothing_failed_nothing_found() -> None:
    assert bind_conflict(trace_of_binds(), ()) == []
    assert bind_conflict(trace_of_binds(call(), call("listen", at=2 * S)), ()) == []


def test_the_clients_connection_on_a_servers_port() -> None:
    finding = only(in_use(CLIENT, to="0.0.0.0:43611"))
    assert finding.summary == (
        "web (pid 7) could not bind tcp 0.0.0.0:43611 (EADDRINUSE, address already in use). java "
        "(pid 77, user app) has it for its connection to 192.0.2.9:5432, for 90 s now: an outgoing "
        "connection has the port. Port 43611 lies inside net.ipv4.ip_local_port_range "
        "(32768-60999), from which the kernel takes the local ports of clients, so any connect may "
        "get it while no server has it. web runs on without this port."
    )
    now, reserve = finding.advice
    assert "sysctl -w net.ipv4.ip_local_reserved_ports=43611 and" in reserve
    assert "ss -tK state connected 'sport = 43611 and dst 192.0.2.9 and dport = 5432'" in now
    assert finding.evidence["holder_pid"] == 77


def test_ports_that_are_reserved_already_stay_so() -> None:
    facts = {**RANGE, "reserved": "8080,9000-9010"}
    assert "ip_local_reserved_ports=8080,9000-9010,43611 and" in told(
        in_use(CLIENT, to="0.0.0.0:43611", facts=facts)
    )


def test_a_client_that_had_bound_the_port_itself_needs_no_reservation() -> None:
    text = told(in_use(replace(CLIENT, port=80)))
    assert "had bound it to this port" in text and "reserved" not in text


@pytest.mark.parametrize(
    ("holder", "how", "words"),
    [
        (listener(), {}, "kill 12"),
        (listener(container="shop"), {}, "stop nginx (in container shop)"),
        (listener(comm="web", uid=33), {}, "an instance runs already"),
        (listener(pid=7), {}, "it binds it twice"),
        (listener(reuseport=True), {"on": BindOption.reuseport}, "Run both as one user"),
        (listener(address="::", v6only=False), {}, "IPV6_V6ONLY"),
        (listener(), {"to": "[::]:80"}, "IPV6_V6ONLY"),
        (listener(kind="bound"), {}, "does not listen"),
        (listener(kind="accepted", remote="192.0.2.9:50000"), {}, "SO_REUSEADDR before bind"),
        (Holder("time_wait", port=80, remote="192.0.2.9:5", frees_in_s=42.3), {}, "wait 42 s"),
        (Holder("closing", port=80, state="FIN_WAIT2", remote="192.0.2.9:5"), {}, "FIN_WAIT2"),
        (listener(kind="closing", state="CLOSE_WAIT"), {}, "It stays until nginx"),
        (listener(kind="udp", protocol="udp"), {"protocol": "udp"}, "receives on 0.0.0.0:80"),
        (Holder("kernel", port=80, why="of device wg0"), {}, "of device wg0"),
        (Holder("descriptor", port=80, why="sent to pid 5"), {}, "sent to pid 5"),
        (Holder("namespace", port=80, pid=4, comm="x", why="in blue"), {}, "in blue"),
        (Holder("unknown", port=80, why="no socket has this port now"), {}, "No socket has"),
    ],
)
def test_each_holder(holder: Holder, how: dict[str, object], words: str) -> None:
    assert words in told(in_use(holder, **how))  # type: ignore[arg-type]


def test_quic() -> None:
    holder = listener(kind="udp", protocol="udp", port=443, comm="caddy")
    text = told(in_use(holder, to="0.0.0.0:443", protocol="udp"))
    assert "HTTP/3" in text and "another port than 443/tcp" in text


def test_who_shares_on_one_side_only_is_told_of_a_socket_and_no_connection() -> None:
    holder = listener(kind="udp", protocol="udp")
    text = told(in_use(holder, protocol="udp", on=ON))
    assert "0.0.0.0:80 is bound to the port, and an option for sharing counts only" in text
    assert "is a connection on the port" in told(in_use(listener(kind="accepted"), on=ON))


def test_what_the_other_end_has_not_closed_may_stay_longer() -> None:
    holder = Holder("closing", port=80, state="FIN_WAIT2", remote="192.0.2.9:5", frees_in_s=42.0,
                    why="closed here; the other end has not closed yet")  # fmt: skip
    said = "in FIN_WAIT2, free in 42.0 s, or 60 s after the other end closes. Closed here; the"
    assert said in told(in_use(holder))
    assert "or 60 s after" not in told(in_use(replace(holder, kind="time_wait", state="TIME_WAIT")))


def test_time_wait_with_the_option_is_waited_for() -> None:
    holder = Holder("time_wait", port=80, remote="192.0.2.9:5", frees_in_s=42.3)
    now, later = only(in_use(holder, on=ON)).advice
    assert now.startswith("Wait 42 s and start it again")
    assert "it helps only where both did, before bind" in later
    first, then = only(in_use(holder)).advice
    assert "SO_REUSEADDR" in first and then.startswith("Until then: wait 42 s")


def test_an_accepted_connection_is_ended_and_both_set_the_option() -> None:
    """Without the option: set it, which works at once if the last one had it. With it: too late."""
    holder = replace(CLIENT, kind="accepted", port=80)
    first, second = only(in_use(holder)).advice
    assert first.startswith("Let the server set SO_REUSEADDR") and "ss -tK" in second
    first, second = only(in_use(holder, on=ON)).advice
    assert "ss -tK state connected 'sport = 80 and dst 192.0.2.9 and dport = 5432'" in first
    assert "let the one that had the port before set it, too" in second


@pytest.mark.parametrize(
    ("maker", "netns", "inherited"), [(4, 1, True), (5, 1, False), (6, 1, False), (4, 2, False)]
)
def test_an_inherited_listener_is_told_with_its_maker_and_command(
    maker: int, netns: int, inherited: bool
) -> None:
    """Not where a process that still has it made it, nor by a bind in another namespace."""
    holder = listener(pid=5, comm="sleep", cmdline="sleep 15", netns=1, also=(6,))
    looked = Looked(((9 * S, 7),), (holder,), RANGE, 0.001)
    made = call(pid=maker, comm=b"fork", netns=netns)
    bad = call(at=9 * S, error=errno.EADDRINUSE)
    text = told(trace_of_binds(made, bad, looked=[looked]))
    assert "It runs: sleep 15." in text
    assert ("It inherited the socket from fork (pid 4), which bound it." in text) is inherited
    assert ("inherited" in text) is inherited


def test_a_command_that_says_no_more_than_the_name_is_not_told() -> None:
    assert "It runs" not in told(in_use(listener(pid=5, comm="nginx", cmdline="/usr/sbin/nginx")))


def failed(number: int, facts: dict[str, int | str], **how: object) -> str:
    looked = Looked(((S, 7),), (), facts, 0.001)
    return told(trace_of_binds(call(error=number, **how), looked=[looked]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "facts", "how", "words"),
    [
        (errno.EACCES, {"unprivileged_from": 1024, "may_bind_low": 0, "exe": "/opt/web"}, {},
         "setcap 'cap_net_bind_service=+ep' /opt/web"),
        (errno.EACCES, {"unprivileged_from": 1024, "may_bind_low": 0}, {},
         "sysctl -w net.ipv4.ip_unprivileged_port_start=80:"),
        (errno.EACCES, {"unprivileged_from": 1024, "may_bind_low": 1}, {},
         "another user namespace"),
        (errno.EACCES, {"unprivileged_from": 1024}, {"to": "0.0.0.0:8080"}, "security module"),
        (errno.EACCES, {"unprivileged_from": 80}, {}, "(those are below 80)"),
        (errno.EPERM, {"unprivileged_from": 80}, {}, "bpftool cgroup tree"),
        (errno.EADDRNOTAVAIL, {"address_is_local": 0}, {"to": "192.0.2.9:80"}, "IP_FREEBIND"),
        (errno.EADDRNOTAVAIL, {"address_is_local": 1}, {"to": "192.0.2.9:80"}, "started too early"),
        (errno.EADDRNOTAVAIL, {}, {"to": "[2001:db8::9]:80"}, "net.ipv6.ip_nonlocal_bind"),
        (errno.EINVAL, {}, {"got": 8080}, "is bound to port 8080 already"),
        (errno.EINVAL, {}, {"to": "[fe80::1]:80"}, "Name the interface"),
        (errno.EINVAL, {}, {"what": "listen"}, "only one that is not can listen"),
        (errno.EINVAL, {}, {}, "wrong length"),
        (errno.EAFNOSUPPORT, {}, {}, "another family"),
        (errno.ENOBUFS, {}, {}, "man 2 bind"),
        (errno.EADDRINUSE, RANGE, {"to": "0.0.0.0:0"}, "any port"),
    ],
)  # fmt: skip
def test_each_errno(
    number: int, facts: dict[str, int | str], how: dict[str, object], words: str
) -> None:
    assert words in failed(number, facts, **how)


def test_where_nobody_looked_it_says_so() -> None:
    finding = only(trace_of_binds(call(error=errno.EADDRINUSE)))
    assert "Not looked up: too many at once." in finding.summary
    assert 0.5 < finding.confidence < 0.8


def test_where_it_was_gone_it_says_so() -> None:
    assert "gone 2 ms later" in told(in_use())


def test_the_trace_itself_knows_who_bound_it() -> None:
    trace = trace_of_binds(
        call(pid=12, comm=b"idle", uid=5), call(at=9 * S, error=errno.EADDRINUSE)
    )
    finding = only(trace)
    assert (finding.evidence["kind"], finding.evidence["holder_pid"]) == ("bound", 12)
    assert only(replace(trace, exits={12: 8 * S})).evidence["kind"] == "unknown"
    assert only(replace(trace, exits={12: 11 * S})).evidence["kind"] == "bound"


def test_what_a_listener_accepted_is_no_client() -> None:
    bound, listening = call("bind", pid=77), call("listen", pid=77, at=2 * S)
    bad = call(at=9 * S, error=errno.EADDRINUSE)
    looked = Looked(((9 * S, 7),), (replace(CLIENT, port=80),), RANGE, 0.001)
    trace = trace_of_binds(bound, listening, bad, looked=[looked])
    assert only(trace).evidence["kind"] == "accepted"


def test_the_socket_that_wants_to_listen_is_not_in_its_own_way() -> None:
    bad = call("listen", error=errno.EADDRINUSE, on=ON)
    both = (listener(), listener(kind="bound", pid=7, comm="web"))
    finding = only(trace_of_binds(bad, looked=[Looked(((S, 7),), both, RANGE, 0.001)]))
    assert "only one of them listen" in finding.summary
    assert "1 more socket" not in finding.summary


# -- how bad it is -------------------------------------------------------------------


def tried(*ats: int, then: int = 0, exits: dict[int, int] | None = None, **how: object) -> Finding:
    calls = [call(at=at, error=errno.EADDRINUSE) for at in ats]
    calls += [call(at=then, **how)] if then else []  # type: ignore[arg-type]
    looked = [Looked(((at, 7),), (listener(),), RANGE, 0.001) for at in ats]
    return only(trace_of_binds(*calls, looked=looked, exits=exits or {}))


def test_a_program_that_ends_for_it_is_critical() -> None:
    assert tried(S).severity == "warning"
    assert tried(S, exits={7: S + 50 * MS}).severity == "critical"
    assert tried(S, exits={7: 60 * S}).severity == "warning"


def test_again_and_again_is_critical_and_one_finding() -> None:
    finding = tried(S, 2 * S, 3 * S)
    assert finding.severity == "critical" and " 3 times " in finding.summary
    assert finding.evidence["failures"] == 3


def test_a_service_that_is_started_anew_each_time_is_one_finding() -> None:
    calls = [call(at=n * S, pid=100 + n, error=errno.EADDRINUSE) for n in (1, 2, 3)]
    finding = only(trace_of_binds(*calls))
    assert finding.evidence["pids"] == [101, 102, 103] and finding.subject["pids"] == [101]


def test_who_has_it_after_all() -> None:
    assert tried(S, then=S + 100 * MS).severity == "info"
    later = tried(S, 2 * S, 3 * S, then=41 * S)
    assert later.severity == "warning" and "It had it 40.0 s after" in later.summary


def test_who_looks_for_a_free_port_is_only_noted() -> None:
    finding = tried(S, then=S + MS, to="0.0.0.0:81")
    assert finding.severity == "info" and "went on with port 81" in finding.summary
    assert tried(S, then=20 * S, to="0.0.0.0:81").severity == "warning"


def test_who_tries_one_port_after_the_other_is_only_noted() -> None:
    taken = [call(at=S + n * MS, to=f"0.0.0.0:{80 + n}", error=errno.EADDRINUSE) for n in (0, 1)]
    found = bind_conflict(trace_of_binds(*taken, call(at=S + 2 * MS, to="0.0.0.0:82")), ())
    assert [each.severity for each in found] == ["info", "info"]
    assert all("went on with port 82" in each.summary for each in found)


@pytest.mark.parametrize(
    "then",
    [
        {"to": "0.0.0.0:9101"},  # a listener for metrics
        {"to": "127.0.0.1:81"},
        {"to": "0.0.0.0:81", "protocol": "udp"},
        {"to": "0.0.0.0:0"},
    ],
)
def test_another_port_of_the_program_replaces_none(then: dict[str, str]) -> None:
    finding = tried(S, then=S + MS, exits={7: 4 * S}, **then)
    assert finding.severity == "warning" and "went on" not in finding.summary
    assert finding.summary.endswith(" web runs on without this port.")
    assert finding.evidence["went_on_with_port"] is None and finding.evidence["runs_on_without"]


def test_a_port_that_was_taken_after_another_one_replaces_none() -> None:
    calls = [
        call(at=S, error=errno.EADDRINUSE),
        call(at=S + MS, to="192.0.2.1:8081"),
        call(at=S + 2 * MS, to="0.0.0.0:81"),
    ]
    assert "runs on without" in only(trace_of_binds(*calls)).summary


def test_who_did_nothing_else_may_have_given_up() -> None:
    assert "runs on" not in tried(S, exits={7: S + 50 * MS}).summary
    assert "runs on without this port" in tried(S, exits={7: 60 * S}).summary
    # the trace was over before anybody could tell
    soon = trace_of_binds(call(error=errno.EADDRINUSE), end_ns=2 * S)
    assert "runs on" not in only(soon).summary and only(soon).severity == "warning"


def test_both_families_of_one_server() -> None:
    # [::] takes IPv4, too, and the program then asks for that as well: it serves both.
    finding = only(in_use(listener(pid=7, address="::", comm="web", v6only=False)))
    assert finding.severity == "info" and "without" not in finding.summary


def test_a_hostile_name_stays_raw_for_whoever_prints_it() -> None:
    assert "\x1b[2J" in told(in_use(listener(comm="\x1b[2J")))


# -- what the advice is good for -----------------------------------------------------


@pytest.mark.parametrize("by", ["unknown", "own", "cgroup"])
def test_nobody_is_accused_where_the_namespace_was_not_known(by: str) -> None:
    found = listener() if by != "unknown" else Holder("unknown", port=80, why="process was gone")
    finding = only(in_use(found, facts={**RANGE, "netns_by": by}))
    text = f"{finding.summary} {' '.join(finding.advice)}"
    assert finding.confidence <= 0.6 and finding.evidence["holder_pid"] is None
    assert "kill" not in text and "nginx" not in text and "was gone" in text


def test_a_bind_in_another_namespace_is_nobodys_holder() -> None:
    def told(**where: int) -> object:
        first = call(pid=12, comm=b"idle", **where)  # type: ignore[arg-type]
        trace = trace_of_binds(first, call(at=9 * S, error=errno.EADDRINUSE))
        return only(trace).evidence["holder_pid"]

    assert told() == 12
    assert told(netns=2) is None and told(netns=0) is None


def test_failures_in_two_namespaces_are_two_findings() -> None:
    bad = [call(at=at * S, error=errno.EADDRINUSE, pid=at, netns=at) for at in (1, 2)]
    # one that works in the other namespace is no way out
    found = bind_conflict(trace_of_binds(*bad, call(at=3 * S, pid=9, netns=2)), ())
    assert [each.evidence["got_it_after_s"] for each in found] == [None, 1.0]


THERE = {**RANGE, "own_netns": 0, "netns_pid": 5}


def test_commands_name_who_is_alive() -> None:
    assert "nsenter -t 77 -n ss" in told(in_use(CLIENT, to="0.0.0.0:43611", facts=THERE))
    gone = in_use(CLIENT, to="0.0.0.0:43611", facts=THERE)
    assert "nsenter -t 5 -n ss" in told(replace(gone, exits={77: 2 * S}))
    assert "nsenter -t PID -n ss" in told(replace(gone, exits={5: 2 * S, 77: 2 * S}))
    named = {**THERE, "netns_name": "blue"}
    text = told(in_use(CLIENT, to="0.0.0.0:43611", facts=named))
    assert "ip netns exec blue ss" in text and "nsenter" not in text
    assert "/etc/sysctl.d" not in text and "docker" not in text
    assert "43611 and again whenever that network namespace is made" in text
    unseen = Holder("unknown", port=80, why="nobody")
    assert "porttrace port 80/tcp --netns blue." in told(in_use(unseen, facts=named))
    assert "porttrace port 80/tcp." in told(in_use(unseen))


@pytest.mark.parametrize("facts", [THERE, RANGE])
def test_a_container_is_started_anew_with_the_setting(facts: dict[str, int]) -> None:
    trace = in_use(CLIENT, to="0.0.0.0:43611", facts=facts)
    inside = {7: replace(trace.processes[7], container="0123456789ab")}
    text = told(replace(trace, processes=inside))
    # of one in the host's own network namespace the host's settings count
    assert ("docker run --sysctl net.ipv4.ip_local_reserved_ports=43611" in text) is (
        facts is THERE
    )
    assert ("/etc/sysctl.d" in text) is (facts is RANGE)


def test_to_free_the_port_takes_all_who_have_it() -> None:
    group = (listener(also=(13, 14)), listener(pid=20))
    assert "kill 12 13 14 20, all that have it" in told(in_use(*group))
    two = (CLIENT, replace(CLIENT, pid=78, remote="192.0.2.8:1"))
    assert "ss -tK state connected 'sport = 43611' ends" in told(in_use(*two, to="0.0.0.0:43611"))


def test_reuseaddr_is_no_help_beside_a_listener() -> None:
    text = told(in_use(listener(reuseport=False), on=ON))
    assert "beside a listener SO_REUSEADDR is no help" in text and "same one" not in text


def test_time_wait_says_why_the_servers_own_option_was_no_help() -> None:
    text = told(in_use(Holder("time_wait", port=80, remote="192.0.2.9:5", frees_in_s=42.3), on=ON))
    assert "of 0.0.0.0:80 had not set SO_REUSEADDR before bind" in text
    assert "ss -tK state time-wait 'sport = 80'" in text and "nothing else" not in text


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        ("python3 /srv/a.py", "python3 /srv/b.py", False),
        ("python3 -u /srv/a.py 80", "python3 /srv/a.py 81", True),
        ("python3 -m http.server", "python3 -m http.server 80", True),
        ("python3 -m http.server", "python3 -m other", False),
        ("", "python3 /srv/b.py", False),
    ],
)
def test_one_interpreter_runs_many_programs(mine: str, theirs: str, same: bool) -> None:
    facts = {**RANGE, "holder_exe": "/usr/bin/python3", "holder_cmdline": theirs}
    trace = in_use(listener(comm="python3", uid=33), comm=b"python3", facts=facts)
    known = {7: replace(trace.processes[7], exe="/usr/bin/python3", cmdline=mine)}
    text = told(replace(trace, processes=known))
    assert ("an instance runs already" in text) is same
    assert (
        same or "another python3: python3 /srv/b" in text or "another python3: python3 -m" in text
    )


def test_who_has_a_closing_connection_has_it() -> None:
    closing = listener(kind="closing", state="CLOSE_WAIT", remote="192.0.2.9:5")
    assert "user root) has a closing connection" in told(in_use(closing))


def test_dual_stack_advice_only_where_it_helps() -> None:
    assert "IPV6_V6ONLY" in told(in_use(listener(), to="[::]:80"))
    both = (listener(), listener(pid=13, address="::", v6only=True))
    finding = only(in_use(*both, to="[::]:80"))
    assert "IPV6_V6ONLY" not in " ".join(finding.advice) and "kill 12 13" in finding.advice[0]


def test_one_socket_for_both_is_no_advice_to_who_has_just_that() -> None:
    alone = "Or bind [::] alone, which serves both."
    assert alone not in told(in_use(listener(), to="[::]:80"))
    assert alone not in told(in_use(listener(address="::", v6only=False)))
    assert alone in told(in_use(listener(pid=7, comm="web"), to="[::]:80"))


@pytest.mark.parametrize("kind", ["listener", "bound", "udp", "closing"])
def test_nobody_is_told_to_kill_itself(kind: str) -> None:
    protocol = "udp" if kind == "udp" else "tcp"
    holder = listener(pid=7, comm="web", kind=kind, state="CLOSE_WAIT", protocol=protocol)
    assert "kill" not in " ".join(only(in_use(holder, protocol=protocol)).advice)


def test_a_race_for_listen_says_how_to_win_it() -> None:
    bad = call("listen", error=errno.EADDRINUSE, on=ON)
    finding = only(trace_of_binds(bad, looked=[Looked(((S, 7),), (listener(),), RANGE, 0.001)]))
    assert "in one breath" in finding.advice[0] and "socket unit" in finding.advice[0]


def test_any_port_is_looked_for_in_the_right_namespace() -> None:
    facts: dict[str, int | str] = {**THERE, "netns_name": "blue", "reserved": "40000"}
    text = failed(errno.EADDRINUSE, facts, to="0.0.0.0:0")
    assert "that is not reserved (40000)" in text and "IP_BIND_ADDRESS_NO_PORT" in text
    assert "porttrace ports --netns blue, or ip netns exec blue ss" in text


def test_who_has_the_ports_when_there_is_none_left() -> None:
    facts: dict[str, int | str] = {
        "range_first": 43660, "range_last": 43663, "taken": 4,
        "takers": "3 by many (pid 12), 1 in TIME_WAIT",
    }  # fmt: skip
    bad = call(error=errno.EADDRINUSE, to="192.0.2.1:0")
    trace = trace_of_binds(bad, looked=[Looked(((S, 7),), (), facts, 0.031)])
    said = (
        "every port of net.ipv4.ip_local_port_range (43660-43663) was taken for this address; 31 ms"
        " later 4 of 4 were: 3 by many (pid 12), 1 in TIME_WAIT"
    )
    assert f"It asked for any port, and {said}." in only(trace).summary
    row, found = trace.binds[0], trace.looked[S, 7]
    assert bind_line(row, "1.000", None, found).replace("\n                ", "").endswith(said)
    assert bind_json(row, None, found)["not_shown"] == said
    (table,) = tables.binds(trace)["holders"]
    assert table == said
    # whoever held a port that was asked for by its number is another matter
    gone = trace_of_binds(call(error=errno.EADDRINUSE), looked=[Looked(((S, 7),), (), facts, 0.1)])
    assert "was gone 100 ms later" in told(gone)


def test_root_without_the_capability() -> None:
    facts: dict[str, int | str] = {"unprivileged_from": 1024, "may_bind_low": 0, "exe": "/opt/web"}
    text = failed(errno.EACCES, facts, uid=0)
    assert "--cap-add NET_BIND_SERVICE" in text and "setcap" not in text and "user 0" in text
