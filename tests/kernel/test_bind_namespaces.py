"""A server that cannot have its port and is gone at once: who is named is in its own namespace."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from porttrace.lab.hosts import Hosts
from tracing import running, trace

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
