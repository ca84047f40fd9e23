"""An answer about a port within a second, on a host with 5,000 processes and 10,000 sockets."""

import json
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tracing
from porttrace.lab.hosts import Hosts
from porttrace.tracer.ports import holders

pytestmark = pytest.mark.kernel
HERE = Path(__file__).parent
PROCESSES, CONNECTIONS = 5000, 10_000
LIMIT_S = 1.0

# The server closes first, so that its own port is the one that waits: 10,000 times.
WORKLOAD = """
import socket, sys
for name, value in (("tcp_max_tw_buckets", 20000), ("tcp_tw_reuse", 0)):
    with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
        file.write(str(value))
server = socket.create_server(("127.0.0.1", 8080), backlog=16)
for number in range(int(sys.argv[1])):
    # each from an address of its own: a pair of ports that comes again would take up the old one
    source = f"127.1.{number // 250}.{number % 250 + 1}", 0
    client = socket.create_connection(("127.0.0.1", 8080), source_address=source)
    server.accept()[0].close()
    client.close()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """So many processes, for as long as the tests run."""
    program = tmp_path_factory.mktemp("sleepers") / "sleepers"
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", program, HERE / "sleepers.c"], check=True)
    with subprocess.Popen([program, str(PROCESSES)], stdin=-1, stdout=-1, text=True) as parent:
        assert parent.stdin and parent.stdout
        made = int(parent.stdout.readline())
        if made < PROCESSES:
            pytest.skip(f"this host allows {made} processes only")
        yield made
        parent.stdin.close()


@pytest.fixture(scope="module")
def waiting(crowd: int) -> Iterator[int]:
    """A process in a network namespace with so many sockets in TIME_WAIT."""
    with Hosts() as hosts:
        command = hosts.in_client(["/usr/bin/python3", "-c", WORKLOAD, str(CONNECTIONS)])
        with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as server:
            assert server.stdin and server.stdout
            assert server.stdout.readline() == "ready\n"
            yield server.pid
            server.stdin.close()


def took(*words: str) -> tuple[float, list[dict[str, Any]]]:
    """Return the median of three runs of porttrace in seconds, and what it printed.

    Seconds of a CPU: it waits for nothing else, and other tests of this machine are not its fault.
    """
    times = []
    for _ in range(3):
        begin = cpu_s()
        done = tracing.run(*words, "--json")
        times.append(cpu_s() - begin)
        assert done.returncode == 0, done.stderr
    return statistics.median(times), [json.loads(line) for line in done.stdout.splitlines()]


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_port_with_many_in_time_wait(waiting: int) -> None:
    taken_s, (tcp, udp) = took("port", "8080", "--netns", str(waiting))
    listener, wait = tcp["holders"]
    assert (listener["kind"], listener["pid"]) == ("listener", waiting)
    assert wait["kind"] == "time_wait"
    assert wait["why"].endswith(f"(the last of {CONNECTIONS} such sockets)")
    assert (tcp["bind"]["outcomes"], udp["bind"]["works"]) == (["EADDRINUSE"], True)
    assert taken_s < LIMIT_S


def test_a_port_of_one_of_them(waiting: int) -> None:
    """The kernel filters: one socket of 10,000 comes over, not all."""
    taken_s, (tcp, _) = took("port", "9", "--netns", str(waiting))
    assert tcp["holders"] == []
    assert taken_s < LIMIT_S


def test_the_look_up_of_a_trace(waiting: int) -> None:
    begin = time.process_time()
    found = holders("tcp", "0.0.0.0", 8080, f"/proc/{waiting}/ns/net")
    assert time.process_time() - begin < LIMIT_S
    assert [each.kind for each in found] == ["listener", "time_wait"]


def test_the_list(waiting: int) -> None:
    taken_s, (first, *rest) = took("ports", "--netns", str(waiting))
    assert first["states"]["TIME_WAIT"] > CONNECTIONS // 2  # each goes after 60 s
    assert [each["pid"] for each in rest if each["type"] == "socket"] == [waiting]
    assert taken_s < 2 * LIMIT_S  # no answer about one port: it reads them all
