"""The program behind the packet queue: it looks at each SYN, and lets `slots` attempts go at once.

A slot is free again when its attempt's socket has left SYN_SENT, however that happened: answered,
refused, given up. Packets that belong to no socket here, and all that are no SYN, go on at once.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from porttrace.lab.throttles import child, segment
from porttrace.lab.throttles.lines import Attempt, Limit, Lines
from porttrace.lab.throttles.nfqueue import Packet, PacketQueue
from porttrace.lab.throttles.scopes import Key
from porttrace.lab.throttles.segment import Segment
from porttrace.lab.throttles.sockdiag import SockDiag
from porttrace.tracer.diag import SYN_SENT

_SWEEP_WHILE_HELD_MS = 1
_SWEEP_OTHERWISE_MS = 100  # nobody waits for a slot: only forget what is over


class Beyond(Enum):
    """What becomes of an attempt that finds no slot free."""

    HOLD_SYN = "its SYN waits in the queue"
    HOLD_ANSWER = "its SYN goes on, and the SYN-ACK waits in the queue"
    MARK = "its SYN goes on with a mark, for a rule behind the queue that drops or rejects it"


@dataclass(frozen=True)
class Plan:
    """How a reader decides: its limit, what becomes of the rest, and the mark for that."""

    limit: Limit
    beyond: Beyond
    mark: int = 0
    watch_only: bool = False


class Reader:
    """Serves one queue until the command has ended."""

    def __init__(self, queue: PacketQueue, diag: SockDiag, plan: Plan) -> None:
        self._queue = queue
        self._diag = diag
        self._plan = plan
        self._key: Key = lambda ends, owner: 0
        self._lines = Lines(plan.limit, self._over)

    def serve(self, process: subprocess.Popen[bytes], key: Key) -> int:
        """Decide about packets until `process` has ended; return its exit status."""
        self._key = key
        pid_fd = os.pidfd_open(process.pid)
        try:
            with child.signals_to(process):
                self._serve_until_over(pid_fd)
        except child.Stopped:
            pass
        finally:
            os.close(pid_fd)
        return child.exit_status(process.wait())

    def _serve_until_over(self, pid_fd: int) -> None:
        poll = select.poll()
        poll.register(self._queue, select.POLLIN)
        poll.register(pid_fd, select.POLLIN)
        while True:
            ready = dict(poll.poll(self._sweep_every_ms()))
            if self._queue.fileno() in ready:
                for packet in self._queue.receive():
                    self._take(packet)
            if pid_fd in ready:
                return
            self._sweep()

    def _sweep_every_ms(self) -> int | None:
        if not self._lines.busy():
            return None
        return _SWEEP_WHILE_HELD_MS if self._lines.waiting() else _SWEEP_OTHERWISE_MS

    def _take(self, packet: Packet) -> None:
        seen = None if self._plan.watch_only else segment.parse(packet.data)
        attempt = self._attempt_of(seen) if seen else None
        if seen is None or attempt is None or attempt.going:
            self._queue.accept(packet)
        elif self._plan.beyond is Beyond.MARK:
            self._queue.accept(packet, self._plan.mark)
        elif seen.answer is (self._plan.beyond is Beyond.HOLD_ANSWER):
            self._hold(attempt, packet)
        else:
            self._queue.accept(packet)

    # A packet sent again would be let go twice, and the first is as good: so only one is kept.
    def _hold(self, attempt: Attempt, packet: Packet) -> None:
        if attempt.held is None:
            attempt.held = packet
        else:
            self._queue.drop(packet)

    def _attempt_of(self, seen: Segment) -> Attempt | None:
        owner = self._diag.find(seen.ends)
        if owner is None or owner.state != SYN_SENT:
            return None
        attempt = self._lines.find(owner.cookie)
        if attempt is None:
            attempt = Attempt(seen.ends, owner.cookie, self._key(seen.ends, owner))
            wait = self._plan.beyond is not Beyond.MARK
            self._lines.enter(attempt, time.monotonic_ns(), wait)
        return attempt

    def _sweep(self) -> None:
        gone, ended = self._lines.sweep(time.monotonic_ns())
        for decide, attempts in ((self._queue.accept, gone), (self._queue.drop, ended)):
            _settle(decide, attempts)

    def _over(self, attempt: Attempt) -> bool:
        return not self._diag.connecting(attempt.ends, attempt.cookie)


def _settle(decide: Callable[[Packet], None], attempts: list[Attempt]) -> None:
    for attempt in attempts:
        if attempt.held is not None:
            decide(attempt.held)
            attempt.held = None
