"""The book-keeping of a gate: per scope, the attempts in flight and those held, first come first.

No kernel in here: letting a call go and telling whether an attempt is over are functions given in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from porttrace.lab.throttles.target import Call


@dataclass
class Flight:
    """An attempt that has a slot; `returned` once its connect(2) is known to have returned."""

    call: Call
    returned: bool = False


@dataclass
class _Line:
    flights: list[Flight] = field(default_factory=list)
    held: deque[Call] = field(default_factory=deque)


class SlotBook:
    """Gives `slots` slots to each scope key; `let_go` answers a call, False if it is gone."""

    def __init__(self, slots: int, let_go: Callable[[Call], bool]) -> None:
        self._slots = slots
        self._let_go = let_go
        self._lines: dict[Hashable, _Line] = {}
        self._calling: dict[int, Flight] = {}

    def busy(self) -> bool:
        """Tell whether any attempt is in flight; nothing is ever held without one."""
        return bool(self._lines)

    def holding(self) -> bool:
        """Tell whether any call waits for a slot."""
        return any(line.held for line in self._lines.values())

    def flights(self) -> list[Flight]:
        """List the attempts in flight, of all scopes."""
        return [flight for line in self._lines.values() for flight in line.flights]

    def in_flight(self, key: Hashable) -> int:
        """Count the attempts of one scope that have a slot."""
        return len(self._lines[key].flights) if key in self._lines else 0

    def ask(self, key: Hashable, call: Call) -> None:
        """Let `call` go if its scope has a free slot, or put it at the end of the line."""
        self.thread_called(call.notification.tid)
        line = self._lines.setdefault(key, _Line())
        same = next((f for f in line.flights if f.call.inode == call.inode), None)
        if same is not None:
            self._call_again(same, call)
            return
        self._enqueue(line, call)
        self._serve(key, line)

    def thread_called(self, tid: int) -> None:
        """Note that a thread calls connect(2), so that its call before has returned."""
        earlier = self._calling.pop(tid, None)
        if earlier is not None:
            earlier.returned = True

    def sweep(self, over: Callable[[Flight], bool]) -> None:
        """Free the slots of all attempts that are `over` and let the next ones go."""
        for key, line in list(self._lines.items()):
            self._drop_finished(line, over)
            self._serve(key, line)

    # A second connect(2) on a socket in flight (after a signal, or to ask for the outcome of a
    # non-blocking one) is the same attempt: holding it would make the thread wait for itself.
    def _call_again(self, flight: Flight, call: Call) -> None:
        if self._let_go(call):
            flight.call = call
            flight.returned = False
            self._calling[call.notification.tid] = flight

    # A held thread that a signal interrupted asks again, by a new notification: it keeps its place.
    def _enqueue(self, line: _Line, call: Call) -> None:
        for place, earlier in enumerate(line.held):
            if earlier.notification.tid == call.notification.tid:
                line.held[place] = call
                return
        line.held.append(call)

    def _serve(self, key: Hashable, line: _Line) -> None:
        while line.held and len(line.flights) < self._slots:
            call = line.held.popleft()
            if self._let_go(call):
                flight = Flight(call)
                line.flights.append(flight)
                self._calling[call.notification.tid] = flight
        if not line.flights:
            self._lines.pop(key, None)

    def _drop_finished(self, line: _Line, over: Callable[[Flight], bool]) -> None:
        for flight in [f for f in line.flights if over(f)]:
            line.flights.remove(flight)
            tid = flight.call.notification.tid
            if self._calling.get(tid) is flight:
                del self._calling[tid]
