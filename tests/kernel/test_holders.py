"""Holders that take more than a process of our own: namespaces, rings, the kernel, old kernels."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from porttrace.lab.hosts import Hosts
from porttrace.tracer import diag
from porttrace.tracer.facts import Holder
from porttrace.tracer.ports import Look, holders, socks
from porttrace.tracer.ports.others import Beside, Others, elsewhere, others
from porttrace.tracer.ports.peek import unlisted
from tracing import need_an_open_checkout

pytestmark = pytest.mark.kernel
HERE = Path(__file__).parent
OURS = os.stat("/proc/self/ns/net").st_ino
LOCAL = "127.0.0.1"

SERVER = """
import socket, sys
tcp = socket.create_server(("127.0.0.1", 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", tcp.getsockname()[1]))
print(tcp.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts() as made:
        yield made


@contextmanager
def running(command: list[str]) -> Iterator[tuple[int, int]]:
    """Run a command that prints a port and ends with its input; yield its pid and the port."""
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as child:
        assert child.stdin and child.stdout
        try:
            yield child.pid, int(child.stdout.readline())
        finally:
            child.stdin.close()
            child.terminate()


def number_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def test_another_network_namespace(hosts: Hosts) -> None:
    with running(hosts.in_server(["python3", "-c", SERVER])) as (pid, port):
        (found,) = holders("tcp", "", port, f"/proc/{pid}/ns/net")
        assert (found.kind, found.pid, found.netns) == ("listener", pid, number_of(pid))
        seen = elsewhere("tcp", port, others(OURS))
        (beside,) = seen.holders
        assert (beside.kind, beside.pid, beside.netns) == ("namespace", pid, number_of(pid))
        assert seen.closed == seen.beyond == ()
        assert beside.state == "LISTEN"
        assert beside.why.startswith(f"in another network namespace (that of python3, pid {pid}),")
        assert [each.pid for each in elsewhere("udp", port, others(OURS)).holders] == [pid]
        assert elsewhere("tcp", port, others(number_of(pid))).holders == ()


@contextmanager
def three_namespaces(port: int) -> Iterator[list[int]]:
    """Serve the port in three network namespaces; yields the processes, oldest first."""
    program = SERVER.replace('("127.0.0.1", 0)', f'("127.0.0.1", {port})')
    inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    with ExitStack() as stack:
        command = [*inside, "/usr/bin/python3", "-c", program]
        yield sorted(stack.enter_context(running(command))[0] for _ in range(3))


CLIENT = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
kept = [socket.create_connection(server.getsockname()) for _ in range(2)]
port = kept[0].getsockname()[1]
print(port if sys.argv[1] == "client" else server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("whose", "state"), [("client", "ESTABLISHED"), ("server", "LISTEN")])
def test_a_client_in_another_network_namespace(hosts: Hosts, whose: str, state: str) -> None:
    """It has the port as much as a listener; what a listener accepted is no second one."""
    command = hosts.in_client(["/usr/bin/python3", "-c", CLIENT, whose])
    with running(command) as (pid, port):
        (found,) = elsewhere("tcp", port, others(OURS)).holders
    assert (found.kind, found.state, found.pid) == ("namespace", state, pid)
    assert found.why.startswith("a connection, in ") is (whose == "client")


def test_all_are_looked_at_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    dump = socks.dump

    def slow(*words: Any, **how: Any) -> list[socks.Sock]:
        time.sleep(0.3)
        return dump(*words, **how)

    monkeypatch.setattr(socks, "dump", slow)
    with three_namespaces(43614) as pids:
        found = elsewhere("tcp", 43614, others(OURS))
    assert [each.pid for each in found.holders] == pids
    assert found.closed == found.beyond == ()


def test_those_beyond_the_bound_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with three_namespaces(43614) as pids:
        among = Others({number_of(pid): (pid,) for pid in pids})
        monkeypatch.setattr("porttrace.tracer.ports.others.MOST_LOOKED_AT", 2)
        for _ in range(3):
            found = elsewhere("tcp", 43614, among)
            assert [each.pid for each in found.holders] == pids[:2]
            assert (found.closed, found.beyond) == ((), (pids[2],))


def test_a_namespace_whose_oldest_process_ended_is_looked_at_by_another() -> None:
    with three_namespaces(43614) as (pid, stranger, _):
        # GIVEN one that is gone, and one that is elsewhere by now
        among = Others({number_of(pid): (2**22 + 1, stranger, pid)})
        (found,) = elsewhere("tcp", 43614, among).holders
        assert (found.pid, found.netns) == (pid, number_of(pid))
        assert f"(that of python3, pid {pid})" in found.why
        # THEN of one that is gone as a whole nothing is said
        assert elsewhere("tcp", 43614, Others({1: (2**22 + 1,)})) == Beside()


def test_of_very_many_servers_elsewhere_some_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porttrace.tracer.ports.others.MOST", 2)
    with three_namespaces(43614) as pids:
        one, two = elsewhere("tcp", 43614, others(OURS)).holders
    assert [one.pid, two.pid] == pids[:2]
    assert two.why.endswith("; 1 more elsewhere are not listed") and "more" not in one.why


def test_an_io_uring_keeps_it(tmp_path: Path) -> None:
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", tmp_path / "ring", HERE / "ring.c", "-luring"],
                   check=True)  # fmt: skip
    with running([str(tmp_path / "ring")]) as (pid, port):
        (found,) = holders("tcp", LOCAL, port)
        assert (found.kind, found.pid, found.comm) == ("descriptor", pid, "ring")
        assert found.why.startswith("kept by an io_uring")


def test_a_thread_has_it_for_itself() -> None:
    made, done = threading.Event(), threading.Event()
    ports: list[int] = []

    def alone() -> None:
        os_unshare_files()
        with socket.create_server((LOCAL, 0)) as server:
            ports.append(server.getsockname()[1])
            made.set()
            done.wait(20)

    thread = threading.Thread(target=alone)
    thread.start()
    try:
        assert made.wait(20)
        (found,) = holders("tcp", LOCAL, ports[0])
        assert (found.kind, found.pid) == ("listener", os.getpid())
        assert found.why == "it listens there; one thread of the process has it for itself"
    finally:
        done.set()
        thread.join()


def os_unshare_files() -> None:
    import ctypes

    assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES, of this thread


@contextmanager
def waiting(hosts: Hosts) -> Iterator[int]:
    with running(hosts.in_client(["sh", "-c", "echo 0; exec sleep 30"])) as (pid, _):
        yield pid


def ip(hosts: Hosts, *words: str) -> None:
    subprocess.run(["ip", "-n", hosts.client, *words], check=True)


def test_a_tunnel_of_the_kernel(hosts: Hosts) -> None:
    try:
        ip(hosts, "link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789", "dev", "lo")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no vxlan")
    ip(hosts, "link", "set", "vx0", "up")
    with waiting(hosts) as pid:
        (found,) = holders("udp", "", 4789, f"/proc/{pid}/ns/net")
    assert (found.kind, found.pid) == ("kernel", 0)
    assert found.why == "the kernel's own socket, of network device vx0 (vxlan)"


def test_a_listener_of_the_kernel(hosts: Hosts) -> None:
    try:
        ip(hosts, "mptcp", "endpoint", "add", LOCAL, "port", "5555", "signal")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no MPTCP")
    with waiting(hosts) as pid:
        (found,) = holders("tcp", LOCAL, 5555, f"/proc/{pid}/ns/net")
    assert (found.pid, found.state) == (0, "LISTEN")
    # Some hosts have a process that is closed to root: then it could be that one's.
    assert found.kind == "kernel" or "closed to root" in found.why
    assert "the kernel's own" in found.why


def test_what_older_kernels_do_not_list_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Linux before 6.8: sock_diag leaves sockets out that are bound only."""
    real = socks.dump

    def older(protocol: str, port: int = 0, closer: bool = False) -> list[socks.Sock]:
        return [each for each in real(protocol, port, closer) if each.state != diag.BOUND]

    with socket.socket(socket.AF_INET6) as idle, socket.socket() as plain:
        idle.bind(("::1", 0))
        port = idle.getsockname()[1]
        newer = holders("tcp", "::1", port)
        monkeypatch.setattr(socks, "dump", older)
        assert holders("tcp", "::1", port) == newer
        assert newer[0].kind == "bound"
        assert holders("tcp", "::1", port, look=Look(unlisted=False))[0].kind == "unknown"
        plain.bind((LOCAL, 0))
        mine = plain.getsockname()[1]
        assert [(s.sport, s.address, at.pid) for s, at in unlisted(mine, frozenset(), OURS)] == [
            (mine, LOCAL, os.getpid())
        ]
        assert unlisted(mine, frozenset(), OURS + 1) == []


def test_who_may_not_look_is_told_so() -> None:
    """As another user: the socket shows, and whose it is does not."""
    with socket.create_server((LOCAL, 0)) as server:
        found = as_nobody(server.getsockname()[1])
    assert (found.kind, found.state, found.pid, found.user) == ("listener", "LISTEN", 0, "root")
    assert "whose it is cannot be seen" in found.why
    assert found.why.endswith("(root may)")


def as_nobody(port: int) -> Holder:
    need_an_open_checkout()
    code = f"from porttrace.tracer.ports import holders; print(*holders('tcp', '{LOCAL}', {port}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=True,
    )
    found = eval(done.stdout, {"Holder": Holder})
    assert isinstance(found, Holder)
    return found
