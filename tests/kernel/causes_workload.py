"""Workloads for the causes of late and failed connects; run inside the lab's client host.

logins SECONDS    an agent that tries a dead server again and again, beside quick connects
bursts SECONDS    connects in bursts, each thread one
families TIMES    IPv6 to a dead address first, then IPv4
storm SECONDS     one thread that connects and closes, again and again
"""

import random
import socket
import sys
import threading
import time
from collections.abc import Callable

SERVER, DEAD_V4, DEAD_V6 = "192.0.2.2", "192.0.2.66", "2001:db8::66"
PORTS = (80, 389, 5432)


def attempt(address: str, port: int, timeout_s: float) -> bool:
    """Connect, close, and tell whether it worked."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect((address, port))
        except OSError:
            return False
        return True


def together(*loops: Callable[[], object]) -> None:
    """Run each in a thread of its own, to the end."""
    threads = [threading.Thread(target=loop) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def logins(seconds: float) -> None:
    """Try a dead server again and again; meanwhile others connect."""
    until = time.monotonic() + seconds

    def agent() -> None:
        while time.monotonic() < until:
            attempt(DEAD_V4, 9100, 2)
            time.sleep(0.3 + 0.4 * random.random())

    def login(port: int) -> None:
        while time.monotonic() < until:
            attempt(SERVER, port, 5)
            time.sleep(random.expovariate(1 / 0.08))

    together(agent, *(lambda port=port: login(port) for port in PORTS[:2]))


def bursts(seconds: float) -> None:
    """Connect a few times at once, then rest."""
    until, threads = time.monotonic() + seconds, []
    while time.monotonic() < until:
        for _ in range(random.choice([1, 1, 2, 6])):
            to = (SERVER, random.choice(PORTS), 30)
            threads.append(threading.Thread(target=attempt, args=to))
            threads[-1].start()
            time.sleep(0.003)
        time.sleep(random.expovariate(1 / 0.7))
    for thread in threads:
        thread.join()


def families(times: float) -> None:
    """Turn to IPv4 when IPv6 has not answered for a third of a second."""
    for _ in range(int(times)):
        if not attempt(DEAD_V6, 80, 0.3):
            attempt(SERVER, 80, 5)
        time.sleep(0.2)


def storm(seconds: float) -> None:
    """Connect and close, about 150 times a second."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        attempt(SERVER, 80, 5)
        time.sleep(0.006)


if __name__ == "__main__":
    random.seed(1)
    {"logins": logins, "bursts": bursts, "families": families, "storm": storm}[sys.argv[1]](
        float(sys.argv[2])
    )
