"""The tables of porttrace: what a row is, which columns it has, in which units.

Core tables are numpy structured arrays, so that ten million rows stay cheap; the
pandas views of `tables` are made from them. A mark of 0 means "not there".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from porttrace.tracer.facts import Holder, Host, Looked, NotLooked, Process, Sample, Suspect

__all__ = (
    "ATTEMPT",
    "BIND",
    "AcceptKey",
    "Accepted",
    "Answer",
    "Attempts",
    "BindCall",
    "BindOption",
    "Binds",
    "Columns",
    "Finding",
    "Holder",
    "Host",
    "Hypothesis",
    "Looked",
    "Loss",
    "NotLooked",
    "Origin",
    "Outcome",
    "Party",
    "Process",
    "Sample",
    "Suspect",
    "Table",
    "Trace",
    "no_attempts",
    "no_binds",
    "resent_us",
    "start_ns",
)


class Outcome(IntEnum):
    """How an attempt ended (design: `pending` = the trace ended first)."""

    pending = 0
    established = 1
    refused = 2
    timed_out = 3
    unreachable = 4
    denied = 5
    no_port = 6
    reset = 7
    cancelled = 8
    failed = 9
    unknown = 10


_OTHERS = (Outcome.pending, Outcome.established, Outcome.unknown)
FAILED = tuple(outcome for outcome in Outcome if outcome not in _OTHERS)
"""Over without a connection: what its program gave up is among them, what is unknown is not."""


class Origin(IntEnum):
    """How an attempt came to be: connect(2), or a way around it."""

    connect = 0
    fastopen = 1
    other = 2  # not connect(2), and the kernel's stack was not to be had
    seeded = 3  # was in SYN_SENT when the trace began
    io_uring = 4
    kernel = 5  # nobody in user space: a subflow of MPTCP, a network file system


class Answer(IntEnum):
    """What came back for a SYN, on the wire."""

    none = 0
    syn_ack = 1
    rst = 2
    icmp = 3


RESENT_KEPT = 10
"""Of so many SYNs that were sent again each time is kept: all that Linux sends by default."""

ATTEMPT = np.dtype(
    [
        ("attempt_id", "<u8"),  # 1, 2, ... in order of first mark
        ("pid", "<u4"),  # process (tgid) that called
        ("tid", "<u4"),  # thread that called; 0 when seeded
        ("uid", "<u4"),
        ("cgroup", "<u8"),  # cgroup v2 id of the caller
        ("fd", "<i4"),  # descriptor, -1 unknown
        ("family", "<u2"),  # AF_INET (also for IPv4 in an IPv6 socket) or AF_INET6
        ("sport", "<u2"),
        ("dport", "<u2"),
        ("saddr", "V16"),  # IPv4 mapped: ::ffff:a.b.c.d
        ("daddr", "V16"),
        ("comm", "S16"),  # name of the calling thread at the call
        ("origin", "u1"),  # Origin
        ("outcome", "u1"),  # Outcome
        ("blocking", "i1"),  # 1 yes, 0 no, -1 not known
        ("complete", "?"),  # False where lost events may have touched the row
        ("errno", "<i4"),  # positive errno, 0 none or not known
        ("retransmits", "<u2"),  # SYNs sent again
        ("resent", f"V{4 * RESENT_KEPT}"),  # ... and when each: `resent_us`
        # the wire probe's; 0 where it saw nothing or did not watch
        ("watched", "?"),  # it watched from before the SYN: what it did not see was not there
        ("wire_count", "<u2"),  # SYNs that left
        ("answer", "u1"),  # Answer: the first that came in
        ("answers", "u1"),  # how often it came
        ("icmp_type", "u1"),
        ("icmp_code", "u1"),
        ("drop_reason", "<u2"),  # why the kernel freed the first SYN; names in Host.drop_reasons
        ("wire_sport", "<u2"),  # ends of the SYN on the wire where they are not the socket's
        ("wire_dport", "<u2"),
        ("wire_saddr", "V16"),
        ("wire_daddr", "V16"),
        ("gate_stack", "<i4"),  # key of Trace.stacks, negative none
        ("connect_stack", "<i4"),
        ("kernel_in_flight", "<u4"),  # of the process, as the kernel counted it, itself included
        ("in_flight_at_start", "<u4"),  # of the process, rebuilt, itself included
        ("demand_at_start", "<u4"),  # of the process, at the first mark, itself included
        # marks, CLOCK_MONOTONIC, in their order
        ("sleep_ns", "<i8"),  # the caller fell asleep in user code and woke just before the call
        ("gate_ns", "<i8"),  # held between the syscall instruction and the kernel's connect
        ("call_ns", "<i8"),  # connect(2) entered; where there was none, the kernel's own
        ("kernel_ns", "<i8"),  # the kernel's own connect entered (modes fentry and kprobe)
        ("kernel_return_ns", "<i8"),  # ... and returned
        ("syn_ns", "<i8"),  # SYN_SENT entered
        ("wire_ns", "<i8"),  # the first SYN left
        ("wire_last_ns", "<i8"),  # the latest SYN left
        ("answer_ns", "<i8"),  # the answer came in
        ("end_ns", "<i8"),  # SYN_SENT left, or the call that failed before it returned
        ("return_ns", "<i8"),  # connect(2) returned for the last time
    ]
)
"""One attempt a row. `start_ns` below is the first of gate, call, syn."""

Attempts = npt.NDArray[np.void]
"""An array of `ATTEMPT` rows, sorted by first mark."""


class BindCall(IntEnum):
    """What asked for a local port."""

    bind = 0
    listen = 1
    autobind = 2  # connect(2) found none


class BindOption(IntFlag):
    """Options of a socket that decide with whom it may share a port."""

    reuseaddr = 1
    reuseport = 2
    v6only = 4
    freebind = 8
    late_port = 16  # IP_BIND_ADDRESS_NO_PORT: connect(2) chooses the port


BIND = np.dtype(
    [
        ("time_ns", "<i8"),  # when the call returned; with tid it names the row
        ("call_ns", "<i8"),  # when it was entered
        ("sock", "<u8"),  # of listen(2); 0 not known
        ("cgroup", "<u8"),
        ("pid", "<u4"),
        ("tid", "<u4"),
        ("uid", "<u4"),
        ("netns", "<u4"),  # network namespace of the caller as the kernel saw it; 0 not known
        ("backlog", "<u4"),  # of listen(2)
        ("fd", "<i4"),
        ("errno", "<i4"),  # positive errno, 0: it got what it wanted
        ("family", "<u2"),  # AF_INET or AF_INET6 as asked for; 0 not known
        ("port_asked", "<u2"),  # 0: any
        ("port_got", "<u2"),  # 0: none, or not known; EINVAL: the one it had
        ("dport", "<u2"),  # of autobind: where to
        ("call", "u1"),  # BindCall
        ("protocol", "u1"),  # IPPROTO_TCP, IPPROTO_UDP, 0 not known
        ("options", "u1"),  # BindOption, or-ed, as they stood at the call
        ("options_known", "u1"),  # BindOption: of those that are not here nothing is known
        ("addr", "V16"),  # as asked for, IPv4 mapped
        ("daddr", "V16"),  # of autobind: where to
        ("comm", "S16"),
    ]
)
"""One call of bind(2) or listen(2) a row, or a connect(2) that found no local port."""

Binds = npt.NDArray[np.void]
"""An array of `BIND` rows, in order of time."""


def no_binds() -> Binds:
    """Return an array of no binds."""
    return np.empty(0, BIND)


class Columns:
    """Attempts by column, each in one piece: read ten times as fast as across rows of 290 bytes.

    Made of rows, of which a column is copied when it is first asked for, or of columns alone
    (`packed`): what is zero in all rows then takes no memory. Nobody may change a column. Rows are
    to be had for numbers, slices, masks and positions, as of an array of `ATTEMPT`.
    """

    def __init__(self, rows: Attempts) -> None:
        self._rows: Attempts | None = rows
        self._length = len(rows)
        self._known: dict[str, npt.NDArray[Any]] = {}
        self._zero: set[str] = set()
        # Keys of the rows by scope, and what they were made of besides: of `scope_keys` alone.
        self.keys: dict[str, tuple[object, npt.NDArray[np.int64]]] = {}

    @classmethod
    def packed(cls, length: int, known: Mapping[str, npt.NDArray[Any]]) -> "Columns":
        """Return `length` attempts of columns, in the types of `ATTEMPT`; others are zero."""
        made = cls(no_attempts())
        made._rows, made._length = None, length
        for name, values in known.items():
            made._keep(name, values)
        return made

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, what: str) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, what: int | np.integer[Any]) -> np.void: ...
    @overload
    def __getitem__(self, what: slice | npt.NDArray[Any] | list[int]) -> Attempts: ...
    def __getitem__(self, what: Any) -> Any:
        if not isinstance(what, str):
            return self._some(what)
        if what not in self._known:
            if self._rows is None:
                nothing = np.zeros((), ATTEMPT[what])
                self._keep(what, np.broadcast_to(nothing, (self._length,)))
                self._zero.add(what)
            else:
                self._keep(what, self._rows[what].copy())
        return self._known[what]

    def there(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns that are not zero in all rows, or not known to be."""
        names = (ATTEMPT.names or ()) if self._rows is not None else tuple(self._known)
        return {name: self[name] for name in names if name not in self._zero}

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Attempts:
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype)

    def _keep(self, name: str, values: npt.NDArray[Any]) -> None:
        self._known[name] = values.view()
        self._known[name].flags.writeable = False

    def _some(self, which: Any) -> Any:
        if self._rows is not None:
            return self._rows[which]
        if isinstance(which, int | np.integer):
            return self._some(np.array([which]))[0]
        if isinstance(which, list):
            which = np.array(which, np.intp)
        if not isinstance(which, slice) and which.dtype == np.bool_:
            which = np.flatnonzero(which)
        number = len(range(*which.indices(self._length)) if isinstance(which, slice) else which)
        rows = np.zeros(number, ATTEMPT)
        for name, values in self.there().items():
            rows[name] = values[which]
        return rows


Table = Attempts | Columns
"""Attempts, of which whole columns are asked for."""


@dataclass(frozen=True)
class Loss:
    """Events that never arrived: how many, between which times, on which CPU."""

    first_ns: int
    last_ns: int
    cpu: int
    count: int


@dataclass(frozen=True)
class Accepted:
    """What one process took by accept(2) from one port; times are those in the accept queue."""

    pid: int
    port: int
    number: int = 0
    slow: int = 0  # of these, those that waited for 100 ms or more
    total_ns: int = 0
    longest_ns: int = 0


AcceptKey = tuple[int, int]
"""Process and port."""


@dataclass(frozen=True)
class Trace:
    """Everything analysis may look at.

    `stacks` maps a stack id to kernel function names, innermost first.
    `suspects` are facts about what could interpose, gathered by the caller, by pid.
    """

    attempts: Table
    start_ns: int
    end_ns: int
    processes: Mapping[int, Process] = field(default_factory=dict)
    stacks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    losses: tuple[Loss, ...] = ()
    host: Host = field(default_factory=Host)
    suspects: Mapping[int, tuple[Suspect, ...]] = field(default_factory=dict)
    not_looked: tuple[NotLooked, ...] = ()  # what no census could read
    filter: str = ""
    wall_offset_ns: int = 0  # wall clock = mark + offset
    gates_seen: bool = True  # False when the scheduler was not watched: no gate, no sleep marks
    events: int = 0  # records that arrived
    notes: tuple[str, ...] = ()  # what else limits trust, in plain sentences
    exits: Mapping[int, int] = field(default_factory=dict)  # pid to time of its last EXIT, ns
    watches: Mapping[int, int] = field(default_factory=dict)  # netns to when its wire was seen, ns
    binds: Binds = field(default_factory=no_binds)
    looked: Mapping[tuple[int, int], Looked] = field(default_factory=dict)  # by (time_ns, tid)
    accepted: Mapping[AcceptKey, Accepted] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()  # of each network namespace, in order of time, each whole

    @cached_property
    def columns(self) -> Columns:
        """The attempts by column: for whoever looks at all of them."""
        return self.attempts if isinstance(self.attempts, Columns) else Columns(self.attempts)

    @property
    def rows(self) -> Attempts:
        """The attempts by row: for whoever takes them one by one; of columns they are made anew."""
        return np.asarray(self.attempts)


@dataclass(frozen=True)
class Party:
    """One attempt as a finding names it."""

    attempt_id: int
    pid: int
    tid: int
    comm: str
    destination: str  # address:port
    outcome: str
    wait_s: float  # victim: time held; blocker: time in service while others were held
    start_ns: int
    container: str = ""  # these three as those of Process
    container_name: str = ""
    ns_pid: int = 0


@dataclass(frozen=True)
class Hypothesis:
    """Another explanation that was tested: `verdict` is refuted, open or supported."""

    name: str
    verdict: str
    why: str


SEVERITIES = ("critical", "warning", "info")
"""Of findings, the worst first."""


@dataclass(frozen=True)
class Finding:
    """One diagnosed fact. confidence < 0.5 is not shown, 0.5-0.8 "likely", above "firm"."""

    rule: str
    severity: str  # critical, warning, info
    confidence: float
    subject: Mapping[str, object]
    summary: str
    scope: str = ""
    slots: int = 0
    place: str = ""
    mechanism: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)
    hypotheses: tuple[Hypothesis, ...] = ()
    victims: tuple[Party, ...] = ()
    blockers: tuple[Party, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    advice: tuple[str, ...] = ()

    def gravity(self) -> tuple[int, float]:
        """Return by what findings are sorted: the most severe and then the surest first."""
        return SEVERITIES.index(self.severity), -self.confidence

    def pids(self) -> list[int]:
        """Return the processes that it is about, [] where it names none."""
        pids = self.subject.get("pids", ())
        return [int(pid) for pid in pids] if isinstance(pids, list | tuple) else []


def no_attempts() -> Attempts:
    """Return an array of no attempts."""
    return np.empty(0, ATTEMPT)


def resent_us(attempts: Table) -> npt.NDArray[np.uint32]:
    """Return when each SYN was sent again, us since syn_ns; 0: no more. Shape (n, RESENT_KEPT)."""
    raw = np.ascontiguousarray(attempts["resent"])
    return raw.view("<u4").reshape(-1, RESENT_KEPT)


def start_ns(attempts: Table) -> npt.NDArray[np.int64]:
    """Return each attempt's first mark: gate, call or syn. Shape of `attempts`, ns.

    The largest number there is where an attempt has none of them.
    """
    gate, call, syn = (attempts[mark] for mark in ("gate_ns", "call_ns", "syn_ns"))
    first = np.where(gate != 0, gate, np.where(call != 0, call, syn))
    return np.where(first != 0, first, np.iinfo(np.int64).max)
