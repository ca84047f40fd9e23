"""The collision matrix: a first socket keeps a port, and a second one wants it.

Every cell is really made, by `bind_trials` in a process and a network namespace of its own, which
go together: nothing is left behind, whatever happens.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from porttrace.lab.errors import LabError
from porttrace.lab.hosts import require_root
from porttrace.tracer.words import bracketed

ONE_V4, OTHER_V4, ONE_V6 = "192.0.2.1", "192.0.2.2", "2001:db8::1"
# What becomes of the first socket before the second one's call, by protocol and call. "connected"
# is bound and then connected; "client" connects without bind, from a port that the kernel chose;
# "accepted" is the connection of a server that has closed its listening socket.
_STATES_OF = {
    ("tcp", "bind"): ("bound", "listening", "connected", "client", "accepted", "time_wait"),
    ("tcp", "listen"): ("bound", "listening", "connected", "time_wait"),
    ("udp", "bind"): ("bound", "connected", "client"),
}
_UIDS = (60001, 60002)  # users that no distribution gives to anybody
_TIMEOUT_S = 600.0  # some seconds here; an emulated machine takes minutes


@dataclass(frozen=True)
class Place:
    """Where a socket binds, and what it connects to from there or is connected to by."""

    address: str
    peer: str
    v6only: bool = False

    @property
    def name(self) -> str:
        """Return the address in words."""
        shown = bracketed(self.address)
        if self.address == "::" and self.peer.startswith("::ffff:"):
            return f"{shown} to IPv4"
        return f"{shown} V6ONLY" if self.v6only else shown

    @property
    def ipv6_proper(self) -> bool:
        """Tell whether it is an IPv6 address: the kernel then sets V6ONLY (inet6_bind)."""
        return ":" in self.address and self.address != "::" and "ffff:" not in self.address


PLACES = (
    Place("0.0.0.0", ONE_V4),
    Place(ONE_V4, ONE_V4),
    Place(OTHER_V4, ONE_V4),
    Place("::", ONE_V6),
    Place("::", ONE_V6, v6only=True),
    Place(ONE_V6, ONE_V6),
    Place("::ffff:0.0.0.0", f"::ffff:{ONE_V4}"),
    Place(f"::ffff:{ONE_V4}", f"::ffff:{ONE_V4}"),
)
# A dual-stack socket that connects over IPv4: another address is left of it than over IPv6.
DUAL_TO_V4 = Place("::", f"::ffff:{ONE_V4}")
ANY = ("0.0.0.0", "::")
_OPTIONS = tuple(
    (reuseaddr, reuseport) for reuseport in (False, True) for reuseaddr in (False, True)
)


@dataclass(frozen=True)
class Ask:
    """One of the two sockets: where it binds, the options it sets before, and who makes it."""

    place: Place
    reuseaddr: bool
    reuseport: bool
    uid: int


@dataclass(frozen=True)
class Cell:
    """A combination: the second socket's `call` (bind or listen) while the first is in `state`.

    For "listen" the second socket binds right after the first one, before that comes into its
    state.
    """

    protocol: str
    call: str
    state: str
    first: Ask
    second: Ask


@dataclass(frozen=True)
class Tried:
    """What came of a cell: the errno of the second socket's call, 0 for success.

    `errno` is None where the call was never reached, since the second socket could not even bind,
    or the first one, beside it, not come into its state (`first_errno`). `address` is the first
    socket's at that moment.
    """

    cell: Cell
    port: int
    errno: int | None
    address: str
    first_errno: int = 0


def cells() -> Iterator[Cell]:
    """Yield the whole matrix, in one order always."""
    for (protocol, call), states in _STATES_OF.items():
        for state, options, other_options, uid in product(states, _OPTIONS, _OPTIONS, _UIDS):
            for place, other_place in product(_first_places(state), PLACES):
                first = Ask(place, *options, _UIDS[0])
                yield Cell(protocol, call, state, first, Ask(other_place, *other_options, uid))


def _first_places(state: str) -> tuple[Place, ...]:
    if state == "client":  # does not bind: what counts is its family, and where it connects to
        return tuple(place for place in (*PLACES, DUAL_TO_V4) if place.address in ANY)
    return PLACES if state in ("bound", "listening") else (*PLACES, DUAL_TO_V4)


def try_all() -> list[Tried]:
    """Make every cell for real and return what came of each, in the order of `cells`.

    It takes some seconds. Raises LabError where this host cannot do it.
    """
    require_root()
    argv = [sys.executable, "-m", "porttrace.lab.bind_trials"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"the trials did not end within {_TIMEOUT_S:.0f} s",
            "try again when this host has less to do",
        ) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise LabError(
            f"the trials of binds failed: {said[-1]}",
            f"run {' '.join(argv)} by hand to see all of its output",
        )
    return [
        Tried(cell, *found) for cell, found in zip(cells(), json.loads(done.stdout), strict=True)
    ]
