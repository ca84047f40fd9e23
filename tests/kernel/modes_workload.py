"""A known workload in one thread, one attempt after the other: every outcome, every way.

    modes_workload.py WAYS WAYS32

Runs in a network namespace of its own (unshare -n), which it furnishes: a device that
swallows what is sent to it, and nothing beyond. WAYS and WAYS32 are the built programs of
ways.c and ways32.c. Fails when an attempt ends otherwise than it says.
"""

import errno
import select
import socket
import subprocess
import sys
import time

LIVE, CLOSED = 7001, 7002
TCP_USER_TIMEOUT = 18
KINDS = [  # (family, here, where nobody answers, where no route leads)
    (socket.AF_INET, "127.0.0.1", "192.0.2.66", "203.0.113.1"),
    (socket.AF_INET6, "::1", "2001:db8::66", "2001:db8:1::1"),
    (socket.AF_INET6, "::ffff:127.0.0.1", "::ffff:192.0.2.66", "::ffff:203.0.113.1"),
]
IPPROTO_MPTCP = 262


def ways_here() -> list[str]:
    """Return the ways that this kernel has, as ways.c names them; some have no MPTCP."""
    found = ["io_uring", "io_uring_async", "fastopen"]
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError:
        return found
    return [*found, "mptcp"]


def furnish() -> None:
    for words in (
        "link set lo up",
        "link add swallow type veth peer name far",
        "addr add 192.0.2.1/24 dev swallow",
        "addr add 2001:db8::1/64 dev swallow nodad",
        "link set swallow up",
        "link set far up",
        "neigh add 192.0.2.66 lladdr 02:00:00:00:00:66 dev swallow nud permanent",
        "neigh add 2001:db8::66 lladdr 02:00:00:00:00:66 dev swallow nud permanent",
    ):
        subprocess.run(["ip", *words.split()], check=True)


def attempt(family: int, there: str, port: int, blocking: bool, expected: int) -> socket.socket:
    sock = socket.socket(family)
    if expected == errno.ETIMEDOUT:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1200)
    sock.setblocking(blocking)
    code = sock.connect_ex((there, port))
    if code == errno.EINPROGRESS and expected != errno.EINPROGRESS:
        select.select([], [sock], [], 20)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert code == expected, (there, port, code, expected)
    return sock


def without_ports(family: int, here: str) -> None:
    # One port to go out by, and it is taken: the kernel gives up after SYN_SENT.
    with open("/proc/sys/net/ipv4/ip_local_port_range", "r+") as ports:
        ports.write("45000 45000\n")
    first = attempt(family, here, LIVE, True, 0)
    attempt(family, here, LIVE, True, errno.EADDRNOTAVAIL).close()
    first.close()
    with open("/proc/sys/net/ipv4/ip_local_port_range", "r+") as ports:
        ports.write("32768 60999\n")


def main(ways: str, ways32: str) -> None:
    furnish()
    server = socket.create_server(("::", LIVE), family=socket.AF_INET6, dualstack_ipv6=True)
    for family, here, nobody, nowhere in KINDS:
        for blocking in (True, False):
            attempt(family, here, CLOSED, blocking, errno.ECONNREFUSED).close()
            attempt(family, here, LIVE, blocking, 0).close()
        attempt(family, nobody, LIVE, True, errno.ETIMEDOUT).close()
        attempt(family, nobody, LIVE, False, errno.EINPROGRESS).close()
        attempt(family, nowhere, LIVE, True, errno.ENETUNREACH).close()
    without_ports(socket.AF_INET, "127.0.0.1")
    time.sleep(0.1)
    for way in ways_here():
        done = subprocess.run([ways, way, str(LIVE), str(CLOSED)], capture_output=True, check=True)
        assert done.stdout.split() == [b"0", b"-111", b"-101"], (way, done.stdout)
    assert subprocess.run([ways32], check=False).returncode == 0, ways32
    server.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
