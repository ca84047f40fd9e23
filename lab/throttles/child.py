"""Starts the throttled command and looks after it: signals go on to it, its end becomes a status.

The command is killed when the supervisor dies, since nobody would answer its connects any more.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from porttrace.lab.errors import CommandNotRunError

_PR_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGINT, signal.SIGTERM)
_libc = ctypes.CDLL(None, use_errno=True)


class Stopped(Exception):
    """A signal asked the supervisor to end after its command had ended already."""


def die_with_parent(parent_pid: int, sig: int = signal.SIGKILL) -> None:
    """Have the kernel send `sig` to this process when its parent dies, even if it just did."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(sig))
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), sig)


def start(
    command: list[str],
    env: Mapping[str, str] | None = None,
    before_exec: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command`; `before_exec` runs in the child as its last step before exec."""
    parent_pid = os.getpid()

    def prepare() -> None:
        die_with_parent(parent_pid)
        if before_exec is not None:
            before_exec()

    try:
        return subprocess.Popen(command, env=env, preexec_fn=prepare)
    except OSError as error:
        raise CommandNotRunError(command[0], error) from error


@contextmanager
def signals_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Forward SIGINT and SIGTERM to `child`; once it has ended they raise Stopped instead."""

    def forward(number: int, _frame: FrameType | None) -> None:
        if child.returncode is not None:
            raise Stopped
        child.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; there the caller has them already
        return
    before = [signal.signal(number, forward) for number in _FORWARDED]
    try:
        yield
    finally:
        for number, handler in zip(_FORWARDED, before, strict=True):
            signal.signal(number, handler)


def exit_status(returncode: int) -> int:
    """Turn a Popen return code into the status that a shell shows: 128 + signal when killed."""
    return returncode if returncode >= 0 else 128 - returncode
