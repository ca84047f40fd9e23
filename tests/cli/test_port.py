"""porttrace port: real sockets of our own, and the rule beside the real trial."""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from porttrace.cli import main
from porttrace.cli.portlook import _not_seen
from porttrace.tracer.ports.holding import Seen
from porttrace.tracer.ports.others import Beside
from porttrace.tracer.ports.owners import Descriptor, Owners
from porttrace.tracer.ports.socks import Sock, lists_bound
from tracing import wait_until

LOCAL = "127.0.0.1"
ROOT = os.geteuid() == 0


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server((LOCAL, 0)) as made:
        yield made


def told(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    assert main(["port", "--json", *map(str, words)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def test_both_protocols_and_what_the_host_says(
    capsys: pytest.CaptureFixture[str], server: socket.socket
) -> None:
    tcp, udp = told(capsys, port_of(server))
    (holder,) = tcp["holders"]
    assert (tcp["type"], tcp["port"], tcp["protocol"]) == ("port", port_of(server), "tcp")
    assert (holder["kind"], holder["pid"], holder["state"]) == ("listener", os.getpid(), "LISTEN")
    assert (udp["protocol"], udp["holders"], udp["bind"]["works"]) == ("udp", [], True)
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert (tcp["range"], tcp["ephemeral"]) == ([low, high], True)
    assert tcp["netns"] == os.stat("/proc/self/ns/net").st_ino
    assert tcp["privileged"] is tcp["reserved"] is False


def test_a_name_that_is_no_text(capsys: pytest.CaptureFixture[str], server: socket.socket) -> None:
    comm = Path("/proc/self/comm")
    before = comm.read_bytes()
    comm.write_bytes(b"a\xff\x1b")
    try:
        (found,) = told(capsys, port_of(server), "--tcp")
    finally:
        comm.write_bytes(before)
    assert found["holders"][0]["comm"] == "a\\xff\x1b"


def test_the_case_of_the_client_that_has_a_servers_port(
    capsys: pytest.CaptureFixture[str], server: socket.socket
) -> None:
    with socket.create_connection(server.getsockname()) as client:
        port = port_of(client)
        (found,) = told(capsys, port, "--tcp", "--try-bind")
        assert (found["holders"][0]["kind"], found["holders"][0]["pid"]) == ("client", os.getpid())
        assert found["holders"][0]["remote"] == f"{LOCAL}:{port_of(server)}"
        assert found["bind"]["outcomes"] == ["EADDRINUSE"]
        assert found["tried"] == {"failed": "bind", "outcome": "EADDRINUSE"}
        assert main(["port", str(port)]) == 0
        text = " ".join(capsys.readouterr().out.split())
    assert f"client, ESTABLISHED {LOCAL}:{port} to {LOCAL}:{port_of(server)}" in text
    assert "ip_local_reserved_ports=" in text
    assert "fails with EADDRINUSE, by rule" in text


# Options of the first socket, its state, options of the bind that is asked for.
FIRST = [(), ("REUSEADDR",), ("REUSEPORT",)]
SECOND = [[], ["--reuseaddr"], ["--reuseport"], ["--address", "::"],
          ["--address", "::", "--v6only"], ["--address", "127.0.0.2"]]  # fmt: skip


@pytest.mark.parametrize("options", FIRST, ids=str)
@pytest.mark.parametrize("is_listening", [True, False])
@pytest.mark.parametrize("words", SECOND, ids=" ".join)
def test_the_rule_says_what_the_trial_does(
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    is_listening: bool,
    words: list[str],
) -> None:
    if not is_listening and not lists_bound() and not ROOT:
        pytest.skip("bound sockets cannot be seen here without root")
    with socket.socket() as first:
        for name in options:
            first.setsockopt(socket.SOL_SOCKET, getattr(socket, f"SO_{name}"), 1)
        first.bind((LOCAL, 0))
        if is_listening:
            first.listen()
        (found,) = told(capsys, port_of(first), "--tcp", "--try-bind", "--listen", *words)
    failed, outcome = found["tried"]["failed"], found["tried"]["outcome"]
    rule = found["listen"] if failed == "listen" else found["bind"]
    assert outcome in rule["outcomes"]
    if ROOT:  # then nothing about the first one is unknown
        assert rule["outcomes"] == [outcome]


@pytest.mark.skipif(not ROOT, reason="only root may try it as another user")
@pytest.mark.parametrize("is_listening", [True, False])
def test_another_user_may_not_share_by_reuseport(
    capsys: pytest.CaptureFixture[str], is_listening: bool
) -> None:
    with socket.socket() as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind((LOCAL, 0))
        if is_listening:
            first.listen()
        words = (port_of(first), "--tcp", "--try-bind", "--reuseport")
        (mine,) = told(capsys, *words)
        (theirs,) = told(capsys, *words, "--user", 65534)
    assert (mine["bind"]["outcomes"], mine["tried"]["outcome"]) == (["success"], "success")
    assert theirs["bind"]["outcomes"] == [theirs["tried"]["outcome"]] == ["EADDRINUSE"]
    assert "different users" in theirs["bind"]["why"]


@pytest.mark.parametrize("had_reuseaddr", [True, False])
@pytest.mark.parametrize("stays", [True, False])
def test_time_wait_by_rule_and_really(
    capsys: pytest.CaptureFixture[str], had_reuseaddr: bool, stays: bool
) -> None:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, had_reuseaddr)
    server.bind((LOCAL, 0))
    server.listen()
    port = port_of(server)
    with socket.create_connection((LOCAL, port)) as client:
        server.accept()[0].close()
        assert client.recv(1) == b""
    if not stays:
        server.close()
    with server:
        (plain,) = told(capsys, port, "--tcp", "--try-bind")
        (asked,) = told(capsys, port, "--tcp", "--try-bind", "--reuseaddr")
    kinds = [each["kind"] for each in asked["holders"]]
    assert kinds == (["listener", "time_wait"] if stays else ["time_wait"])
    assert plain["bind"]["outcomes"] == [plain["tried"]["outcome"]] == ["EADDRINUSE"]
    assert asked["tried"]["outcome"] in asked["bind"]["outcomes"]
    if not stays:  # what the closed socket had set does not show
        assert asked["bind"]["works"] is None
        assert asked["tried"]["outcome"] == ("success" if had_reuseaddr else "EADDRINUSE")


def test_what_the_other_end_has_not_closed(
    capsys: pytest.CaptureFixture[str], server: socket.socket
) -> None:
    port = port_of(server)
    with socket.create_connection((LOCAL, port)):
        server.accept()[0].close()
        server.close()
        wait_until(lambda: "FIN_WAIT2" in [e["state"] for e in told(capsys, port)[0]["holders"]])
        assert main(["port", str(port), "--tcp"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the other end has not closed yet; free in" in text
    assert " s, or 60 s after the other end closes" in text
    assert f"{LOCAL}:{port} was closed and still keeps the port, and this bind sets no" in text
    assert "TIME_WAIT" not in text
    # it has closed now: 60 s, and no more
    assert main(["port", str(port), "--tcp"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "TIME_WAIT" in text and "or 60 s after" not in text


@pytest.mark.parametrize("connected", [False, True])
def test_a_udp_socket_is_no_connection(capsys: pytest.CaptureFixture[str], connected: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOCAL, 0))
        if connected:
            sock.connect((LOCAL, 9))
        for words in ((), ("--reuseaddr",)):
            (found,) = told(capsys, port_of(sock), "--udp", *words)
            assert f"{LOCAL}:{port_of(sock)} is bound to the port, and" in found["bind"]["why"]


ADDRESSES = ["192.0.2.77", "224.0.0.5", "127.3.4.5", "ff02::1", "fe80::1", "::ffff:127.0.0.1",
             "2001:db8::77", "::1", "::"]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(("v6only", "uid"), [(True, None), (False, 65534)])
def test_addresses_and_rights(
    capsys: pytest.CaptureFixture[str], address: str, v6only: bool, uid: int | None
) -> None:
    if uid and not ROOT:
        pytest.skip("only root may try it as another user")
    user = ["--user", uid] if uid else []
    only = ["--v6only"] if v6only else []
    for found in told(capsys, 4, "--try-bind", "--address", address, *only, *user):
        assert found["bind"]["outcomes"] == [found["tried"]["outcome"]], found["protocol"]


def test_nobody_has_it(capsys: pytest.CaptureFixture[str], server: socket.socket) -> None:
    port = port_of(server)
    server.close()
    assert main(["port", str(port)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Port {port}/tcp, ") and "held by   nobody here" in out
    assert "/udp" not in out  # nobody has it there either
    assert "works, by rule. Nothing is in the way." in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_udp_is_told_of_where_somebody_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        port = port_of(sock)
        assert main(["port", str(port), "--try-bind"]) == 0
        text = " ".join(capsys.readouterr().out.split())
    assert f"Port {port}/udp" in text
    assert f"(pid {os.getpid()}), user" in text
    assert "really: bind failed with EADDRINUSE" in text


def test_service_and_class(capsys: pytest.CaptureFixture[str]) -> None:
    found = {each["port"]: each for each in told(capsys, 80, 5432, 60000, "--tcp")}
    assert [each["class"] for each in found.values()] == ["well-known", "registered", "dynamic"]
    assert found[80]["service"] == "http"
    assert found[80]["privileged"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["0"], "no port from 1 to 65535"),
        (["70000"], "no port from 1 to 65535"),
        (["80", "--address", "localhost"], "no IP address"),
        (["80", "--listen"], "--try-bind"),
        ([], "Missing argument"),
    ],
)
def test_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["port", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_namespace_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["port", "80", "--netns", "no-such-one"]) == 1
    assert "there is no network namespace no-such-one" in capsys.readouterr().err


def test_a_port_as_findings_write_it(
    capsys: pytest.CaptureFixture[str], server: socket.socket
) -> None:
    (tcp,) = told(capsys, f"{port_of(server)}/tcp")
    assert tcp["protocol"] == "tcp" and tcp["holders"][0]["pid"] == os.getpid()
    (udp,) = told(capsys, f"{port_of(server)}/udp", "--udp")
    assert udp["protocol"] == "udp"


@pytest.mark.parametrize("words", [["80/sctp"], ["80/"], ["80/tcp", "--udp"]])
def test_a_port_with_no_such_protocol(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["port", *words]) == 2
    assert "80" in capsys.readouterr().err


def test_what_was_not_read_is_not_said(
    capsys: pytest.CaptureFixture[str], server: socket.socket
) -> None:
    (plain,) = told(capsys, port_of(server), "--tcp")
    assert plain["bind"]["why"].endswith("and this bind sets no option for sharing.")


def test_a_connection_that_closed_in_the_accept_queue(
    capsys: pytest.CaptureFixture[str], server: socket.socket
) -> None:
    with socket.create_connection(server.getsockname()) as client:
        client.shutdown(socket.SHUT_WR)
        (found,) = told(capsys, port_of(server), "--tcp")
        assert main(["port", str(port_of(server)), "--tcp"]) == 0
        text = " ".join(capsys.readouterr().out.split())
    waits = [each for each in found["holders"] if each["state"] == "CLOSE_WAIT"]
    assert [(each["kind"], each["pid"]) for each in waits] == [("accepted", 0)]
    assert "in the accept queue of the listener on this port" in waits[0]["why"]
    assert "the listener's queue: accepted, CLOSE_WAIT" in text
    assert "until its process closes" not in text


def test_the_label_of_other_namespaces_has_room() -> None:
    from porttrace.analysis.render.ports import port_text
    from porttrace.cli.portlook import Wish, look_at
    from porttrace.tracer.facts import Holder

    view = look_at("tcp", 9, Wish())
    text = port_text(replace(view, beside=(Holder("namespace", comm="python3", pid=7),)))
    assert "\n  elsewhere python3 (pid 7)" in text


def test_ipv4_within_ipv6_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["port", "9", "--tcp", "--address", "::ffff:7f00:1"]
    assert main(words) == 0
    assert "to [::ffff:127.0.0.1]:9 as" in capsys.readouterr().out


@pytest.mark.skipif(not ROOT, reason="others are told of their number only by root")
@pytest.mark.skipif(not ROOT, reason="others are told of their number only by root")
@pytest.mark.parametrize(
    ("beside", "told"),
    [
        (Beside(closed=(7,)), "another network namespace, that of pid 7: may not be entered"),
        (
            Beside(beyond=(7, 9)),
            "2 other network namespaces, those of pid 7, pid 9: no more than 256 are looked at; "
            "--netns PID does",
        ),
        (
            Beside(closed=tuple(range(1, 12))),
            f"11 other network namespaces, those of {', '.join(f'pid {n}' for n in range(1, 9))} "
            "and 3 more: may not be entered",
        ),
    ],
)
def test_namespaces_that_were_not_looked_at(beside: Beside, told: str) -> None:
    assert _not_seen("tcp", Seen(()), beside, True) == (told,)


def test_all_workers_of_a_server_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A socket stands until the last process that has it ends."""
    with socket.create_server((LOCAL, 0)) as server, contextlib.ExitStack() as ends:
        words = ["/usr/bin/python3", "-c", "import sys; sys.stdin.read()"]
        workers = [
            ends.enter_context(subprocess.Popen(words, stdin=-1, pass_fds=[server.fileno()])).pid
            for _ in range(2)
        ]
        assert main(["port", str(port_of(server)), "--tcp"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert main(["ports"]) == 0
        listed = " ".join(capsys.readouterr().out.split())
    pids = sorted([os.getpid(), *workers])
    assert f"(pids {', '.join(map(str, pids))}), user" in text
    assert f"open in 2 more: {pids[1]}, {pids[2]}" in listed


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("v6only", [True, False])
def test_a_wildcard_of_ipv6_says_whether_it_takes_ipv4(
    capsys: pytest.CaptureFixture[str], v6only: bool
) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=not v6only) as made:
        port = port_of(made)
        assert main(["port", str(port), "--tcp"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert main(["ports"]) == 0
        listed = capsys.readouterr().out
        (found,) = told(capsys, port, "--tcp")
    word = "(IPv6 only)" if v6only else "(IPv4, too)"
    assert f"LISTEN [::]:{port} {word}" in text
    (line,) = [each for each in listed.splitlines() if each.startswith(f"{port}/tcp")]
    assert f"[::] {word}" in line
    # and so the default, 0.0.0.0, may be had or not
    assert found["in_the_way"] == [not v6only]
    assert bool(found["to_do"]) is not v6only
    assert (text.count("; not in the way"), "to do Stop" in text) == (v6only, not v6only)


@pytest.mark.parametrize("waiting", [3, 2, 0])
def test_an_accept_queue_that_is_full(capsys: pytest.CaptureFixture[str], waiting: int) -> None:
    """One more than the backlog goes in; that is full, all below is not."""
    with socket.create_server((LOCAL, 0), backlog=2) as made, contextlib.ExitStack() as ends:
        for _ in range(waiting):
            ends.enter_context(socket.create_connection(made.getsockname()))
        (found,) = told(capsys, port_of(made), "--tcp")
        assert main(["port", str(port_of(made)), "--tcp"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert main(["ports"]) == 0
        listed = " ".join(capsys.readouterr().out.split())
    first = found["holders"][0]
    assert (first["queue"], first["limit"]) == (waiting, 2)
    assert ("its accept queue is full: 3 connections wait for accept(2)" in text) is (waiting == 3)
    assert ("2 connections of at most 3 wait for accept(2)" in text) is (waiting == 2)
    assert ("accept(2)" in text) is (waiting > 0)
    assert ("accept queue full (3 wait, limit 2)" in listed) is (waiting == 3)


def test_what_to_do_about_time_wait(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((LOCAL, 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
        port = port_of(server)
    (found,) = told(capsys, port, "--tcp")
    (what,) = found["to_do"]
    assert "--reuseaddr asks for that" in what and f"state time-wait 'sport = {port}'" in what
    assert found["in_the_way"] == [True]
    (asked,) = told(capsys, port, "--tcp", "--reuseaddr")
    assert asked["in_the_way"] == [None]


def test_a_process_that_is_closed_matters_where_one_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    mine = Sock("tcp", 2, 10, 0, 0, bytes(4), 80, bytes(4), 0, 0, 1, 0, 77, 0, 9, None, -1)
    whole = Seen((mine,), Owners({77: [Descriptor(7, 3)]}, (1,)))
    assert _not_seen("tcp", whole, Beside(), True) == ()
    (what,) = _not_seen("tcp", Seen((mine,), Owners({}, (1,))), Beside(), True)
    comm = Path("/proc/1/comm").read_text().strip()
    assert what.startswith(f"whether {comm} (pid 1) has a socket that is shown without a process")
