"""The collision matrix made for real: every cell as predicted, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from errno import EADDRINUSE
from pathlib import Path

import pytest

from porttrace.analysis.render import sharing
from porttrace.analysis.sharing import Claim, predict
from porttrace.analysis.sharing_matrix import Trial, disagreements
from porttrace.cli.lab_binds import trial_of
from porttrace.lab import binds
from porttrace.lab.errors import LabError

PAGE = Path(__file__).parent.parent.parent / "docs" / "ports.md"

# Two devices in a namespace of its own; prints the errno of the second bind.
ON_DEVICES = """
import socket, subprocess, sys
from porttrace.lab.bind_trials import leave_for_own_netns
leave_for_own_netns()
subprocess.run("ip link add one type veth peer name two".split(), check=True)
socks = []
for device in sys.argv[1:]:
    sock = socket.socket()
    if device != "any":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    socks.append(sock)
socks[0].bind(("0.0.0.0", 8080))
try:
    socks[1].bind(("0.0.0.0", 8080))
    print(0)
except OSError as error:
    print(error.errno)
"""

# Who made a socket, and who accepts a connection, counts: prints the errno of the second bind.
OWNERS = """
import os, socket, sys
from porttrace.lab.bind_trials import leave_for_own_netns
leave_for_own_netns()
maker, accepter, second = map(int, sys.argv[1:])
def made(uid):
    os.seteuid(uid)
    sock = socket.socket()
    os.seteuid(0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return sock
server = made(maker)
os.seteuid(accepter)
server.bind(("0.0.0.0", 8080))
server.listen()
client = socket.create_connection(("192.0.2.1", 8080))
connection, _ = server.accept()
os.seteuid(0)
if accepter != maker:
    server.close()
try:
    made(second).bind(("0.0.0.0", 8080))
    print(0)
except OSError as error:
    print(error.errno)
"""


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    """Return the whole matrix, made once for the tests here."""
    return [trial_of(tried) for tried in binds.try_all()]


# Linux 6.1 looks for the wildcard of a mapped address in the wrong place (in TCP only, so that a
# mistake in our rules would show with UDP): inet_bind2_bucket_match_addr_any, mended later.
MISSED = ("tcp", "[::ffff:0.0.0.0]", "[::ffff:192.0.2.1]")


@pytest.mark.kernel
@pytest.mark.timeout(700)
def test_every_cell_is_as_predicted(trials: list[Trial]) -> None:
    assert len(trials) == len(list(binds.cells())) > 20_000
    wrong = disagreements(trials)
    others = [t for t in wrong if (t.first.protocol, t.first_place, t.second_place) != MISSED]
    assert [sharing.difference(trial) for trial in others] == []
    # A kernel that has this mistake makes it wherever it matters.
    assert len(wrong) in (0, 140)


@pytest.mark.kernel
def test_every_state_has_cells_that_work_and_cells_that_do_not(trials: list[Trial]) -> None:
    seen = Counter((t.first.protocol, t.call, t.state, t.errno) for t in trials)
    states = {key[:3] for key in seen}
    assert len(states) == 13
    for state in states - {("tcp", "listen", s) for s in ("bound", "connected", "time_wait")}:
        assert seen[*state, 0] > 100 and seen[*state, EADDRINUSE] > 100, state


@pytest.mark.kernel
def test_first_sockets_stood_where_they_should(trials: list[Trial]) -> None:
    assert {t.first.address for t in trials if t.state == "client"} == {
        *(binds.ONE_V4, binds.ONE_V6, f"::ffff:{binds.ONE_V4}")
    }
    bound = [t for t in trials if t.state in ("bound", "listening")]
    assert all(t.first.address == t.at_bind.address for t in bound)


@pytest.mark.kernel
def test_the_page_has_the_tables_of_this_kernel(trials: list[Trial]) -> None:
    if disagreements(trials):
        pytest.skip("this kernel differs from the rules in some cells")
    page = PAGE.read_text()
    assert page == sharing.between_markers(page, sharing.markdown(trials))


@pytest.mark.kernel
@pytest.mark.parametrize(
    "devices", [("one", "two"), ("one", "one"), ("one", "any"), ("any", "one")]
)
def test_devices_as_predicted(devices: tuple[str, str]) -> None:
    argv = [sys.executable, "-c", ON_DEVICES, *devices]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    first, second = (Claim(port=8080, device=name.replace("any", "")) for name in devices)
    assert int(done.stdout) == predict(first, second)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("maker", "accepter", "second", "expected"),
    [
        (60001, 60001, 60001, 0),
        (60001, 60001, 0, EADDRINUSE),  # not even root joins another user's group
        (60001, 60002, 60002, 0),  # the connection that is left is of who accepted it
        # By the rules EADDRINUSE, but the port still knows who made its first socket (fastuid).
        (60001, 60002, 60001, 0),
        (60001, 60002, 60003, EADDRINUSE),
    ],
)
def test_whose_a_socket_is(maker: int, accepter: int, second: int, expected: int) -> None:
    argv = [sys.executable, "-c", OWNERS, str(maker), str(accepter), str(second)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    assert int(done.stdout) == expected


def test_without_root_the_hint_names_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError) as caught:
        binds.try_all()
    assert "sudo" in caught.value.hint


@pytest.mark.kernel
def test_a_run_that_cannot_go_on_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError, match="No such file or directory: 'ip'"):
        binds.try_all()
