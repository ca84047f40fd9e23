"""Shortage of ports and full queues, made for real in network namespaces and told by a trace."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from porttrace.analysis.recording import load
from porttrace.lab.bad_peers import FULL_PORT
from porttrace.lab.hosts import CLIENT_V4, SERVER_V4
from porttrace.lab.peer import Peer
from porttrace.lab.site import DEAD, LIVE, Site, open_site
from porttrace.tracer import namespaces, processes, shortage
from porttrace.tracer.sampler import Sampler, in_netns
from tracing import Traced, read, run, trace

# Where a processor is emulated, to start a trace alone takes a minute.
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]
PORTS, QUEUE = "ephemeral-exhaustion", "accept-queue"
REUSE = "/proc/sys/net/ipv4/tcp_tw_reuse"
FEW = 'echo "$0" >/proc/sys/net/ipv4/ip_local_port_range && exec "$@"'


def scenario(name: str, *options: str) -> Traced:
    return read(run("lab", "scenario", name, *options, "--json", timeout_s=250))


# -- ports --------------------------------------------------------------------------------


def test_ports_that_run_out_are_foretold_and_explained(tmp_path: Path) -> None:
    path = tmp_path / "ports.ptrace"
    traced = scenario("exhausted-ports", "-o", str(path))
    assert traced.code == 0, traced.notes
    told = [(each["type"], each.get("rule"), each.get("severity")) for each in traced.objects]
    lacking = [n for n, each in enumerate(traced.objects) if each.get("outcome") == "no_port"]
    # it was said before the first connect failed, and again when it had come true
    assert told.index(("finding", PORTS, "warning")) < lacking[0]
    assert told.index(("finding", PORTS, "critical")) > lacking[0]
    (finding,) = traced.findings(PORTS)
    evidence = finding["evidence"]
    assert (finding["severity"], evidence["ports"], evidence["failed"]) == ("critical", 40, 4)
    assert evidence["share"] >= 0.8 and evidence["foretold_s"] < evidence["first_failure_s"]
    assert 0 < evidence["frees_in_s"] <= 60
    # another destination still worked
    assert evidence["works"] == [f"{SERVER_V4}:389"]
    assert (finding["subject"]["source"], finding["subject"]["destination"]) == (CLIENT_V4, LIVE)
    # the file says the same
    (again,) = [each for each in load(path).findings if each.rule == PORTS]
    assert again.summary == finding["summary"] and again.evidence["works"] == evidence["works"]


@pytest.fixture
def site() -> Iterator[Site]:
    # Anew for each test: ports that one has used up would be missed by the next.
    with open_site() as opened:
        yield opened


def spend(site: Site, ports: str, *options: str, connects: int = 20) -> Traced:
    ends = ("--dead", DEAD, "--live", LIVE, "--truth", "/dev/null", "--threads", "1")
    argv = site.argv("habits", "spend", *ends, "--connects", str(connects), *options)
    at = argv.index(sys.executable)
    return trace([*argv[:at], "sh", "-c", FEW, ports, *argv[at:]], timeout_s=200)


def test_a_program_that_is_over_at_once_is_explained_as_well(site: Site) -> None:
    # all of it happens between two samples
    traced = spend(site, "41000 41009", "--pause", "0.02", connects=30)
    (finding,) = traced.findings(PORTS)
    assert finding["severity"] == "critical" and finding["evidence"]["failed"] == 20
    assert finding["confidence"] >= 0.5


def test_a_burst_with_ports_left_is_none(site: Site) -> None:
    traced = spend(site, "42000 42099", "--pause", "0.05", connects=70)
    assert len(traced.attempts) == 70 and traced.findings(PORTS) == []


_BOUND = """
import socket, sys, time
kept = []
for _ in range(20):
    sock = socket.socket()
    sock.bind((sys.argv[1], 0))
    sock.connect((sys.argv[2], 80))
    kept.append(sock)
time.sleep(1.5)
for _ in range(3):
    with socket.socket() as sock:
        assert sock.connect_ex((sys.argv[2], 389)) == 99
    time.sleep(0.2)
"""


def test_ports_that_bind_chose_are_missed_everywhere(site: Site) -> None:
    program = ["/usr/bin/python3", "-c", _BOUND, CLIENT_V4, SERVER_V4]
    argv = site.hosts.in_client(["sh", "-c", FEW, "43000 43019", *program])
    traced = trace(argv, timeout_s=200)
    assert traced.code == 0, traced.notes
    (finding,) = [each for each in traced.findings(PORTS) if each["severity"] == "critical"]
    assert finding["subject"]["destination"] == f"{SERVER_V4}:389"
    assert finding["evidence"]["used"] == 0 and finding["evidence"]["in_range"] == 20
    assert "IP_BIND_ADDRESS_NO_PORT" in finding["advice"][0]


_NO_SOURCE = """
import socket, sys, time
for _ in range(4):
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        try:
            sock.bind(("203.0.113.9", 0))
            sock.settimeout(0.3)
            sock.connect((sys.argv[1], 80))
        except OSError as error:
            print(error)
    with socket.socket() as sock:
        try:
            sock.bind(("203.0.113.9", 0))
        except OSError as error:
            assert error.errno == 99, error
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.connect(("2001:db8:ffff::1", 80))
        except OSError as error:
            print(error)
    time.sleep(0.3)
"""


def test_a_source_address_that_is_not_there_is_none(site: Site) -> None:
    argv = site.hosts.in_client(["/usr/bin/python3", "-c", _NO_SOURCE, SERVER_V4])
    traced = trace(argv, timeout_s=200)
    assert traced.code == 0 and traced.attempts
    assert traced.findings(PORTS) == []


# -- queues -------------------------------------------------------------------------------


def test_a_full_accept_queue_is_named_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "queue.ptrace"
    traced = scenario("slow-accept", "-o", str(path))
    assert traced.code == 0, traced.notes
    (finding,) = traced.findings(QUEUE)
    evidence, subject = finding["evidence"], finding["subject"]
    assert subject["listener"] == f"0.0.0.0:{FULL_PORT}"
    assert (evidence["limit"], evidence["owner"]) == (3, "python")
    assert subject["pid"] not in {row["pid"] for row in traced.attempts}  # the server's, not ours
    assert evidence["overflows"] >= 3 and evidence["samples_full"] >= 1
    # who had to send its SYN again waited for this queue, and for no network
    resent = [row["attempt_id"] for row in traced.attempts if row["retransmits"]]
    assert resent and {each["attempt_id"] for each in finding["victims"]} == set(resent)
    assert traced.findings("syn-lost") == []
    (again,) = [each for each in load(path).findings if each.rule == QUEUE]
    assert {**evidence, **again.evidence} == evidence


_SLOW = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=3)
listener.accept()[0].close()
until = time.monotonic() + 6
while time.monotonic() < until:
    listener.accept()[0].close()
    time.sleep(0.4)
"""


def test_a_slow_server_that_is_traced_itself() -> None:
    # GIVEN a server that is slow, and clients of which nobody knows
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clients = [subprocess.Popen(["/usr/bin/python3", "-c", _KNOCK, str(port)]) for _ in range(6)]
    try:
        traced = trace(["/usr/bin/python3", "-c", _SLOW, str(port)], timeout_s=200)
    finally:
        for client in clients:
            client.kill()
            client.wait()
    # THEN its queue is named all the same
    (finding,) = [
        each
        for each in traced.findings(QUEUE)
        if each["subject"]["listener"] == f"127.0.0.1:{port}"
    ]
    assert finding["evidence"]["limit"] == 3 and finding["evidence"]["owner"] == "python3"
    assert finding["evidence"]["samples_full"] >= 3 and finding["evidence"]["overflows"] >= 3
    assert finding["confidence"] >= 0.5
    # AND how long its connections waited, where the hook mode sees accept(2)
    if traced.report["trace"]["mode"] == "tracepoint":
        assert "accepted" not in finding["evidence"]
    else:
        assert finding["evidence"]["accepted_late"] >= 5
        assert finding["evidence"]["mean_queued_s"] > 0.3


_KNOCK = """
import socket, sys, time
until = time.monotonic() + 200
while time.monotonic() < until:
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5).close()
    except OSError:
        pass
    time.sleep(0.1)
"""

_BUSY = """
import socket, sys, threading
def serve(listener):
    while True:
        listener.accept()[0].close()
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
threading.Thread(target=serve, args=[listener], daemon=True).start()
import time
end = time.monotonic() + 3
while time.monotonic() < end:
    for _ in range(20):
        socket.create_connection(listener.getsockname()).close()
    time.sleep(0.05)
"""


def test_a_busy_server_is_healthy() -> None:
    traced = trace(["/usr/bin/python3", "-c", _BUSY], timeout_s=200)
    assert len(traced.attempts) > 200
    assert not traced.findings(QUEUE) and not traced.findings(PORTS)
    assert not traced.findings("conntrack-pressure")


# -- the sampler itself -------------------------------------------------------------------


def test_samples_are_of_each_namespace_and_change_none(site: Site) -> None:
    with Peer(site.hosts, "porttrace.lab.bad_peers", "full-queue", "--delay", "9") as peer:
        here, there = processes.netns(os.getpid()), processes.netns(peer.pid)
        before = Path("/proc/self/net/netstat").read_text().count("\n")
        sampler = Sampler(every_s=0.1)
        sampler.see(os.getpid(), here)
        sampler.see(peer.pid, there)
        sampler.start()
        time.sleep(0.5)
        sampler.stop()
        found = sampler.taken()
    assert {each.netns for each in found} == {here, there} and sampler.error is None
    assert Path("/proc/self/net/netstat").read_text().count("\n") == before
    assert all(each.settings for each in found)


def test_it_is_cheap_beside_20_000_in_time_wait(site: Site) -> None:
    with crowd(site, 20_000) as pid:
        netns = processes.netns(pid)
        count, _ = in_netns(pid, netns, shortage.sockets)
        assert count["tw"] >= 20_000
        sampler = Sampler()
        sampler.see(pid, netns)
        begun_s = time.monotonic()
        sampler.start()
        time.sleep(8)
        sampler.stop()
        lasted_s = time.monotonic() - begun_s
        used = [group.used for each in sampler.taken() if each.usage for group in each.usage.groups]
    assert used and max(used) >= 20_000
    # 1 % of a core, the 0.2 s that it may take ahead, and the round that stop asks for
    assert sampler.worked_s < 0.01 * lasted_s + 0.35, sampler.worked_s


_CROWD = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
for _ in range(int(sys.argv[1])):
    client = socket.create_connection(listener.getsockname())
    accepted = listener.accept()[0]
    client.close()
    accepted.close()
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def crowd(site: Site, number: int) -> Iterator[int]:
    command = ["/usr/bin/python3", "-c", _CROWD, str(number)]
    argv = site.hosts.in_server(["sh", "-c", f"echo 0 >{REUSE}; {FEW}", "30000 55999", *command])
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


_STATEFUL = b"""
table inet shortage {
  chain out {
    type filter hook output priority 0;
    ct state new accept
  }
}
"""


def test_conntrack_is_counted_in_its_namespace(site: Site) -> None:
    """The limit itself is one for the whole machine here: it is read, and never lowered."""
    enter = site.hosts.in_client(["sh", "-c", "echo $$; exec sleep 30"])
    process = subprocess.Popen(enter, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        pid = int(process.stdout.readline())
        netns = processes.netns(pid)
        found, _ = in_netns(pid, netns, shortage.conntrack)
        if not found:
            pytest.skip("this kernel has no connection tracking")
        assert found["max"] > 0 and found["count"] == 0 and found["drop"] == 0
        run_in = site.hosts.in_client
        subprocess.run(run_in(["nft", "-f", "-"]), input=_STATEFUL, check=True)
        for _ in range(3):
            ask = [
                "/usr/bin/python3",
                "-c",
                f"import socket; socket.create_connection(({SERVER_V4!r}, 80))",
            ]
            subprocess.run(run_in(ask), check=True)
        found, _ = in_netns(pid, netns, shortage.conntrack)
        assert found["count"] == 3
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert namespaces.find_netns(str(os.getpid())) != netns


_OWN_PORT = """
import socket, sys, time
def connect(port, to):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((sys.argv[1], port))
    return sock, sock.connect_ex((sys.argv[2], to))
kept = [connect(8380, 80), connect(8380, 80), connect(8381, 80), connect(8380, 389)]
assert [each[1] for each in kept] == [0, 99, 0, 0], kept
"""


def test_a_source_port_that_is_taken_is_no_shortage(site: Site) -> None:
    program = ["/usr/bin/python3", "-c", _OWN_PORT, CLIENT_V4, SERVER_V4]
    traced = trace(site.hosts.in_client(program), timeout_s=200)
    assert traced.code == 0, traced.notes
    assert traced.findings(PORTS) == []
    (finding,) = traced.findings("source-port-taken")
    assert (finding["subject"]["port"], finding["subject"]["destination"]) == (8380, LIVE)
    assert finding["evidence"]["holder_pid"] == finding["subject"]["pid"]


_LEFT = """
import socket, time
listener = socket.create_server(("127.0.0.1", 8080), backlog=64)
kept, errors = [], []
for _ in range(12):
    with socket.socket() as sock:
        errors.append(sock.connect_ex(("127.0.0.1", 8080)))
        if not errors[-1]:
            kept.append(listener.accept())
    time.sleep(0.1)
time.sleep(1)
assert errors == [0] * 10 + [99] * 2, errors
"""


def test_what_the_server_does_not_close_is_no_open_connection(site: Site) -> None:
    program = ["/usr/bin/python3", "-c", _LEFT]
    traced = trace(site.hosts.in_client(["sh", "-c", FEW, "43000 43009", *program]), timeout_s=200)
    assert traced.code == 0, traced.notes
    (finding,) = [each for each in traced.findings(PORTS) if each["severity"] == "critical"]
    evidence = finding["evidence"]
    assert (evidence["used"], evidence["fin_wait2"], evidence["open"]) == (10, 10, 0)
    assert finding["advice"][0].startswith("Let the server 127.0.0.1:8080 close")
