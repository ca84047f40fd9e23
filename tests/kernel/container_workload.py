"""Runs as process 1 of a container in tests and makes process 7, which connects on loopback.

Reads a line at a time and answers each with one: `connect PORT` (errno), `fork PORT` (the same in
a child of 7), `stick` (a connect that stays in SYN_SENT). It listens on 8080 itself.
"""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

LISTENING, FULL = 8080, 8081


def connect(port: int) -> int:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port))


def fork(port: int) -> int:
    child = os.fork()
    if not child:
        os._exit(connect(port))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stick() -> int:
    # Where nobody accepts and the queue is full, the kernel leaves SYNs unanswered.
    full = socket.create_server(("127.0.0.1", FULL), backlog=0)
    kept = [socket.socket() for _ in range(8)]
    for client in kept:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", FULL))
    KEPT.extend([full, *kept])
    return errno.EINPROGRESS


KEPT: list[socket.socket] = []
WORK = {"connect": connect, "fork": fork}


def serve() -> None:
    server = socket.create_server(("127.0.0.1", LISTENING))
    print("ready", flush=True)
    for line in sys.stdin:
        word, *port = line.split()
        print(stick() if word == "stick" else WORK[word](int(port[0])), flush=True)
    server.close()


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/kernel/ns_last_pid").write_text("6")
    if os.fork() == 0:
        assert os.getpid() == 7
        serve()
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main()
