"""Each kind of holder is made for real, on loopback, and found; what needs root says so."""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from porttrace.tracer import capabilities, diag
from porttrace.tracer.facts import Holder
from porttrace.tracer.ports import Look, holders, socks
from porttrace.tracer.ports.holding import Seen, holder_of
from porttrace.tracer.ports.owners import Elsewhere, Owners
from porttrace.tracer.ports.socks import lists_bound

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="looks into processes of others")
ME = os.getpid()
LOCAL = "127.0.0.1"


def eventually(found: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not found():
        assert time.monotonic() < until
        time.sleep(0.02)


def only(
    protocol: str, address: str, port: int, v6only: bool = False, options: bool = False
) -> Holder:
    (found,) = holders(protocol, address, port, v6only=v6only, look=Look(options=options))
    assert (found.protocol, found.port) == (protocol, port)
    assert found.netns == os.stat("/proc/self/ns/net").st_ino
    return found


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server((LOCAL, 0)) as made:
        yield made


@pytest.fixture
def client(server: socket.socket) -> Iterator[socket.socket]:
    with socket.create_connection(server.getsockname()) as made:
        yield made


def test_a_listener(server: socket.socket) -> None:
    found = only("tcp", LOCAL, server.getsockname()[1])
    assert (found.kind, found.state, found.pid, found.address) == ("listener", "LISTEN", ME, LOCAL)
    assert (found.uid, found.user) == (os.geteuid(), "root" if not os.geteuid() else found.user)
    assert found.comm and found.why == "it listens there"


def test_a_client_holds_its_ephemeral_port(server: socket.socket, client: socket.socket) -> None:
    # A port of the ephemeral range may have others' connections, too, to other peers.
    every = holders("tcp", "0.0.0.0", client.getsockname()[1], look=Look(options=False))
    (found,) = [each for each in every if each.pid == ME]
    assert (found.kind, found.state) == ("client", "ESTABLISHED")
    assert found.remote == f"{LOCAL}:{server.getsockname()[1]}"
    assert 0 <= found.age_s < 5
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low, high = file.read().split()
    assert found.why.endswith(f"from the range {low}-{high}")


def test_its_age_is_not_known_once_something_was_sent(
    server: socket.socket, client: socket.socket
) -> None:
    taken = server.accept()[0]
    with taken:
        client.sendall(b"hello")
        assert taken.recv(5) == b"hello"
        assert only("tcp", LOCAL, client.getsockname()[1]).age_s == -1


def test_what_a_listener_accepted(server: socket.socket, client: socket.socket) -> None:
    port = server.getsockname()[1]
    listener, waiting = holders("tcp", LOCAL, port)
    assert (listener.kind, waiting.kind, waiting.pid) == ("listener", "accepted", 0)
    assert waiting.why.endswith("nobody has accepted yet")
    with server.accept()[0]:
        taken = holders("tcp", LOCAL, port)[1]
        assert (taken.kind, taken.pid) == ("accepted", ME)
        assert taken.remote == f"{LOCAL}:{client.getsockname()[1]}"


def test_a_child_that_has_the_listener_keeps_it_as_well(server: socket.socket) -> None:
    port = server.getsockname()[1]
    words = [sys.executable, "-c", "input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[server.fileno()]) as child:
        eventually(lambda: child.pid in only("tcp", LOCAL, port).also)
        found = only("tcp", LOCAL, port)
        assert {found.pid, *found.also} == {ME, child.pid}
        child.communicate(b"\n")
    assert only("tcp", LOCAL, port).also == ()


@pytest.mark.parametrize("address", [LOCAL, "::1"])
def test_bound_and_idle(address: str) -> None:
    if not lists_bound() and os.geteuid():
        pytest.skip("this kernel does not list them, and only root may search for them")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as idle:
        idle.bind((address, 0))
        found = only("tcp", address, idle.getsockname()[1])
    assert (found.kind, found.state, found.pid, found.address) == ("bound", "BOUND", ME, address)


def test_time_wait_says_how_long(server: socket.socket, client: socket.socket) -> None:
    port = client.getsockname()[1]
    taken = server.accept()[0]
    client.close()
    taken.close()
    eventually(lambda: only("tcp", LOCAL, port).kind == "time_wait")
    found = only("tcp", LOCAL, port)
    assert (found.state, found.pid, found.uid) == ("TIME_WAIT", 0, -1)
    assert 50 < found.frees_in_s <= 60
    assert found.age_s == pytest.approx(60 - found.frees_in_s)


def test_many_in_time_wait_are_one_holder_with_the_longest_wait(server: socket.socket) -> None:
    port = server.getsockname()[1]
    for _ in range(5):
        with socket.create_connection((LOCAL, port)):
            server.accept()[0].close()
            time.sleep(0.02)  # the server closes first: the port that waits is its own
    listener, waiting = holders("tcp", LOCAL, port)
    assert (listener.kind, waiting.kind) == ("listener", "time_wait")
    assert waiting.why.endswith("(the last of 5 such sockets)")


def test_closing(server: socket.socket, client: socket.socket) -> None:
    port = client.getsockname()[1]
    with server.accept()[0]:
        client.close()
        eventually(lambda: only("tcp", LOCAL, port).state == "FIN_WAIT2")
        found = only("tcp", LOCAL, port)
        assert (found.kind, found.pid) == ("closing", 0)
        assert 0 < found.frees_in_s <= 60
        # the other end, which its process keeps
        ours = holders("tcp", LOCAL, server.getsockname()[1])[1]
        assert (ours.kind, ours.state, ours.pid) == ("closing", "CLOSE_WAIT", ME)
        assert (ours.frees_in_s, ours.why) == (
            -1,
            "the other end has closed; it stays until its process closes, too",
        )


@pytest.mark.parametrize(("mine", "theirs"), [(LOCAL, LOCAL), ("0.0.0.0", LOCAL), ("::", "::1")])
def test_udp(mine: str, theirs: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in mine else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((mine, 0))
        port = s.getsockname()[1]
        found = only("udp", theirs, port)
        assert (found.kind, found.state, found.pid, found.address) == ("udp", "UNCONN", ME, mine)
        assert ME not in [each.pid for each in holders("tcp", theirs, port)]
        s.connect((theirs, 9))
        assert only("udp", theirs, port).remote == (
            f"[{theirs}]:9" if ":" in theirs else f"{theirs}:9"
        )


def dual(v6only: bool) -> socket.socket:
    made = socket.socket(socket.AF_INET6)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    made.bind(("::", 0))
    made.listen()
    return made


def test_the_other_family_through_a_dual_stack_wildcard() -> None:
    with dual(v6only=False) as wide:
        found = only("tcp", LOCAL, wide.getsockname()[1])
        assert (found.kind, found.address, found.v6only, found.pid) == ("listener", "::", False, ME)
    with dual(v6only=True) as narrow:
        assert only("tcp", LOCAL, narrow.getsockname()[1]).kind == "unknown"
        assert only("tcp", "::1", narrow.getsockname()[1]).v6only is True


def test_ipv4_through_an_ipv6_socket_is_ipv4() -> None:
    with dual(v6only=False) as server:
        port = server.getsockname()[1]
        with socket.create_connection((LOCAL, port)) as client, server.accept()[0]:
            taken = holders("tcp", LOCAL, port)[1]
            assert (taken.kind, taken.address) == ("accepted", LOCAL)
            assert taken.remote == f"{LOCAL}:{client.getsockname()[1]}"


def test_addresses_that_do_not_meet(server: socket.socket) -> None:
    port = server.getsockname()[1]
    assert only("tcp", "127.0.0.2", port).kind == "unknown"
    assert only("tcp", "::", port).kind == "listener"
    assert only("tcp", "::", port, v6only=True).kind == "unknown"


def test_options_are_read_from_the_socket_itself() -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(socket.socket()) for _ in range(2))
        for each in (first, second):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind((LOCAL, 0))
        first.listen()
        assert only("tcp", LOCAL, first.getsockname()[1], options=True).reuseport is True
        assert only("tcp", LOCAL, first.getsockname()[1]).reuseport is None
        second.bind(first.getsockname())
        second.listen()
        found = only("tcp", LOCAL, first.getsockname()[1])
        assert found.why == "it listens there (the last of 2 such sockets)"
        assert found.reuseport is True  # two on one address: no other way


CHILD = """
import os, socket, sys
name, options = sys.argv[1], sys.argv[2:]
with open("/proc/self/comm", "w") as file:
    file.write(name)
os.setuid(65534)
made = socket.socket()
made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
made.bind(("127.0.0.1", 0))
made.listen()
print(made.getsockname()[1], flush=True)
sys.stdin.read()
"""


def other(name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@needs_root
def test_the_reuseport_group_of_another_user() -> None:
    with other("w\x1b[31m\nx") as child:
        try:
            assert child.stdout
            found = only("tcp", LOCAL, int(child.stdout.readline()), options=True)
            assert (found.kind, found.pid, found.reuseport) == ("listener", child.pid, True)
            assert (found.uid, found.user) == (65534, "nobody")
            assert found.comm == "w\x1b[31m\nx"  # as it is: whoever prints it escapes it
        finally:
            child.communicate()


@needs_root
def test_a_descriptor_in_flight() -> None:
    here, there = socket.socketpair()
    with here, there:
        with socket.create_server((LOCAL, 0)) as made:
            port = made.getsockname()[1]
            socket.send_fds(here, [b"x"], [made.fileno()])
        found = only("tcp", LOCAL, port)
        assert (found.kind, found.state, found.pid) == ("descriptor", "LISTEN", 0)
        _, _, pids = found.why.rpartition("(descriptors wait for pid ")
        assert str(ME) in pids.rstrip(")").split(", ")  # others of the host may have some, too
        (quick,) = holders("tcp", LOCAL, port, look=Look(strays=False))
        assert (quick.kind, quick.pid) == ("listener", 0)  # not searched: nothing is claimed
        assert quick.why.endswith("no process had it open at that moment")
        os.close(socket.recv_fds(there, 1, 1)[1][0])
    assert only("tcp", LOCAL, port).kind == "unknown"


@needs_root
def test_what_is_closed_to_all_ends_no_search_of_who_may_look_at_all_others() -> None:
    """After its start a trace runs as another user that kept the capability."""
    sock = socks.Sock("tcp", socket.AF_INET, diag.LISTEN, 0, 0, bytes(4), 80, bytes(4), 0, 0, 1,
                      0, 7, 0, 0, None, -1)  # fmt: skip
    seen = Seen([sock], Owners({}, closed=(1,)), elsewhere=Elsewhere(receivers=(ME,)))
    before = capabilities.held()
    os.seteuid(65534)
    try:
        assert "cannot be seen" in holder_of(sock, seen).why  # seteuid gave all of them up
        capabilities.hold(before)
        assert holder_of(sock, seen).kind == "descriptor"
    finally:
        os.seteuid(0)
        capabilities.hold(before)


def test_nobody_has_it(server: socket.socket) -> None:
    port = server.getsockname()[1]
    server.close()
    found = only("tcp", LOCAL, port)
    assert found.kind == "unknown"
    assert found.why.startswith("no socket has this port now: whoever had it has let go of it")


def test_a_namespace_that_cannot_be_entered() -> None:
    (found,) = holders("tcp", "", 80, f"/proc/{2**22 + 1}/ns/net")
    assert found.kind == "unknown"
    assert (
        found.why
        == "cannot enter the network namespace /proc/4194305/ns/net: No such file or directory"
    )


def test_a_reset_leaves_nothing(server: socket.socket, client: socket.socket) -> None:
    port = client.getsockname()[1]
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert only("tcp", LOCAL, port).kind == "unknown"


COMES_AND_GOES = """
import socket, time
address = "127.0.0.1", 0
while True:
    with socket.create_server(address) as made:
        if not address[1]:
            address = made.getsockname()
            print(address[1], flush=True)
        time.sleep(0.005)
"""


@needs_root
def test_what_comes_and_goes_is_never_the_kernels() -> None:
    """Between the look at the sockets and the one at the processes it may have closed."""
    command = [sys.executable, "-c", COMES_AND_GOES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            port = int(child.stdout.readline())
            found = [each for _ in range(60) for each in holders("tcp", LOCAL, port)]
            assert child.poll() is None  # we never were in its way
        finally:
            child.kill()
    assert {each.kind for each in found} <= {"listener", "bound", "unknown"}
    known = [each for each in found if each.kind == "listener"]
    assert known
    assert all(each.pid == child.pid or "came or went" in each.why for each in known)
