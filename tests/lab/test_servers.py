"""The servers answer over both families, and late when asked to."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from porttrace.lab.hosts import SERVER_V4, SERVER_V6, Hosts
from porttrace.lab.servers import DATABASE_PORT, DIRECTORY_PORT, HTTP_PORT, Servers
from porttrace.lab.site import Site

ASK_PROGRAM = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
for _ in range(2):
    sock.sendall(sys.argv[3].encode())
    sys.stdout.write(sock.recv(4096).decode())
"""


def ask_twice(hosts: Hosts, address: str, port: int, request: str) -> str:
    argv = hosts.in_client([sys.executable, "-c", ASK_PROGRAM, address, str(port), request])
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.mark.kernel
@pytest.mark.parametrize("address", [SERVER_V4, SERVER_V6])
def test_each_server_answers_twice_over_one_connection(site: Site, address: str) -> None:
    http = ask_twice(site.hosts, address, HTTP_PORT, "GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
    assert http.count("HTTP/1.1 200 OK") == 2
    assert ask_twice(site.hosts, address, DIRECTORY_PORT, "bind u\n") == "welcome bind u\n" * 2
    assert ask_twice(site.hosts, address, DATABASE_PORT, "select 1\n") == "select 1\n" * 2


@pytest.mark.kernel
def test_a_slow_server_connects_at_once_and_answers_late() -> None:
    with Hosts() as hosts, Servers(hosts, delay_s=0.4):
        start_s = time.monotonic()
        ask_twice(hosts, SERVER_V4, DATABASE_PORT, "select 1\n")
        assert time.monotonic() - start_s > 0.8
