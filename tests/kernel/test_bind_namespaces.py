"""A server that cannot have its port and is gone at once: who is named is in its own namespace."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from porttrace.lab.hosts import Hosts
from tracing import Traced, read, running, trace, trace_whole

from kernel_lacks import NOTHING, run_with  # isort: skip

pytestmark = pytest.mark.kernel
PORT = 43612
SERVE = (
    "import socket, sys, time; sys.excepthook = lambda *_: None; s = socket.socket(); "
    "s.bind(('0.0.0.0', int(sys.argv[1]))); "
    "s.listen(); print(1, file=sys.stderr, flush=True); time.sleep(60)"
)
SERVER = ["/usr/bin/python3", "-c", SERVE, str(PORT)]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts() as made:
        yield made


@contextlib.contextmanager
def serving(*before: str) -> Iterator[int]:
    """Listen on the port, in the namespace that `before` leads to; yields the pid."""
    with subprocess.Popen([*before, *SERVER], stderr=subprocess.PIPE) as process:
        assert process.stderr and process.stderr.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def test_an_innocent_of_the_host_is_not_accused(hosts: Hosts) -> None:
    there = ["ip", "netns", "exec", hosts.client]
    with serving(), serving(*there) as inside:
        traced = trace([*there, *SERVER])
    (found,) = traced.findings("bind-conflict")
    assert found["evidence"]["holder_pid"] == inside, found["summary"]
    assert found["evidence"]["facts"]["netns_name"] == hosts.client


def test_the_filter_on_a_namespace_changes_nothing_of_it(hosts: Hosts) -> None:
    there = ["ip", "netns", "exec", hosts.client]
    with serving(), serving(*there) as inside:
        asleep = subprocess.Popen([*there, "sh", "-c", 'read x; "$@"; :', "sh", *SERVER],
                                  stdin=subprocess.PIPE)  # fmt: skip
        time.sleep(0.3)
        with running("--netns", hosts.client, "-d", "60") as tracer:
            asleep.communicate(b"\n", timeout=20)
            time.sleep(0.5)
            traced = tracer.finish(signal.SIGINT)
    (found,) = traced.findings("bind-conflict")
    assert found["evidence"]["holder_pid"] == inside, found["summary"]


def test_in_our_own_namespace_the_holder_is_found_too() -> None:
    with serving() as holder:
        traced = trace(SERVER)
    (found,) = traced.findings("bind-conflict")
    assert found["evidence"]["holder_pid"] == holder
    assert "nsenter" not in " ".join(found["advice"])


# Two sockets of one program that would share the port, had they one namespace: one thread makes
# both, and with "apart" it goes elsewhere in between. What it prints is where each was made.
SHARE = """
import ctypes, os, socket, sys
def serve():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("0.0.0.0", 43613))
    s.listen()
    return s, os.stat("/proc/thread-self/ns/net").st_ino
first = serve()
if sys.argv[1] == "apart":
    assert ctypes.CDLL(None).unshare(0x40000000) == 0
second = serve()
print([first[1], second[1]], file=sys.stderr, flush=True)
"""


def sharing(how: str) -> tuple[Traced, list[int]]:
    """Return the trace of two sockets that are `together` or `apart`, and where they are."""
    traced = trace_whole(["/usr/bin/python3", "-c", SHARE, how])
    said = [line for line in traced.notes.splitlines() if line.startswith("[")]
    return traced, json.loads(said[-1])


def test_two_sockets_of_one_namespace_share_the_port() -> None:
    traced, (first, second) = sharing("together")
    (found,) = traced.findings("port-shared")
    assert first == second == found["evidence"]["netns"]
    assert {row["netns"] for row in traced.of("bind")} == {first}


def test_two_sockets_of_two_namespaces_share_nothing() -> None:
    traced, where = sharing("apart")
    assert traced.findings("port-shared") == []
    listens = [row["netns"] for row in traced.of("bind") if row["call"] == "listen"]
    assert listens == where and where[0] != where[1]


@pytest.mark.parametrize(("how", "number"), [("together", 1), ("apart", 0)])
def test_without_btf_namespaces_are_told_apart_too(how: str, number: int) -> None:
    # the second time it stays for a moment, so that /proc can tell where it is
    program = f"import time\n{SHARE}\ntime.sleep(2)"
    hidden = NOTHING + "/sys/kernel/btf"
    for _ in range(3):
        traced = read(run_with(hidden, "--json", "--", "/usr/bin/python3", "-c", program, how))
        if traced.report["trust"]["complete"]:
            break  # else the kernel left out a call on a busy machine
    assert len(traced.findings("port-shared")) == number
    where = [row["netns"] for row in traced.of("bind") if row["call"] == "listen"]
    said = json.loads(next(line for line in traced.notes.splitlines() if line.startswith("[")))
    # THEN what it left at once is not known, or was read in time, and never told as where it went
    assert where[0] in (said[0], None) and where[1] == said[1]


def test_without_btf_nobody_is_named_for_who_is_gone(hosts: Hosts) -> None:
    # GIVEN the port taken in the host's namespace and in another, and servers that fail there
    there = ["ip", "netns", "exec", hosts.client]
    with serving() as innocent, serving(*there) as inside:
        # (a shell that waits for them: what is left out at the end of a trace is no matter)
        again = ["sh", "-c", 'for _ in 1 2 3; do "$@"; sleep 0.3; done', "sh", *SERVER]
        done = run_with(NOTHING + "/sys/kernel/btf", "--json", "--", *there, *again)
    failed = [row for row in read(done).of("bind") if row["error"] == "EADDRINUSE"]
    assert len(failed) == 3
    assert innocent not in [row["facts"].get("netns_pid") for row in failed]
    for row in failed:
        # THEN it is who has it there, or the reason why nobody can be told, and never the other
        (holder,) = row["holders"]
        assert holder["pid"] in (inside, 0) and holder["pid"] != innocent
        if not holder["pid"]:
            assert row["facts"]["netns_by"] == "unknown" and row["netns"] is None
            assert "the kernel did not tell it" in holder["why"]
