"""A program on one of the lab's hosts: started as a child, ready inside, gone at the end."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

from porttrace.lab.errors import LabError
from porttrace.lab.hosts import Hosts
from porttrace.lab.throttles.child import die_with_parent

_READY = b"ready\n"


class Peer:
    """Context manager: the module runs on the server host, and has said that it is ready.

    `beside`: on the client's host instead.
    """

    def __init__(self, hosts: Hosts, module: str, *options: str, beside: bool = False) -> None:
        self._inside = hosts.in_client if beside else hosts.in_server
        self._command = [sys.executable, "-m", module, *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id of the running program."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Peer:
        self._process = process = subprocess.Popen(
            self._inside([*self._command, "--parent", str(os.getpid())]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        if process.stdout.readline() != _READY:
            self._stop()
            raise LabError(
                f"the lab's servers did not start (exit status {process.returncode})",
                "their own message stands above; are their ports free on the server host?",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def say_ready() -> None:
    """Tell the parent, in the served program, that clients may come."""
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()


def parse_and_bind(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the served program's options, and have it end with its parent, however that ends."""
    parser.add_argument("--parent", type=int, required=True, metavar="PID", help="die with it")
    options = parser.parse_args()
    die_with_parent(options.parent, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workload; the parent ends this
    return options
