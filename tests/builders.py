"""Stories of connection attempts, told in the words of the domain, as arrays of events.

    story = events().connect(pid=7, to="192.0.2.2:80", at=1_000).syn_sent().refused(after_ns=500)
    rows, _ = step(story.array(), Open(), NEVER)

Every record is filled as the kernel's handlers fill it (bpf/connect.h, bpf/state.h): a
RETURN has no local address and no port, an END has both, and so on. Each attempt has a
clock of its own: `after_ns` counts from its latest event. Times are nanoseconds.
"""

import errno
import ipaddress
from collections import Counter
from typing import Any

import numpy as np

from porttrace.tracer.event import EVENT, Events, EventType, Flag

MS = 1_000_000
S = 1_000_000_000
NEVER = 2**62
"""A watermark that finishes everything that has an end."""

ESTABLISHED, CLOSE = 1, 7
ERESTARTSYS = 512
_AF_INET, _AF_INET6 = 2, 10
_MAPPED = bytes(10) + b"\xff\xff"
_OUR_V4, _OUR_V6 = "192.0.2.1", "2001:db8::1"
_FIRST_SOCK = 0xFFFF888000000000


def packed(address: str) -> bytes:
    """Return an address as 16 bytes, IPv4 mapped."""
    ip = ipaddress.ip_address(address)
    return ip.packed if ip.version == 6 else _MAPPED + ip.packed


def endpoint(text: str) -> tuple[bytes, int]:
    """Return `192.0.2.2:80` or `[2001:db8::2]:80` as 16 bytes and a port."""
    address, _, port = text.rpartition(":")
    return packed(address.strip("[]")), int(port)


def events() -> "Story":
    """Begin a story in which nothing has happened yet."""
    return Story()


class Story:
    """Collects the events of any number of attempts; `array` gives them in order of time."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._socks = 0

    def connect(
        self,
        *,
        pid: int = 7,
        tid: int = 0,
        to: str = "192.0.2.2:80",
        at: int = 1_000,
        held_ns: int = 0,
        slept_ns: int = 0,
        sock: int = 0,
        uid: int = 1000,
        cgroup: int = 77,
        comm: bytes = b"client",
        fd: int = 3,
        family: int = 0,
    ) -> "Attempt":
        """Call connect(2) at `at`, after a hold of `held_ns` at the gate or a sleep before.

        `family` is that of the socket; without it, that of the address.
        """
        daddr, dport = endpoint(to)
        caller = {"pid": pid, "tid": tid or pid, "uid": uid, "cgroup": cgroup, "comm": comm}
        call = {
            "call_ns": at,
            "gate_ns": at - held_ns if held_ns else 0,
            "sleep_ns": at - slept_ns if slept_ns else 0,
            "gate_stack": 5 if held_ns else -1,
            "connect_stack": -1,
            "fd": fd,
            "daddr": daddr,
            "dport": dport,
            "family": family or (_AF_INET if daddr[:12] == _MAPPED else _AF_INET6),
        }
        return Attempt(self, caller, call, sock or self._next_sock(), at)

    def without_call(self, *, at: int = 1_000, **how: Any) -> "Attempt":
        """Begin an attempt that no connect(2) asked for (io_uring, MSG_FASTOPEN)."""
        attempt = self.connect(at=at, **how)
        attempt.call.update(call_ns=0, fd=-1)
        attempt.inside = False
        return attempt

    def seed(self, *, sport: int, at: int = 1_000, **how: Any) -> "Attempt":
        """Find a socket in SYN_SENT as tracing begins: its sock is never known."""
        attempt = self.without_call(at=at, **how)
        attempt.caller.update(tid=0, cgroup=0)
        attempt.sport, attempt.sock, attempt.start_ns = sport, 0, at
        attempt.emit(EventType.SEED, sport=sport, **attempt.owner())
        return attempt

    def loss(self, first_ns: int, last_ns: int, count: int = 1, cpu: int = 0) -> "Story":
        """Lose `count` events between two times."""
        self.add(EventType.LOSS, last_ns, start_ns=first_ns, in_flight=count, cpu=cpu)
        return self

    def add(self, kind: int, time_ns: int, **fields: Any) -> None:
        """Add one record as it is given."""
        self._records.append({"type": int(kind), "time_ns": time_ns, **fields})

    def array(self) -> Events:
        """Return all events sorted by time, with the process's count in flight filled in."""
        table = np.zeros(len(self._records), EVENT)
        for row, record in zip(table, self._records, strict=True):
            for name, value in record.items():
                row[name] = value
        table = table[np.argsort(table["time_ns"], kind="stable")]
        self._count_in_flight(table)
        return table

    def _count_in_flight(self, table: Events) -> None:
        flying: Counter[int] = Counter()
        for row in table:
            pid, tracked = int(row["pid"]), not row["flags"] & Flag.UNTRACKED
            if row["type"] == EventType.START and tracked:
                flying[pid] += 1
                row["in_flight"] = flying[pid]
            elif row["type"] == EventType.END and row["sock"]:
                flying[pid] = max(0, flying[pid] - 1)
                row["in_flight"] = flying[pid]

    def _next_sock(self) -> int:
        self._socks += 1
        return _FIRST_SOCK + 0x1000 * self._socks


class Attempt:
    """One attempt; every method adds what happens next and returns the attempt."""

    def __init__(
        self, story: Story, caller: dict[str, Any], call: dict[str, Any], sock: int, at: int
    ) -> None:
        self.story, self.caller, self.call, self.sock = story, caller, call, sock
        self.now = at
        self.start_ns = 0
        self.sport = 40_000 + (sock >> 12) % 20_000
        self.inside = True  # the caller is in connect(2)
        self.flags = 0
        self._owner: dict[str, Any] = {}

    # -- on the way ----------------------------------------------------------

    def syn_sent(self, after_ns: int = 9_000, untracked: bool = False) -> "Attempt":
        """Enter SYN_SENT."""
        self.now += after_ns
        self.start_ns = self.now
        flags = (Flag.IN_CONNECT if self.inside else 0) | (Flag.UNTRACKED if untracked else 0)
        self.emit(EventType.START, flags=flags, **self.owner())
        return self

    def retransmit(self, after_ns: int = S) -> "Attempt":
        """Send the SYN again."""
        self.now += after_ns
        self.emit(EventType.RETRANSMIT, sport=self.sport, **self.owner())
        return self

    def returned(self, result: int, after_ns: int = 5_000, slept: bool = False) -> "Attempt":
        """Return `result` from connect(2)."""
        self.now += after_ns
        flags = Flag.STREAM | self.flags | (Flag.SLEPT if slept else 0)
        self.emit(
            EventType.RETURN,
            sock=self.sock if self.start_ns else 0,
            start_ns=self.start_ns,
            error=result,
            flags=flags,
            **self.caller,
            **self.call,
        )
        self.inside = False
        return self

    def in_progress(self, after_ns: int = 5_000) -> "Attempt":
        """Return EINPROGRESS at once: the socket does not block."""
        return self.returned(-errno.EINPROGRESS, after_ns)

    def interrupted(self, after_ns: int = 50 * MS, code: int = errno.EINTR) -> "Attempt":
        """Return from a blocking call because a signal came; the attempt goes on."""
        return self.returned(-code, after_ns, slept=True)

    def deferred(self, after_ns: int = 5_000) -> "Attempt":
        """Return 0 before anything was sent (TCP_FASTOPEN_CONNECT)."""
        return self.returned(0, after_ns)

    def call_again(self, after_ns: int = MS, held_ns: int = 0, tid: int = 0) -> "Attempt":
        """Call connect(2) on the socket that is connecting already."""
        self.now += after_ns
        self.flags, self.inside = Flag.AGAIN, True
        self.call = {
            **self.call,
            "call_ns": self.now,
            "gate_ns": self.now - held_ns if held_ns else 0,
            "sleep_ns": 0,
        }
        if tid:
            self.caller = {**self.caller, "tid": tid}
        return self

    # -- ends ----------------------------------------------------------------

    def established(self, after_ns: int = 20 * MS, return_ns: int = 30_000) -> "Attempt":
        """Be answered; a caller inside connect(2) returns 0 `return_ns` later."""
        return self.ended(ESTABLISHED, 0, after_ns, return_ns)

    def refused(self, after_ns: int = 20 * MS, **how: Any) -> "Attempt":
        """Be answered by a reset."""
        return self.ended(CLOSE, errno.ECONNREFUSED, after_ns, **how)

    def timed_out(self, after_ns: int = 127 * S, **how: Any) -> "Attempt":
        """Give up after the last retransmission."""
        return self.ended(CLOSE, errno.ETIMEDOUT, after_ns, **how)

    def failed(self, code: int, after_ns: int = 20 * MS, **how: Any) -> "Attempt":
        """End in SYN_SENT with an errno."""
        return self.ended(CLOSE, code, after_ns, **how)

    def cancelled(self, after_ns: int = 20 * MS, return_ns: int = 30_000) -> "Attempt":
        """Be closed by the application, or die with it: nobody is told an error."""
        self.end(CLOSE, after_ns, in_connect=False)
        if self.inside:
            self.returned(-ERESTARTSYS, return_ns, slept=True)
        return self

    def fails_early(self, code: int, after_ns: int = 4_000) -> "Attempt":
        """Return an errno before any state change: no route, or denied."""
        return self.returned(-code, after_ns)

    def answered_at_gate(self, result: int, after_ns: int = 4_000) -> "Attempt":
        """Return without ever entering connect(2): a supervisor answered."""
        self.call = {**self.call, "call_ns": 0, "sleep_ns": 0}
        self.flags = Flag.AT_GATE
        self.now += after_ns
        self.emit(EventType.RETURN, error=result, flags=self.flags, **self.caller, **self.call)
        self.inside = False
        return self

    def ended(
        self, state: int, code: int, after_ns: int, return_ns: int = 30_000, told: str = "after"
    ) -> "Attempt":
        """Leave SYN_SENT; the errno comes `after` END, `with` it, or `never`.

        `taken`: what comes after END has no number, since the program took it first.
        """
        inside = self.inside
        self.end(state, after_ns, error=code if told == "with" else 0)
        if code and told in ("after", "taken"):
            self.now += 1_000
            number = code if told == "after" else 0
            self.emit(EventType.ERROR, error=number, sport=self.sport, **self.owner())
        if inside:
            self.returned(-code, return_ns, slept=True)
        return self

    def asked(self, code: int, after_ns: int = 10_000) -> "Attempt":
        """Get the errno by getsockopt(SO_ERROR), which takes it off the socket."""
        self.now += after_ns
        self.emit(
            EventType.ERROR, error=code, sock=self.sock, start_ns=self.start_ns, **self.caller
        )
        return self

    def end(
        self, state: int, after_ns: int = 0, error: int = 0, in_connect: bool = False
    ) -> "Attempt":
        """Leave SYN_SENT, and nothing else."""
        self.now += after_ns
        flags = Flag.IN_CONNECT if in_connect else 0
        self.emit(
            EventType.END,
            newstate=state,
            error=error,
            flags=flags,
            sport=self.sport,
            **self.owner(),
        )
        return self

    # -- the story -----------------------------------------------------------

    def connect(self, **how: Any) -> "Attempt":
        """Begin another attempt of the same story."""
        return self.story.connect(**how)

    def array(self) -> Events:
        """Return all events of the story."""
        return self.story.array()

    def owner(self) -> dict[str, Any]:
        """Return what an event of the socket says of its owner: the first call's marks."""
        if not self._owner:
            self._owner = {
                **self.caller,
                **self.call,
                "sock": self.sock,
                "start_ns": self.start_ns,
                "saddr": packed(
                    "192.0.2.1" if self.call["daddr"][:12] == _MAPPED else "2001:db8::1"
                ),
            }
        return self._owner

    def emit(self, kind: int, **fields: Any) -> None:
        """Add a record at the attempt's own time."""
        self.story.add(kind, self.now, **fields)
