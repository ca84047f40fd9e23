"""The throttle `gate`: a seccomp supervisor that lets `slots` TCP attempts of a scope go at once.

The command installs a filter on itself just before exec and hands the notify descriptor over; from
then on the kernel stops each connect(2) at the entry of the call until the gate answers "continue".
A slot is free again when that attempt is over: its thread has left the call and its socket has left
SYN_SENT. Everything that is no TCP connect, or that cannot be read, goes on at once.
The gate ends when the last process under the filter has ended, with the status of the first.
"""

from __future__ import annotations

import array
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Hashable
from types import ModuleType

from porttrace.lab.errors import LabError
from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles import child, notify, target
from porttrace.lab.throttles.slots import Flight, SlotBook
from porttrace.lab.throttles.synsent import SynSent
from porttrace.lab.throttles.target import Call

_SWEEP_WHILE_HELD_MS = 1
_SWEEP_OTHERWISE_MS = 100  # nobody waits for a slot: only forget what is over

_KEYS: dict[str, Callable[[Call], Hashable]] = {
    "thread": lambda call: call.notification.tid,
    "process": lambda call: call.pid,
    "user": lambda call: call.uid,
    "destination": lambda call: call.destination,
    "host": lambda call: 0,
}


class Gate:
    """Answers the notifications of one descriptor for as long as a process is under its filter."""

    def __init__(self, notify_fd: int, throttle: Throttle) -> None:
        self._fd = notify_fd
        self._unlimited = throttle.slots == 0
        self._key = _KEYS[throttle.scope]
        self._book = SlotBook(throttle.slots, self._let_go)
        self._syn_sent = SynSent()
        self._swept_ns = 0
        self._pause_ns = 0

    def serve(self, process: subprocess.Popen[bytes]) -> int:
        """Supervise until everything under the filter is gone; return the status of `process`."""
        pid_fd = os.pidfd_open(process.pid)
        try:
            with child.signals_to(process):
                self._serve_until_empty(process, pid_fd)
        except child.Stopped:
            pass
        finally:
            os.close(pid_fd)
            self._syn_sent.close()
        return child.exit_status(process.wait())

    def _serve_until_empty(self, process: subprocess.Popen[bytes], pid_fd: int) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(pid_fd, select.POLLIN)
        while True:
            ready = dict(poll.poll(self._sweep_every_ms()))
            if ready.get(self._fd, 0) & select.POLLIN:
                self._take_one()
            elif ready.get(self._fd):
                return  # POLLHUP: no process is under the filter any more
            if pid_fd in ready:
                # Older kernels drop the filter only when the process is reaped: so reap it here.
                process.wait()
                poll.unregister(pid_fd)
            self._sweep_when_due()

    def _take_one(self) -> None:
        notification = notify.receive(self._fd)
        if notification is None:
            return
        call = None if self._unlimited else target.read_call(notification)
        if call is None:
            self._book.thread_called(notification.tid)
            notify.let_go(self._fd, notification.id)
        else:
            self._book.ask(self._key(call), call)

    def _sweep_every_ms(self) -> int | None:
        if not self._book.busy():
            return None
        return _SWEEP_WHILE_HELD_MS if self._book.holding() else _SWEEP_OTHERWISE_MS

    def _sweep_when_due(self) -> None:
        every_ms = self._sweep_every_ms()
        now_ns = time.monotonic_ns()
        # With very many attempts in flight a sweep is slow: leave time for new notifications.
        if every_ms is None or now_ns - self._swept_ns < max(every_ms * 1_000_000, self._pause_ns):
            return
        self._sweep()
        self._swept_ns = time.monotonic_ns()
        self._pause_ns = (self._swept_ns - now_ns) // 2

    # The order matters: a socket enters SYN_SENT inside the call, so look at all calls first and
    # then at the sockets, of which one reading of the kernel's table serves all.
    def _sweep(self) -> None:
        for flight in self._book.flights():
            flight.returned = flight.returned or not target.still_calling(flight.call)
        self._syn_sent.start_round()
        self._book.sweep(self._over)

    def _over(self, flight: Flight) -> bool:
        call = flight.call
        return flight.returned and not self._syn_sent.has(call.pid, call.family, call.inode)

    def _let_go(self, call: Call) -> bool:
        return notify.let_go(self._fd, call.notification.id)


def run(throttle: Throttle, command: list[str]) -> int:
    """Run `command` under the gate and return its exit status."""
    seccomp = notify.load_library()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            process = child.start(command, before_exec=lambda: _hand_over(seccomp, theirs))
        except subprocess.SubprocessError as error:
            raise _refusal(ours) from error
        notify_fd = socket.recv_fds(ours, 1, 1)[1][0]
    try:
        return Gate(notify_fd, throttle).serve(process)
    finally:
        os.close(notify_fd)


# Runs in the child. connect(2) is filtered from the second line on, sendmsg(2) is not.
def _hand_over(seccomp: ModuleType, channel: socket.socket) -> None:
    try:
        notify_fd = notify.install_filter(seccomp)
    except Exception as error:
        channel.send(str(error).encode() or b"no reason given")
        raise
    channel.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [notify_fd]))])


# The reason travels over the channel, since Popen tells only that something failed before exec.
def _refusal(channel: socket.socket) -> LabError:
    channel.setblocking(False)
    reason = channel.recv(512).decode(errors="replace")
    return LabError(
        f"the kernel refused the gate's seccomp filter: {reason}",
        "a process can have one notifying filter only: run outside of other gates and containers",
    )
