"""Who gets what comes in where two sockets share a port: the table of docs/ports.md, for real."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.kernel

ALL, ONE, COUNT = "0.0.0.0", "192.0.2.1", 200

# Two sockets in a namespace of its own: who gets how many of COUNT from as many ports?
PROGRAM = """
import json, os, socket, sys
from porttrace.lab.bind_trials import leave_for_own_netns
kind, sockets, count = json.loads(sys.argv[1])
kind = getattr(socket, kind)
leave_for_own_netns()
shared = []
for address, options, uid in sockets:
    os.seteuid(uid)
    sock = socket.socket(socket.AF_INET, kind)
    os.seteuid(0)
    for name in options:
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), 1)
    sock.bind((address, 8080))
    shared.append(sock)
if kind == socket.SOCK_STREAM:
    for sock in shared:
        sock.listen(count)
for sock in shared:
    sock.setblocking(False)
clients = [socket.socket(socket.AF_INET, kind) for _ in range(count)]
for client in clients:
    client.connect(("192.0.2.1", 8080))
    client.send(b"x")
got = [0, 0]
for number, sock in enumerate(shared):
    take = sock.accept if kind == socket.SOCK_STREAM else lambda: sock.recv(1)
    while True:
        try:
            take()
        except BlockingIOError:
            break
        got[number] += 1
print(json.dumps(got))
"""


def got(kind: str, *sockets: tuple[str, list[str], int]) -> tuple[int, int]:
    argv = [sys.executable, "-c", PROGRAM, json.dumps([kind, sockets, COUNT])]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first + second == COUNT
    return first, second


@pytest.mark.parametrize("options", [["SO_REUSEADDR"], ["SO_REUSEADDR", "SO_REUSEPORT"]])
def test_the_newest_takes_all_datagrams_of_another_user(options: list[str]) -> None:
    assert got("SOCK_DGRAM", (ALL, options, 60001), (ALL, options, 60002)) == (0, COUNT)


@pytest.mark.parametrize(("first", "second"), [(ALL, ONE), (ONE, ALL)])
def test_the_narrower_address_takes_all_datagrams(first: str, second: str) -> None:
    options = ["SO_REUSEADDR"]
    expected = (0, COUNT) if second == ONE else (COUNT, 0)
    assert got("SOCK_DGRAM", (first, options, 60001), (second, options, 60002)) == expected


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_STREAM"])
def test_a_group_shares(kind: str) -> None:
    shares = got(kind, *([(ALL, ["SO_REUSEPORT"], 60001)] * 2))
    # The hash of the ports decides: fewer than a quarter of 200 has a chance of 1 in 10^12.
    assert min(shares) > COUNT / 4


def test_the_narrower_address_takes_all_connections() -> None:
    options = ["SO_REUSEPORT"]
    shares = got("SOCK_STREAM", (ALL, options, 60001), (ONE, options, 60001))
    assert shares == (0, COUNT)
