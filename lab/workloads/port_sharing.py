"""Programs on one port: a group that shares it on purpose, and others that take it away.

    workers       two processes of one program and user listen on one port (SO_REUSEPORT)
    takeover      another user's program binds a UDP port that is in use (SO_REUSEADDR on both)
    listen-race   another user's program listens on a TCP port between bind and listen of a server

Each program is a process with a name and a user of its own, and does what the first process tells
it. The truth has every bind and listen with its errno, and who got what came in. All end by
themselves.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from porttrace.lab.throttles.child import die_with_parent
from porttrace.lab.workloads.truth import Report, call_thread, run_program

PORT = 5300
_SERVER_UID, _OTHER_UID = 60001, 60002  # users that no distribution gives to anybody
_SENT = 20
_STAY_S = 0.5  # programs that were turned away, and those in the way, do not vanish at once
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Program:
    """A process with a name and a user: a context manager, since it has to end, too."""

    def __init__(self, name: str, uid: int, report: Report) -> None:
        self.name = name
        self._uid = uid
        self._report = report
        self._ours, theirs = socket.socketpair()
        parent_pid = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            self._ours.close()
            _serve(name, uid, theirs, parent_pid)
        theirs.close()
        self._answers = self._ours.makefile("r")

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._ours.close()
        os.waitpid(self._pid, 0)

    def bind(
        self, protocol: str, *options: str, address: str = "0.0.0.0", port: int = PORT
    ) -> None:
        """Make a socket with these options set and bind it."""
        self._note("bind", self._ask("bind", protocol, address, port, *options), port)

    def listen(self) -> None:
        """Have its socket listen."""
        self._note("listen", self._ask("listen"), PORT)

    def connect(self, port: int = PORT) -> int:
        """Connect a new TCP socket to a port of this host, and return its own port."""
        return self._ask("connect", port)

    def accept(self) -> None:
        """Take a connection from its listening socket, which must have one, and close both."""
        self._ask("accept")

    def close(self) -> None:
        """Close the socket that it made last."""
        self._ask("close")

    def received(self) -> int:
        """Take what came in so far, and return how much it was."""
        return self._ask("received")

    def _ask(self, *words: str | int) -> int:
        self._ours.sendall(json.dumps(words).encode() + b"\n")
        return int(self._answers.readline())

    def _note(self, call: str, error: int, port: int) -> None:
        result = errno.errorcode[error] if error else "done"
        record = {"program": self.name, "pid": self._pid, "uid": self._uid, "call": call}
        words = f"{self.name} (user {self._uid}): {call} of port {port}: {result}"
        self._report.write("call", {**record, "errno": error}, words)


# The life of the process: one request a line, one number as the answer.
def _serve(name: str, uid: int, orders: socket.socket, parent_pid: int) -> None:
    status = 1
    try:
        call_thread(name)
        os.setuid(uid)
        die_with_parent(parent_pid, signal.SIGKILL)
        held: list[socket.socket] = []
        for line in orders.makefile("r"):
            what, *words = json.loads(line)
            orders.sendall(f"{_DOES[what](held, *words)}\n".encode())
        status = 0
    finally:
        os._exit(status)


def _bind(held: list[socket.socket], protocol: str, address: str, port: int, *options: str) -> int:
    sock = socket.socket(socket.AF_INET, _KINDS[protocol])
    sock.setblocking(False)
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
    held.append(sock)
    return _errno_of(lambda: sock.bind((address, port)))


def _listen(held: list[socket.socket]) -> int:
    return _errno_of(lambda: held[-1].listen(_SENT))


def _received(held: list[socket.socket]) -> int:
    sock, count = held[-1], 0
    is_stream = sock.type == socket.SOCK_STREAM
    while not _errno_of(lambda: sock.accept()[0].close() if is_stream else sock.recv(1)):
        count += 1
    return count


def _connect(held: list[socket.socket], port: int) -> int:
    held.append(socket.create_connection(("127.0.0.1", port)))
    own_port: int = held[-1].getsockname()[1]
    return own_port


# The end that closes first keeps the port, in TIME_WAIT once the other has closed as well.
def _accept(held: list[socket.socket]) -> int:
    server = held.pop()
    server.setblocking(True)
    server.accept()[0].close()
    server.close()
    return 0


def _close(held: list[socket.socket]) -> int:
    held.pop().close()
    return 0


def _errno_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


_DOES: dict[str, Callable[..., int]] = {
    "bind": _bind,
    "listen": _listen,
    "received": _received,
    "connect": _connect,
    "accept": _accept,
    "close": _close,
}


def workers(report: Report) -> None:
    """Have two workers share the port."""
    with (
        Program("worker", _SERVER_UID, report) as one,
        Program("worker", _SERVER_UID, report) as two,
    ):
        for each in (one, two):
            each.bind("tcp", "SO_REUSEPORT")
            each.listen()
        _send("tcp", (one, two), report)


@contextlib.contextmanager
def _rivals(report: Report) -> Iterator[tuple[Program, Program]]:
    with (
        Program("server", _SERVER_UID, report) as server,
        Program("newcomer", _OTHER_UID, report) as newcomer,
    ):
        yield server, newcomer


def takeover(report: Report) -> None:
    """Have a newcomer of another user take the datagrams of a server."""
    with _rivals(report) as (server, newcomer):
        server.bind("udp", "SO_REUSEADDR")
        _send("udp", (server,), report)
        newcomer.bind("udp", "SO_REUSEADDR")
        time.sleep(_STAY_S)
        _send("udp", (server, newcomer), report)


def listen_race(report: Report) -> None:
    """Have a newcomer of another user listen before the server does."""
    with _rivals(report) as (server, newcomer):
        server.bind("tcp", "SO_REUSEADDR")
        newcomer.bind("tcp", "SO_REUSEADDR")
        newcomer.listen()
        server.listen()
        time.sleep(_STAY_S)
        _send("tcp", (newcomer,), report)


def _send(protocol: str, programs: Sequence[Program], report: Report) -> None:
    clients = [socket.socket(socket.AF_INET, _KINDS[protocol]) for _ in range(_SENT)]
    for client in clients:
        client.connect(("127.0.0.1", PORT))
        client.send(b"x")
    for program in programs:
        count = program.received()
        words = f"{program.name} got {count} of {_SENT}"
        report.write("received", {"program": program.name, "count": count, "of": _SENT}, words)
    for client in clients:
        client.close()


MODES = {"workers": workers, "takeover": takeover, "listen-race": listen_race}


def main(argv: list[str] | None = None) -> int:
    """Run one of the programs and return the exit status."""
    return run_program("port_sharing", __doc__, MODES, argv)


if __name__ == "__main__":
    sys.exit(main())
