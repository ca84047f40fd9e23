"""What a workload knows about its own connects, and how it writes that down.

An `Attempt` has the true start and end on CLOCK_MONOTONIC, taken around the connect itself, so that
a trace can be checked against it. `Report` writes JSON lines to stdout, or to a file (`--truth`),
and then tells people on stdout what happened in plain words.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import errno
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from porttrace.lab.cgroups import own as own_cgroup
from porttrace.tracer.words import endpoint

_PR_SET_NAME = 15
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Destination:
    """Where to connect to."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read `192.0.2.2:80` or `[2001:db8::2]:80`; a ValueError is argparse's to show."""
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form ADDRESS:PORT")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return endpoint(self.host, self.port)

    @property
    def family(self) -> socket.AddressFamily:
        """Return the address family of the host, which is always a numeric address."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


@dataclass(frozen=True)
class Attempt:
    """One connect as the program saw it; `result` is `connected`, `timeout` or an errno's name.

    `sport` is the port that the kernel chose, 0 where it had chosen none.
    """

    thread: str
    tid: int
    destination: str
    start_ns: int
    end_ns: int
    result: str
    pid: int = field(default_factory=os.getpid)
    uid: int = field(default_factory=os.getuid)
    cgroup: str = field(default_factory=own_cgroup)
    sport: int = 0

    @property
    def seconds(self) -> float:
        """Return how long the program waited for this connect."""
        return (self.end_ns - self.start_ns) / 1e9


class Report:
    """Takes records from any thread; a context manager, since it may own the truth file."""

    def __init__(self, truth_path: str | None) -> None:
        self._owns_file = truth_path is not None
        self._file: IO[str] = sys.stdout
        if truth_path is not None:
            Path(truth_path).write_text("")
            # To append: children of a fork write to the same file, each line as a whole.
            self._file = Path(truth_path).open("a")  # noqa: SIM115 - closed in __exit__
        self._lock = threading.Lock()

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owns_file:
            self._file.close()

    def write(self, record_type: str, record: dict[str, Any], words: str) -> None:
        """Write one record; `words` tell people the same, where stdout is not the truth's."""
        line = json.dumps({"type": record_type, **record})
        with self._lock:
            self._file.write(f"{line}\n")  # in one piece: other processes write here, too
            self._file.flush()
            if self._owns_file:
                print(words, flush=True)

    def attempt(self, attempt: Attempt) -> None:
        """Write one attempt."""
        took = f"{attempt.thread}: connect to {attempt.destination} took {attempt.seconds:.2f} s"
        self.write("attempt", dataclasses.asdict(attempt), f"{took}: {attempt.result}")


def add_truth_option(parser: argparse.ArgumentParser) -> None:
    """Give a workload's parser the option `--truth`."""
    parser.add_argument(
        "--truth", metavar="FILE", help="write the JSON lines here and plain words to stdout"
    )


def run_program(
    prog: str,
    description: str | None,
    programs: Mapping[str, Callable[[Report], None]],
    argv: list[str] | None,
) -> int:
    """Run one of several programs, named by the first word, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mode", choices=sorted(programs))
    add_truth_option(parser)
    options = parser.parse_args(argv)
    with Report(options.truth) as report:
        programs[options.mode](report)
    return 0


def modes_parser(
    prog: str, description: str | None, modes: Iterable[str], threads: int
) -> argparse.ArgumentParser:
    """Return the parser of a workload that is one of several programs, by its first word."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mode", choices=sorted(modes))
    add_ends_options(parser, dead_time_s=2.0)
    parser.add_argument("--threads", type=int, default=threads, metavar="T")
    return parser


def add_ends_options(parser: argparse.ArgumentParser, dead_time_s: float) -> None:
    """Give a parser what workloads with a live and a dead peer share, and `--truth`."""
    for end in ("--live", "--dead"):
        parser.add_argument(end, type=Destination.parse, required=True, metavar="ADDRESS:PORT")
    parser.add_argument(
        "--dead-time",
        type=float,
        default=dead_time_s,
        metavar="S",
        help="timeout (with --blocking 1 s or more)",
    )
    parser.add_argument("--blocking", action="store_true", help="let the kernel end the attempts")
    add_truth_option(parser)


def connect(
    destination: Destination, timeout_s: float, blocking: bool = False
) -> tuple[Attempt, socket.socket | None]:
    """Connect once; return the truth about it, and the socket where it was connected.

    By default the program's own timer ends the attempt (a non-blocking socket and poll); with
    `blocking` the thread stays in connect(2) and the kernel ends it, by TCP_USER_TIMEOUT, at the
    earliest when it would send the SYN again: one second.
    """
    sock = socket.socket(destination.family, socket.SOCK_STREAM)
    if blocking:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(timeout_s * 1000))
    else:
        sock.settimeout(timeout_s)
    start_ns = time.monotonic_ns()
    result = _outcome(sock, destination)
    sport = sock.getsockname()[1]
    if result != "connected":
        sock.close()
    end_ns = time.monotonic_ns()
    attempt = _attempt(destination, start_ns, end_ns, result, sport)
    return attempt, (sock if result == "connected" else None)


def _outcome(sock: socket.socket, destination: Destination) -> str:
    try:
        sock.connect((destination.host, destination.port))
    except TimeoutError as error:
        return "timeout" if error.errno is None else "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "EIO")
    return "connected"


def start_connect(destination: Destination, timeout_s: float) -> Callable[[], Attempt]:
    """Start a non-blocking connect that the kernel ends after `timeout_s`.

    Call what is returned to wait for the outcome; `end_ns` is when the program learned of it. (A
    timer of the program could not end it: a throttle may hold the very thread that would.)
    """
    sock = socket.socket(destination.family, socket.SOCK_STREAM)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(timeout_s * 1000))
    sock.setblocking(False)
    start_ns = time.monotonic_ns()
    error = sock.connect_ex((destination.host, destination.port))
    sport = sock.getsockname()[1]

    def finish() -> Attempt:
        final = _wait_for_error(sock, timeout_s) if error == errno.EINPROGRESS else error
        sock.close()
        result = errno.errorcode.get(final, "EIO") if final else "connected"
        return _attempt(destination, start_ns, time.monotonic_ns(), result, sport)

    return finish


def _wait_for_error(sock: socket.socket, timeout_s: float) -> int:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    # The kernel's timer is coarse; twice its time and a second is past any doubt.
    if not poll.poll(2000 * timeout_s + 1000):
        return errno.EINPROGRESS
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _attempt(
    destination: Destination, start_ns: int, end_ns: int, result: str, sport: int
) -> Attempt:
    thread, tid = threading.current_thread().name, threading.get_native_id()
    return Attempt(thread, tid, str(destination), start_ns, end_ns, result, sport=sport)


def drop(sock: socket.socket | None) -> None:
    """Close a connection by a reset, which leaves no TIME_WAIT behind for the next thousands."""
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def call_thread(name: str) -> None:
    """Give the calling thread a name in the kernel; that of the main thread is the process's."""
    _libc.prctl(_PR_SET_NAME, os.fsencode(name)[:15], 0, 0, 0)


def spawn(name: str, body: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread that carries its name in the kernel too, where a tracer sees it."""

    def named() -> None:
        call_thread(name)
        body()

    thread = threading.Thread(target=named, name=name, daemon=True)
    thread.start()
    return thread


def run_all(threads: list[threading.Thread]) -> None:
    """Wait for threads that are each bounded by themselves."""
    for thread in threads:
        thread.join()
