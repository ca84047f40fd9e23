"""A known workload: every outcome a known number of times, over every kind of socket.

Run inside the lab's client host. Prints one JSON object a line for each attempt:
who made it, where to, and how it really ended.
"""

import errno
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path

TCP_USER_TIMEOUT = 18
KINDS = [  # (family, address of the server, of the blackhole)
    (socket.AF_INET, "192.0.2.2", "192.0.2.66"),
    (socket.AF_INET6, "2001:db8::2", "2001:db8::66"),
    (socket.AF_INET6, "::ffff:192.0.2.2", "::ffff:192.0.2.66"),
]
LIVE, REFUSED, DEAD = 80, 9, 9100


def say(
    outcome: str, pid: int, tid: int, address: str, port: int, blocking: bool, sport: int
) -> None:
    own = Path(f"/proc/self/task/{tid}/comm")
    comm = own.read_text().strip() if pid == os.getpid() else "killed"
    print(
        json.dumps({"outcome": outcome, "pid": pid, "tid": tid, "comm": comm, "daddr": address,
                    "dport": port, "blocking": blocking, "sport": sport}),
        flush=True,
    )  # fmt: skip


def one(family: int, address: str, port: int, blocking: bool, expected: str) -> None:
    with socket.socket(family) as sock:
        if expected == "timed_out":
            sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1200)
        sock.setblocking(blocking)
        code = sock.connect_ex((address, port))
        if code == errno.EINPROGRESS and expected != "cancelled":
            select.select([], [sock], [], 20)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        names = {0: "established", errno.ECONNREFUSED: "refused", errno.ETIMEDOUT: "timed_out",
                 errno.EINPROGRESS: "cancelled"}  # fmt: skip
        if code == errno.EINPROGRESS:
            time.sleep(0.05)
        assert names.get(code) == expected, (code, expected)
        sport = sock.getsockname()[1]
        say(expected, os.getpid(), threading.get_native_id(), address, port, blocking, sport)


def many(count: int, port: int, expected: str, blocking_too: bool = True) -> None:
    threads = []
    for index in range(count):
        family, server, hole = KINDS[index % 3]
        address = hole if port == DEAD else server
        blocking = blocking_too and index % 2 == 0
        job = threading.Thread(target=one, args=(family, address, port, blocking, expected))
        job.start()
        threads.append(job)
    for job in threads:
        job.join()


def killed(count: int) -> None:
    for index in range(count):
        family, _, hole = KINDS[index % 3]
        pid = os.fork()
        if not pid:
            Path("/proc/self/comm").write_text("killed")
            with socket.socket(family) as sock:
                sock.connect((hole, DEAD))
            os._exit(0)
        time.sleep(0.15)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        say("cancelled", pid, pid, hole, DEAD, True, 0)


def main() -> None:
    many(23, REFUSED, "refused")
    many(23, LIVE, "established")
    many(7, DEAD, "timed_out")
    many(5, DEAD, "cancelled", blocking_too=False)
    killed(5)


with open(sys.argv[1], "w") as sys.stdout:
    main()
