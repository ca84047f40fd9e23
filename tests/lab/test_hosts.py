"""Hosts exist as described, answer as described, and are gone afterwards, whatever happened."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from errno import EAGAIN, ECONNREFUSED
from pathlib import Path

import pytest

from porttrace.lab import hosts
from porttrace.lab.errors import LabError
from porttrace.lab.hosts import Hosts, Owner

OWNER_PROGRAM = """
import time
from porttrace.lab.hosts import Hosts
from porttrace.lab.servers import Servers
with Hosts(with_router=True) as made, Servers(made) as servers:
    print(made.client, made.server, made.router, servers.pid, flush=True)
    time.sleep(60)
"""

CONNECT_PROGRAM = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
sock.settimeout(0.5)
print(sock.connect_ex((sys.argv[1], int(sys.argv[2]))))
"""


def connect_errno(made: Hosts, address: str, port: int) -> int:
    argv = made.in_client([sys.executable, "-c", CONNECT_PROGRAM, address, str(port)])
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


@pytest.mark.kernel
@pytest.mark.parametrize("with_router", [False, True])
def test_addresses_answer_refuse_or_stay_silent(with_router: bool) -> None:
    with Hosts(with_router) as made:
        for server in (hosts.SERVER_V4, hosts.SERVER_V6):
            assert connect_errno(made, server, 81) == ECONNREFUSED
        for blackhole in (hosts.BLACKHOLE_V4, hosts.BLACKHOLE_V6):
            assert connect_errno(made, blackhole, 81) == EAGAIN  # the program's own timeout
        names = {made.client, made.server} | ({made.router} if with_router else set())
        assert names <= set(hosts.namespaces())
    assert not names & set(hosts.namespaces())


@pytest.mark.kernel
def test_syns_to_the_blackhole_are_really_sent() -> None:
    with Hosts() as made:
        before = sent_packets(made)
        connect_errno(made, hosts.BLACKHOLE_V4, 81)
        assert sent_packets(made) > before


def sent_packets(made: Hosts) -> int:
    words = ["cat", "/sys/class/net/veth0/statistics/tx_packets"]
    return int(subprocess.run(made.in_client(words), capture_output=True, check=True).stdout)


@pytest.mark.kernel
def test_hosts_are_removed_when_the_body_raises() -> None:
    made = Hosts()
    with pytest.raises(ZeroDivisionError), made:
        raise ZeroDivisionError
    assert made.client not in hosts.namespaces()


@pytest.mark.kernel
def test_hosts_of_a_killed_owner_are_removed_by_the_next_run() -> None:
    argv = [sys.executable, "-c", OWNER_PROGRAM]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        client, server, router, server_pid = owner.stdout.readline().split()
        with pytest.raises(LabError, match="was not made by this run"):
            hosts.remove(client)
        owner.kill()
        owner.wait()
        wait_until_gone(int(server_pid))
        with Hosts():
            left = hosts.namespaces()
    assert not {client, server, router} & set(left)


def wait_until_gone(pid: int) -> None:
    end_s = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end_s, f"process {pid} outlived its parent"
        time.sleep(0.01)


@pytest.mark.kernel
def test_two_pairs_of_one_process_stand_side_by_side() -> None:
    with Hosts() as first:
        with Hosts() as second:
            assert first.client != second.client
        assert second.client not in hosts.namespaces()
        assert first.client in hosts.namespaces()


@pytest.mark.parametrize("name", ["blue", "porttrace-1-x-client", "../porttrace-1-2-client"])
def test_a_foreign_namespace_is_never_touched(name: str) -> None:
    with pytest.raises(LabError, match="was not made by this run"):
        hosts.remove(name)


def test_an_owner_is_a_process_and_its_start() -> None:
    me = Owner.this_process()
    assert me.alive()
    assert not Owner(me.pid, me.start_ticks + 1).alive()
    assert not Owner(2**22 + 1, me.start_ticks).alive()
    assert me.name("client") == f"porttrace-{os.getpid()}-{me.start_ticks}-client"


def test_without_root_the_hint_names_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError) as caught, Hosts():
        pass
    assert "sudo" in caught.value.hint
