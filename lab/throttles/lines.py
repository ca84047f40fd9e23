"""The book-keeping of a throttle of packets: who has a slot, and who stands in line for one.

No kernel in here: whether an attempt is over is a function given in, and so is the time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from porttrace.lab.throttles.nfqueue import Packet
from porttrace.lab.throttles.segment import Ends


@dataclass(eq=False)
class Attempt:
    """One attempt: `held` is its packet that waits in the queue, `going` that it has a slot."""

    ends: Ends
    cookie: bytes
    scope: Hashable
    going: bool = False
    held: Packet | None = None


class Limit(Protocol):
    """Says whether one more attempt of a scope may go now."""

    def free(self, scope: Hashable, going: int, now_ns: int) -> bool:
        """Tell whether an attempt may go while `going` others of its scope have a slot."""

    def take(self, scope: Hashable, now_ns: int) -> None:
        """Note that an attempt goes now."""


@dataclass(frozen=True)
class Slots:
    """So many attempts of a scope at once; 0: all."""

    count: int

    def free(self, scope: Hashable, going: int, now_ns: int) -> bool:
        """Tell whether a slot of the scope is free."""
        return self.count == 0 or going < self.count

    def take(self, scope: Hashable, now_ns: int) -> None:
        """Do nothing: the slots are counted by who goes."""


@dataclass(frozen=True)
class Pace:
    """One attempt of a scope every `every_ns`, whatever becomes of the others."""

    every_ns: int
    _next_ns: dict[Hashable, int] = field(default_factory=dict)

    def free(self, scope: Hashable, going: int, now_ns: int) -> bool:
        """Tell whether the scope's last attempt went long enough ago."""
        return now_ns >= self._next_ns.get(scope, now_ns)

    def take(self, scope: Hashable, now_ns: int) -> None:
        """Have the next attempt wait; a late reader does not shorten the pace."""
        self._next_ns[scope] = now_ns + self.every_ns


@dataclass
class _Line:
    going: list[Attempt] = field(default_factory=list)
    waiting: list[Attempt] = field(default_factory=list)


class Lines:
    """One line per scope; `over` tells whether an attempt has ended."""

    def __init__(self, limit: Limit, over: Callable[[Attempt], bool]) -> None:
        self._limit = limit
        self._over = over
        self._lines: dict[Hashable, _Line] = {}
        self._known: dict[bytes, Attempt] = {}

    def find(self, cookie: bytes) -> Attempt | None:
        """Return the attempt of a socket, where it goes or waits."""
        return self._known.get(cookie)

    def busy(self) -> bool:
        """Tell whether any attempt goes or waits."""
        return bool(self._known)

    def waiting(self) -> bool:
        """Tell whether any attempt waits."""
        return any(line.waiting for line in self._lines.values())

    def enter(self, attempt: Attempt, now_ns: int, wait: bool) -> None:
        """Give a new attempt a slot, or a place in the line; without `wait` it is forgotten."""
        line = self._lines.setdefault(attempt.scope, _Line())
        self._forget_ended(line)
        if not line.waiting and self._limit.free(attempt.scope, len(line.going), now_ns):
            self._go(line, attempt, now_ns)
        elif wait:
            line.waiting.append(attempt)
        else:
            return
        self._known[attempt.cookie] = attempt

    def sweep(self, now_ns: int) -> tuple[list[Attempt], list[Attempt]]:
        """Return those that may go from now on, and those that ended while they waited."""
        gone: list[Attempt] = []
        ended: list[Attempt] = []
        for scope, line in list(self._lines.items()):
            self._forget_ended(line)
            while line.waiting and self._limit.free(scope, len(line.going), now_ns):
                attempt = line.waiting.pop(0)
                if self._over(attempt):
                    del self._known[attempt.cookie]
                    ended.append(attempt)
                else:
                    self._go(line, attempt, now_ns)
                    gone.append(attempt)
            if not line.going and not line.waiting:
                del self._lines[scope]
        return gone, ended

    def _go(self, line: _Line, attempt: Attempt, now_ns: int) -> None:
        attempt.going = True
        line.going.append(attempt)
        self._limit.take(attempt.scope, now_ns)

    def _forget_ended(self, line: _Line) -> None:
        for attempt in [a for a in line.going if self._over(a)]:
            line.going.remove(attempt)
            del self._known[attempt.cookie]
