"""Failures before the SYN, answers at the gate, and the rarer ways to end, by the real kernel."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from porttrace.lab.site import Site, open_site
from tracing import Traced, trace

pytestmark = pytest.mark.kernel

CLIENT = """
import select, socket, sys
address, port, blocking, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
kept = []
for _ in range(times):
    s = socket.socket()
    s.setblocking(bool(blocking))
    code = s.connect_ex((address, port))
    if code == 115:
        select.select([], [s], [], 10)
        code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    kept.append(s)
    print(code, file=sys.stderr)
"""
# A datagram socket's connect fails too, and is no attempt: as getaddrinfo does it.
DATAGRAM = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect_ex(('198.51.100.1', 53))"
# Asks the result of a failed non-blocking connect by connecting again, as old programs do.
ASKS_AGAIN = """
import socket, time
s = socket.socket(); s.setblocking(False)
print(s.connect_ex(("192.0.2.2", 9)))
time.sleep(0.2)
print(s.connect_ex(("192.0.2.2", 9)))
"""
INTERRUPTED = """
import errno, signal, socket
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.3)
s = socket.socket()
s.setsockopt(6, 18, 1500)
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
signal.siginterrupt(signal.SIGALRM, True)
where = struct.pack("=HH4s8x", 2, socket.htons(9100), socket.inet_aton("192.0.2.66"))
assert libc.connect(s.fileno(), where, 16) == -1 and ctypes.get_errno() == errno.EINTR
assert libc.connect(s.fileno(), where, 16) == -1
assert ctypes.get_errno() == errno.ETIMEDOUT, ctypes.get_errno()
"""
SEND_TIMEOUT = """
import socket, struct
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 400000))
assert s.connect_ex(("192.0.2.66", 9100)) == 115
s.close()
"""
# Takes its attempt back by connecting to nobody, and uses the socket for another one.
DISSOLVED = """
import ctypes, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket(); s.setblocking(False)
assert s.connect_ex(("192.0.2.66", 9100)) == 115
assert libc.connect(s.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16) == 0
s.setblocking(True)
assert s.connect_ex(("192.0.2.2", 80)) == 0
"""
# Has its error, and asks once more: only the call after that connects.
ABORTED = """
import errno, select, socket
s = socket.socket(); s.setblocking(False)
assert s.connect_ex(("192.0.2.2", 9)) == errno.EINPROGRESS
select.select([], [s], [], 10)
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
assert s.connect_ex(("192.0.2.2", 80)) == errno.ECONNABORTED
s.setblocking(True)
assert s.connect_ex(("192.0.2.2", 80)) == 0
"""
DENIED_BY_FILTER = """
import seccomp, errno, socket, sys
f = seccomp.SyscallFilter(seccomp.ALLOW)
f.add_rule(seccomp.ERRNO(errno.EPERM), "connect")
f.load()
assert socket.socket().connect_ex(("192.0.2.2", 80)) == errno.EPERM
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with open_site() as opened:
        for kind, net in (("unreachable", "198.51.100.0/26"), ("prohibit", "198.51.100.64/26")):
            _client(opened, "ip", "route", "add", kind, net)
        _server(opened, "nft", "add table inet t")
        _server(opened, "nft", "add chain inet t in { type filter hook input priority 0; }")
        _server(opened, "nft", "add rule inet t in tcp dport 81 reject with icmp host-unreachable")
        yield opened


def _client(site: Site, *command: str) -> None:
    subprocess.run(site.hosts.in_client(list(command)), check=True)


def _server(site: Site, *command: str) -> None:
    subprocess.run(site.hosts.in_server(list(command)), check=True)


def connect(site: Site, address: str, port: int, blocking: bool, times: int = 1) -> Traced:
    words = [address, str(port), str(int(blocking)), str(times)]
    return trace(site.hosts.in_client([sys.executable, "-c", CLIENT, *words]))


def script(site: Site, text: str) -> Traced:
    traced = trace(site.hosts.in_client([sys.executable, "-c", text]))
    assert traced.code == 0, traced.notes
    return traced


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize(
    ("address", "port", "outcome", "errno"),
    [
        ("198.51.100.1", 80, "unreachable", 113),
        ("198.51.100.65", 80, "denied", 13),
        ("203.0.113.1", 80, "unreachable", 101),
        ("192.0.2.2", 81, "unreachable", 113),
    ],
)
def test_what_the_kernel_refuses(
    site: Site, blocking: bool, address: str, port: int, outcome: str, errno: int
) -> None:
    traced = connect(site, address, port, blocking)
    (row,) = traced.attempts
    assert (row["outcome"], row["errno"]) == (outcome, errno), traced.notes
    assert (row["daddr"], row["dport"]) == (address, port)
    assert row["return_ns"] >= row["call_ns"]


def test_a_shortage_of_ports_keeps_the_destination(site: Site) -> None:
    # GIVEN four ephemeral ports and five connects to one place
    _client(site, "sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40003")
    try:
        traced = connect(site, "192.0.2.2", 80, True, times=5)
    finally:
        _client(site, "sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 60999")
    outcomes = [(row["outcome"], row["dport"]) for row in traced.attempts]
    assert outcomes == [("established", 80)] * 4 + [("no_port", 80)]
    assert traced.attempts[4]["errno"] == 99


def test_datagram_sockets_make_no_attempts(site: Site) -> None:
    assert script(site, DATAGRAM).attempts == []


def test_asking_again_is_not_another_attempt(site: Site) -> None:
    (row,) = script(site, ASKS_AGAIN).attempts
    assert row["outcome"] == "refused" and row["blocking"] is False


def test_an_interrupted_connect_goes_on_as_one_attempt(site: Site) -> None:
    (row,) = script(site, INTERRUPTED).attempts
    assert row["outcome"] == "timed_out" and row["errno"] == 110
    assert (row["end_ns"] - row["syn_ns"]) / 1e9 > 1.3


def test_a_send_timeout_ends_the_call_and_not_the_attempt(site: Site) -> None:
    (row,) = script(site, SEND_TIMEOUT).attempts
    assert row["outcome"] == "cancelled"
    assert row["blocking"] is True
    assert 0.3 <= (row["end_ns"] - row["syn_ns"]) / 1e9 < 1


def test_an_attempt_that_is_taken_back_did_not_fail(site: Site) -> None:
    first, second = script(site, DISSOLVED).attempts
    assert (first["outcome"], first["errno"], first["blocking"]) == ("cancelled", 0, False)
    assert (second["outcome"], second["dport"]) == ("established", 80)


def test_an_error_that_was_asked_for_is_not_replaced_by_a_later_call(site: Site) -> None:
    first, second = script(site, ABORTED).attempts
    assert (first["outcome"], first["errno"]) == ("refused", 111)
    assert (second["outcome"], second["dport"]) == ("established", 80)


def test_a_filter_that_denies_is_an_answer_before_the_kernels_connect(site: Site) -> None:
    # seccomp's ERRNO does not stop the thread, so there is no hold to see: only that
    # nothing is invented.
    assert script(site, DENIED_BY_FILTER).attempts == []
