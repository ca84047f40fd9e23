"""Every collision on a port, made for real in a network namespace: who holds it, and the advice."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tracing import PORTTRACE, Traced, read, run

pytestmark = pytest.mark.kernel
WORKLOAD = str(Path(__file__).with_name("conflicts_workload.py"))
NAMESPACE = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec /usr/bin/python3 "$0" "$@"']

RESERVED = "net.ipv4.ip_local_reserved_ports"
# As they stand in the advice, up to the words that follow.
COMMAND = re.compile(r"nsenter -t \d+ -n (sysctl -w \S+|ss -tK state connected '[^']+')")

Row = dict[str, Any]


def made(kind: str, *options: str) -> tuple[Traced, Row]:
    """Return the trace of one kind of collision, and what its workload says of it.

    Up to three times, until the kernel left out nothing: on a busy machine it skips a program.
    """
    for _ in range(3):
        done = run("--json", *options, "--", *NAMESPACE, WORKLOAD, kind, timeout_s=240)
        said = [line for line in done.stderr.splitlines() if line.startswith("{")]
        assert said, done.stderr
        traced = read(done)
        if not traced.report["trust"]["lost_events"]:
            break
    return traced, json.loads(said[-1])


@pytest.mark.parametrize(
    ("kind", "held_as", "error", "words", "advice"),
    [
        ("listener", "listener", "EADDRINUSE", "listens on 127.0.0.1:{port}", "kill {holder}"),
        ("inherited", "listener", "EADDRINUSE", "It runs: sleep 60.", "kill {holder}"),
        ("bound", "bound", "EADDRINUSE", "does not listen", "kill {holder}"),
        ("time_wait", "time_wait", "EADDRINUSE", "TIME_WAIT", "SO_REUSEADDR"),
        ("closing", "closing", "EADDRINUSE", "FIN_WAIT2", "SO_REUSEADDR"),
        ("accepted", "accepted", "EADDRINUSE", "outlived", "SO_REUSEADDR"),
        ("other_user", "listener", "EADDRINUSE", "different users", "Run both as one user"),
        ("dual_stack", "listener", "EADDRINUSE", "takes the same port of IPv4", "IPV6_V6ONLY"),
        ("itself", "listener", "EADDRINUSE", "has the port itself", "Look at its configuration"),
        ("descriptor", "descriptor", "EADDRINUSE", "descriptor", "porttrace port {port}"),
        ("listen", "listener", "EADDRINUSE", "only one of them listen", "kill {holder}"),
        ("udp", "udp", "EADDRINUSE", "receives on 0.0.0.0:{port}", "kill {holder}"),
        ("quic", "udp", "EADDRINUSE", "HTTP/3 (QUIC)", "kill {holder}"),
        ("privileged", "privileged", "EACCES", "Ports below 1024", "setcap 'cap_net_bind_service"),
        ("no_such_address", "no-such-address", "EADDRNOTAVAIL", "no address", "IP_FREEBIND"),
        ("already_bound", "already-bound", "EINVAL", "bound to port 8080", "another socket"),
        ("no_free_port", "no-free-port", "EADDRINUSE", "40000-40001", "ip_local_port_range"),
    ],
)
def test_each_kind(kind: str, held_as: str, error: str, words: str, advice: str) -> None:
    traced, said = made(kind)
    (found,) = traced.findings("bind-conflict")
    (row,) = [each for each in traced.of("bind") if each["errno"]]
    evidence, told = found["evidence"], " ".join(found["advice"])
    assert (evidence["kind"], row["error"]) == (held_as, error), found["summary"]
    assert (row["port_asked"], found["subject"]["port"]) == (said["port"], said["port"])
    if held_as in ("listener", "bound", "accepted", "udp"):
        assert evidence["holder_pid"] == said["holder"]
        # On a slow machine the line of the call is printed before anybody could look.
        assert [each["pid"] for each in row["holders"][:1]] in ([said["holder"]], [])
    assert words.format(**said) in found["summary"]
    assert advice.format(**said) in told
    assert found["confidence"] >= 0.9
    assert ("It inherited the socket from" in found["summary"]) is (kind == "inherited")
    if kind == "privileged":
        assert row["facts"]["may_bind_low"] == 0 and row["facts"]["exe"] in told


@pytest.mark.parametrize(
    ("kind", "severity", "words"),
    [("next_port", "info", "went on with port"), ("without_port", "warning", "runs on without")],
)
def test_what_came_after(kind: str, severity: str, words: str) -> None:
    traced, _ = made(kind)
    (found,) = traced.findings("bind-conflict")[-1:]
    assert found["severity"] == severity and words in found["summary"]


def test_who_has_the_ports_when_there_is_none_left() -> None:
    traced, said = made("no_free_port")
    (found,) = traced.findings("bind-conflict")
    assert f"later 2 of 2 were: 2 by python3 (pid {said['holder']})." in found["summary"]
    (row,) = [each for each in traced.of("bind") if each["errno"]]
    assert row["not_shown"].startswith("every port of net.ipv4.ip_local_port_range")


def test_a_client_on_a_servers_fixed_port() -> None:
    traced, said = made("client")
    (found,) = traced.findings("bind-conflict")
    (row,) = [each for each in traced.of("bind") if each["errno"]]
    assert found["evidence"]["kind"] == "client"
    assert row["holders"][0]["pid"] == said["holder"]
    assert row["holders"][0]["remote"] == said["remote"]
    assert said["remote"] in found["summary"] and f"pid {said['holder']}" in found["summary"]
    assert f"Port {said['port']} lies inside net.ipv4.ip_local_port_range" in found["summary"]
    now, reserve = found["advice"]
    there = "nsenter -t PID -n"  # the namespace has ended with all that were in it
    assert f"{there} sysctl -w net.ipv4.ip_local_reserved_ports={said['port']} " in reserve
    assert f"{there} ss -tK state connected 'sport = {said['port']} and dst 127.0.0.1" in now


def test_the_commands_do_what_they_say() -> None:
    # GIVEN a server that tries again and again, and the finding while it does
    words = [*PORTTRACE, "--json", "--", *NAMESPACE, WORKLOAD, "client_until_free"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run_:
        assert run_.stdout and run_.stderr
        lines = (json.loads(line) for line in run_.stdout)
        found = next(each for each in lines if each["type"] == "finding")
        reserve = COMMAND.search(found["advice"][1])
        free = COMMAND.search(found["advice"][0])
        assert reserve and free
        # WHEN its commands are typed
        pid, port = found["evidence"]["holder_pid"], found["subject"]["port"]
        subprocess.run(reserve[0], shell=True, check=True, capture_output=True)
        listed = ["nsenter", "-t", str(pid), "-n", "sysctl", "-n", RESERVED]
        now = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
        subprocess.run(free[0], shell=True, check=True, capture_output=True)
        # THEN the port is reserved, and the server has it
        assert now.strip() == str(port)
        report = [*lines][-1]
        assert "had it" in run_.stderr.read()
    (found,) = [each for each in report["findings"] if each["rule"] == "bind-conflict"]
    assert found["evidence"]["got_it_after_s"] > 0 and found["severity"] == "warning"


@pytest.mark.parametrize(("protocol", "error"), [("tcp", "EADDRNOTAVAIL"), ("udp", "EAGAIN")])
def test_a_connect_that_finds_no_port_is_an_autobind(protocol: str, error: str) -> None:
    traced, said = made(f"exhausted_{protocol}")
    (row,) = [each for each in traced.of("bind") if each["call"] == "autobind"]
    assert (row["protocol"], row["error"]) == (protocol, error)
    assert row["destination"] == f"127.0.0.1:{said['port']}"
    assert not traced.findings("bind-conflict")  # no bind of the program's own failed


def test_workers_of_one_program_are_fine() -> None:
    traced, _ = made("workers")
    (found,) = traced.findings("port-shared")
    assert (found["severity"], found["evidence"]["kind"]) == ("info", "workers")
    assert found["evidence"]["sockets"] == 4
    assert not traced.findings("bind-conflict")


def test_another_users_socket_on_the_port_is_a_takeover() -> None:
    traced, said = made("takeover")
    (found,) = traced.findings("port-shared")
    assert (found["severity"], found["evidence"]["kind"]) == ("warning", "takeover")
    assert said["holder"] in found["evidence"]["pids"]
    assert f"kill {said['holder']}" in " ".join(found["advice"])


def test_a_server_that_binds_and_listens_gives_no_finding() -> None:
    traced, _ = made("control")
    assert len(traced.of("bind")) == 5
    assert not [*traced.findings("bind-conflict"), *traced.findings("port-shared")]


def test_a_filter_on_local_ports_leaves_out_what_the_kernel_chose() -> None:
    traced, _ = made("workers", "--local-port", "1")
    assert not traced.of("bind")
    traced, said = made("control", "--local-port", "8080")
    assert {row["port_asked"] for row in traced.of("bind")} == {said["port"]}


def test_a_recording_says_the_same(tmp_path: Path) -> None:
    file = str(tmp_path / "client.ptrace")
    done = run("record", "-o", file, "--", *NAMESPACE, WORKLOAD, "client", timeout_s=240)
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    report = json.loads(run("report", file, "--json").stdout)
    (found,) = [each for each in report["findings"] if each["rule"] == "bind-conflict"]
    assert found["evidence"]["kind"] == "client"
    assert found["evidence"]["holder_pid"] == said["holder"]
    assert said["remote"] in run("show", file, "binds").stdout
