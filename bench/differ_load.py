"""Connects of every kind at random, bounded, and by a seed: what bench/differ.py compares.

    differ_load.py ATTEMPTS THREADS SEED

Runs in the lab's client host, which it furnishes with routes that refuse. Of what comes out of
each connect it says nothing: that is for strace, tcpdump and porttrace to tell, each by itself.
"""

import contextlib
import ctypes
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIVE, CLOSED, DEAD = 7001, 9, 9100
_TCP_USER_TIMEOUT, _TCP_FASTOPEN_CONNECT = 18, 30
_IP_BIND_ADDRESS_NO_PORT = 24
_MSG_FASTOPEN = 0x20000000
_IPPROTO_MPTCP = 262
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Family:
    """One way to reach the lab: by IPv4, by IPv6, or by IPv4 in an IPv6 socket."""

    number: int
    here: str
    server: str
    nobody: str  # swallows every packet
    unreachable: str  # a route says so
    prohibited: str
    nowhere: str  # no route at all
    own: str  # the client's own address on the way to the server


_V4 = Family(socket.AF_INET, "127.0.0.1", "192.0.2.2", "192.0.2.66", "198.51.100.1",
             "203.0.113.1", "203.0.113.129", "192.0.2.1")  # fmt: skip
_V6 = Family(socket.AF_INET6, "::1", "2001:db8::2", "2001:db8::66", "2001:db8:1::1",
             "2001:db8:2::1", "2001:db8:3::1", "2001:db8::1")  # fmt: skip
_MAPPED = Family(
    socket.AF_INET6, *(f"::ffff:{getattr(_V4, name)}" for name in Family.__annotations__
                       if name != "number")
)  # fmt: skip
FAMILIES = (_V4, _V6, _MAPPED)


def furnish() -> None:
    """Add the routes that refuse, and let data go with the SYN, without a cookie."""
    for words in (
        "route add unreachable 198.51.100.0/24",
        "route add prohibit 203.0.113.0/25",
        "-6 route add unreachable 2001:db8:1::/64",
        "-6 route add prohibit 2001:db8:2::/64",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("5")


# -- one call --------------------------------------------------------------------------------


def _address(family: int, there: str, port: int) -> bytes:
    packed = socket.inet_pton(family, there)
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack("!H", port) + packed + bytes(8)
    return struct.pack("=H", family) + struct.pack("!HI", port, 0) + packed + bytes(4)


def _call(sock: socket.socket, address: bytes, length: int = -1) -> int:
    # Python's own connect would wait and ask again after a signal.
    size = len(address) if length < 0 else length
    return ctypes.get_errno() if _LIBC.connect(sock.fileno(), address, size) else 0


def _begin(family: Family, there: str, port: int, blocking: bool) -> tuple[socket.socket, int]:
    sock = socket.socket(family.number)
    sock.setblocking(blocking)
    return sock, _call(sock, _address(family.number, there, port))


def _end(sock: socket.socket) -> None:
    # As a program does it: wait, ask for the error, see the own port.
    if select.select([], [sock], [], 20)[1]:
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    _shut(sock)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.getsockname()
    sock.close()


# -- kinds of steps: each makes about one attempt --------------------------------------------

Dice = random.Random


def _to(dice: Dice, places: Callable[[Family], list[tuple[str, int]]], blocking: bool) -> None:
    family = dice.choice(FAMILIES)
    sock, _ = _begin(family, *dice.choice(places(family)), blocking)
    _shut(sock) if blocking else _end(sock)


def answered(dice: Dice) -> None:
    """Established or refused, blocking or not, near or far."""

    def places(f: Family) -> list[tuple[str, int]]:
        return [(f.here, LIVE), (f.here, CLOSED), (f.server, 80), (f.server, CLOSED)]

    _to(dice, places, dice.random() < 0.5)


def unreachable(dice: Dice) -> None:
    """No way leads there: the call itself fails."""

    def places(f: Family) -> list[tuple[str, int]]:
        return [(f.unreachable, LIVE), (f.prohibited, LIVE), (f.nowhere, LIVE)]

    _to(dice, places, dice.random() < 0.5)


def given_up(dice: Dice) -> None:
    """Nobody answers, and the program does not wait: closed, or shut down, in SYN_SENT."""
    family = dice.choice(FAMILIES)
    sock, _ = _begin(family, family.nobody, DEAD, False)
    time.sleep(dice.uniform(0, 0.1))
    if dice.random() < 0.3:
        with contextlib.suppress(OSError):
            sock.getsockname()
            sock.shutdown(socket.SHUT_RDWR)
    _shut(sock)


def timed_out(dice: Dice) -> None:
    """Nobody answers, and the kernel's timer ends it."""
    family = dice.choice(FAMILIES)
    sock = socket.socket(family.number)
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, 1200)
    blocking = dice.random() < 0.5
    sock.setblocking(blocking)
    _call(sock, _address(family.number, family.nobody, DEAD))
    _shut(sock) if blocking else _end(sock)


def send_timeout(dice: Dice) -> None:
    """SO_SNDTIMEO: the call returns, and the socket goes on connecting until it is closed."""
    family = dice.choice(FAMILIES)
    sock = socket.socket(family.number)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 0, 60_000))
    _call(sock, _address(family.number, family.nobody, DEAD))
    _shut(sock)


def interrupted(dice: Dice) -> None:
    """A signal comes in the middle; the program may ask again (EALREADY), and closes it."""
    family = dice.choice(FAMILIES)
    me = threading.get_ident()
    timer = threading.Timer(0.05, signal.pthread_kill, (me, signal.SIGUSR1))
    sock = socket.socket(family.number)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 1, 0))
    timer.start()
    address = _address(family.number, family.nobody, DEAD)
    _call(sock, address)
    if dice.random() < 0.5:
        sock.setblocking(False)
        _call(sock, address)
    timer.join()
    _shut(sock)


def twice(dice: Dice) -> None:
    """connect(2) again on one that is connecting (EALREADY), or is connected (EISCONN)."""
    family = dice.choice(FAMILIES)
    there = dice.choice([(family.nobody, DEAD), (family.here, LIVE), (family.server, 80)])
    sock, _ = _begin(family, *there, False)
    if there[1] != DEAD:
        select.select([], [sock], [], 20)
    for _ in range(dice.randrange(1, 3)):
        _call(sock, _address(family.number, *there))
    _shut(sock)


def again(dice: Dice) -> None:
    """The same socket is used for another attempt after it was refused."""
    family = dice.choice(FAMILIES)
    sock, _ = _begin(family, family.here, CLOSED, True)
    _call(sock, _address(family.number, *dice.choice([(family.here, LIVE), (family.here, CLOSED)])))
    _shut(sock)


def again_after_error(dice: Dice) -> None:
    """The error was read; the next call says ECONNABORTED, and only the one after it connects."""
    family = dice.choice(FAMILIES)
    sock, _ = _begin(family, family.server, CLOSED, False)
    select.select([], [sock], [], 20)
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    time.sleep(dice.choice([0, 0.05]))
    _call(sock, _address(family.number, family.here, LIVE))
    if dice.random() < 0.5:
        _call(sock, _address(family.number, family.here, LIVE))
    _end(sock)


def dissolved(dice: Dice) -> None:
    """AF_UNSPEC takes an attempt back; the socket may be used for another one."""
    family = dice.choice(FAMILIES)
    sock, _ = _begin(family, family.nobody, DEAD, False)
    _call(sock, struct.pack("=H", socket.AF_UNSPEC) + bytes(14))
    if dice.random() < 0.5:
        _call(sock, _address(family.number, family.here, dice.choice([LIVE, CLOSED])))
        _end(sock)
    else:
        _shut(sock)


def bound(dice: Dice) -> None:
    """bind(2) before: an address, a port of the kernel's choice or none yet."""
    family = dice.choice((_V4, _V6))
    sock = socket.socket(family.number)
    if family is _V4 and dice.random() < 0.5:
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    near = dice.random() < 0.5
    sock.bind((family.here if near else family.own, 0))
    _call(sock, _address(family.number, family.here if near else family.server,
                         dice.choice([LIVE if near else 80, CLOSED])))  # fmt: skip
    _shut(sock)


def no_port(dice: Dice) -> None:
    """Bound to a port that has a connection to there already: EADDRNOTAVAIL."""
    family = dice.choice((_V4, _V6))
    first, second = socket.socket(family.number), socket.socket(family.number)
    for sock in (first, second):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind((family.here, 0))
    address = _address(family.number, family.here, LIVE)
    _call(first, address)
    with contextlib.suppress(OSError):
        second.bind(first.getsockname())
        _call(second, address)
    _shut(second)
    _shut(first)


def to_itself(dice: Dice) -> None:
    """A socket connects to its own port: SYN_SENT, SYN_RECV, ESTABLISHED."""
    family = dice.choice((_V4, _V6))
    sock = socket.socket(family.number)
    sock.bind((family.here, 0))
    _call(sock, _address(family.number, *sock.getsockname()[:2]))
    _shut(sock)


def fastopen(dice: Dice) -> None:
    """The SYN goes with the first data: by an option, or by the call that sends."""
    family = dice.choice((_V4, _V6))
    there = family.here, dice.choice([LIVE, CLOSED])
    sock = socket.socket(family.number)
    with contextlib.suppress(OSError):
        if dice.random() < 0.5:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
            _call(sock, _address(family.number, *there))
            sock.send(b"x")
        else:
            sock.sendto(b"x", _MSG_FASTOPEN, there)
    _end(sock)


def mptcp(dice: Dice) -> None:
    """Multipath TCP: one attempt for each subflow, here one."""
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, _IPPROTO_MPTCP)
    except OSError:
        return
    _call(sock, _address(socket.AF_INET, _V4.here, dice.choice([LIVE, CLOSED])))
    _shut(sock)


def child(dice: Dice) -> None:
    """A process that connects, and ends by itself or is killed in SYN_SENT."""
    family, killed = dice.choice(FAMILIES), dice.random() < 0.5
    where = (family.nobody, DEAD) if killed else (family.here, dice.choice([LIVE, CLOSED]))
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            _shut(_begin(family, *where, True)[0])
        os._exit(0)
    if killed:
        time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def others(dice: Dice) -> None:
    """What is no TCP attempt and must not show: UDP, unix, netlink."""
    way = dice.randrange(3)
    if way == 0:
        family = dice.choice(FAMILIES)
        sock = socket.socket(family.number, socket.SOCK_DGRAM)
        _call(sock, _address(family.number, family.here, LIVE))
    elif way == 1:
        sock = socket.socket(socket.AF_UNIX)
        _call(sock, struct.pack("=H", socket.AF_UNIX) + b"/nothing/is/here\0")
    else:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        _call(sock, struct.pack("=HHII", socket.AF_NETLINK, 0, 0, 0))
    sock.close()


def mistakes(dice: Dice) -> None:
    """Calls that are wrong in themselves: too short, not an address, not a socket, closed."""
    family = dice.choice(FAMILIES)
    address = _address(family.number, family.here, LIVE)
    sock = socket.socket(family.number)
    way = dice.randrange(4)
    if way == 0:
        _call(sock, address, 6)
    elif way == 1:
        _LIBC.connect(sock.fileno(), ctypes.c_void_p(8), 16)
    elif way == 2:
        read, write = os.pipe()
        _LIBC.connect(read, address, len(address))
        os.close(read)
        os.close(write)
    else:
        _LIBC.connect(987654, address, len(address))
    sock.close()


KINDS: dict[Callable[[Dice], None], int] = {
    answered: 40, unreachable: 12, given_up: 10, timed_out: 2, send_timeout: 3, interrupted: 3,
    twice: 5, again: 4, again_after_error: 3, dissolved: 4, bound: 6, no_port: 3, to_itself: 2,
    fastopen: 5, mptcp: 2, child: 2, others: 4, mistakes: 3,
}  # fmt: skip


def _follow(number: int, steps: int, seed: int) -> None:
    dice = random.Random(f"{seed}-{number}")
    for kind in dice.choices(list(KINDS), weights=list(KINDS.values()), k=steps):
        kind(dice)
        time.sleep(dice.uniform(0, 0.01))


def _take(server: socket.socket) -> None:
    # Closed late: data that nobody has read makes a reset, which SO_ERROR would tell.
    kept: deque[socket.socket] = deque()
    while True:
        with contextlib.suppress(OSError):
            kept.append(server.accept()[0])
        if len(kept) > 300:
            kept.popleft().close()


def main(attempts: int, threads: int, seed: int) -> None:
    """Make about so many attempts."""
    furnish()
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.siginterrupt(signal.SIGUSR1, True)
    server = socket.create_server(
        ("::", LIVE), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
    )
    threading.Thread(target=_take, args=(server,), daemon=True).start()
    errors: list[object] = []
    threading.excepthook = errors.append
    each = attempts // threads
    jobs = [threading.Thread(target=_follow, args=(n, each, seed)) for n in range(threads)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    time.sleep(0.2)
    assert not errors, errors


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
