"""One bind(2) or listen(2) that failed, with all that a trace knows of it and of the holder."""

import errno
import shlex
from dataclasses import dataclass, replace

import numpy as np

from porttrace.analysis import bind_names, names
from porttrace.analysis.bind_names import UDP
from porttrace.analysis.model import BindCall, BindOption, Holder, Looked, Trace
from porttrace.tracer.facts import INHERITED

_NEVER = 1 << 62
# How traces of before say that a namespace was taken for the call's without being known to be it.
_GUESSED = ("own", "cgroup")


@dataclass(frozen=True)
class Reason:
    """Why a call failed. `kind` is a holder's kind, or what else stood in the way."""

    kind: str
    why: str  # sentences
    advice: tuple[str, ...] = ()
    holder: Holder | None = None  # the one that `why` is about
    sure: float = 0.9


@dataclass(frozen=True)
class Failed:
    """One call that failed, with all that is known of it."""

    row: np.void
    holders: tuple[Holder, ...]
    looked: Looked | None
    uid: int
    exe: str = ""
    cmdline: str = ""
    container: str = ""  # of the caller, "" none
    ended: frozenset[int] = frozenset()  # processes that are gone by the end of the trace

    @property
    def protocol(self) -> str:
        """Either tcp or udp."""
        return "udp" if self.row["protocol"] == UDP else "tcp"

    @property
    def port(self) -> int:
        """The port that was asked for, 0: any."""
        return int(self.row["port_asked"])

    @property
    def address(self) -> str:
        """The address that was asked for."""
        return bind_names.address(self.row)

    def fact(self, name: str, unknown: int = -1) -> int:
        """Return a number that was looked up."""
        return bind_names.fact(self.looked, name, unknown)

    @property
    def there(self) -> str:
        """What a command needs in front to act in the call's network namespace, "" for none."""
        if self.fact("own_netns") != 0:
            return ""
        name = self.text("netns_name")
        if name:
            return f"ip netns exec {shlex.quote(name)} "
        # of those who are in it, one that still is
        pids = [each.pid for each in self.holders if each.pid] + [self.fact("netns_pid", 0)]
        alive = [pid for pid in pids if pid and pid not in self.ended]
        # all are gone: the reader has to fill in who is there by then; never one that is dead
        return f"nsenter -t {alive[0] if alive else 'PID'} -n "

    @property
    def is_elsewhere(self) -> bool:
        """Whether the call's network namespace is another than the tracer's."""
        return self.fact("own_netns") == 0

    def text(self, name: str) -> str:
        """Return a text that was looked up, "" for none."""
        value = self.looked.facts.get(name, "") if self.looked else ""
        return value if isinstance(value, str) else ""


class History:
    """What a trace itself saw of ports that were bound and listened on, ready to be asked often."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        binds = trace.binds
        good = binds[(binds["errno"] == 0) & (binds["port_got"] > 0)]
        self._bound: dict[tuple[int, int], list[np.void]] = {}
        self._listened: dict[tuple[int, int], int] = {}  # pid and port to since when, ns
        for row in good[good["call"] == BindCall.bind]:
            key = int(row["protocol"]), int(row["port_got"])
            self._bound.setdefault(key, []).append(row)
        for row in good[good["call"] == BindCall.listen]:
            self._listened.setdefault((int(row["pid"]), int(row["port_got"])), int(row["time_ns"]))

    def netns(self, row: np.void) -> int:
        """Return the number of the network namespace of a call, 0 where it is not known."""
        return bind_names.netns(row, bind_names.looked(self.trace, row))

    def bound_before(self, row: np.void) -> np.void | None:
        """Return the latest bind of the port that `row` wants, None where there is none.

        Of another socket, in the same network namespace, and of a process that had not ended by
        then. Where the namespace of one is not known, only its own process's counts.
        """
        exits, netns = self.trace.exits, self.netns(row)
        for each in reversed(self._bound.get((int(row["protocol"]), int(row["port_asked"])), [])):
            gone = exits.get(int(each["pid"]), _NEVER) < row["time_ns"]
            same = (each["pid"], each["fd"]) == (row["pid"], row["fd"])
            theirs = self.netns(each)
            if theirs != netns if netns and theirs else each["pid"] != row["pid"]:
                continue
            if each["time_ns"] < row["call_ns"] and not gone and not same:
                return each
        return None

    def maker(self, row: np.void, held: Holder) -> np.void | None:
        """Return the bind that made `held`, where none of the processes that have it made it.

        None where the trace did not see it, or they are still those that did.
        """
        if held.kind not in ("listener", "bound", "udp") or not (held.pid and held.netns):
            return None
        theirs = {held.pid, *held.also}
        for each in reversed(self._bound.get((int(row["protocol"]), held.port), [])):
            if each["call_ns"] < row["call_ns"] and self.netns(each) == held.netns:
                return None if int(each["pid"]) in theirs else each
        return None

    def listened_before(self, pid: int, port: int, time_ns: int) -> bool:
        """Return whether a process was seen to listen on a port before `time_ns`."""
        return self._listened.get((pid, port), _NEVER) < time_ns


def failed(history: History, row: np.void) -> Failed:
    """Return a failed call with what is known of it."""
    trace = history.trace
    found = bind_names.looked(trace, row)
    known = trace.processes.get(int(row["pid"]))
    holders = holders_of(history, row, found)
    exe, cmdline, container = (known.exe, known.cmdline, known.container) if known else ("",) * 3
    # those that fail are seldom there any more when somebody reads of it
    ended = frozenset(trace.exits) | {int(row["pid"])}
    return Failed(row, holders, found, int(row["uid"]), exe, cmdline, container, ended)


def holders_of(history: History, row: np.void, found: Looked | None) -> tuple[Holder, ...]:
    """Return who held the port: as it was looked up, or else as the trace itself saw it bound."""
    seen = found.holders if found else ()
    if found and found.facts.get("netns_by") in _GUESSED:
        seen = tuple(_nobody(each) for each in seen[:1])
    if not row["errno"]:
        return tuple(e for e in seen if e.pid not in (0, int(row["pid"])))
    if row["call"] == BindCall.listen and len(seen) > 1:
        # the socket that wants to listen is bound there, too
        others = [e for e in seen if (e.kind, e.pid) != ("bound", int(row["pid"]))]
        seen = tuple(others) or seen
    seen = tuple(_as_the_trace_knows(history, row, each) for each in seen)
    seen = tuple(_inherited(history, row, each) for each in seen)
    if any(each.kind not in ("unknown", "namespace") for each in seen):
        return seen
    return _from_history(history, row) or seen


def _nobody(each: Holder) -> Holder:
    why = (
        "who holds the port could not be looked up: the process was gone before its network "
        "namespace could be read"
    )
    return Holder("unknown", each.protocol, each.address, each.port, why=why)


def _as_the_trace_knows(history: History, row: np.void, each: Holder) -> Holder:
    # The kernel does not tell who called whom: on a port that its process listened on, others did.
    if each.kind != "client":
        return each
    if history.listened_before(each.pid, each.port, int(row["time_ns"])):
        return replace(each, kind="accepted", why="accepted by a listener that is closed")
    return each


def _inherited(history: History, row: np.void, each: Holder) -> Holder:
    # Who started a process hands it the sockets that are not closed on exec.
    maker = history.maker(row, each)
    if maker is None:
        return each
    who = f"{names.comm(maker)} (pid {int(maker['pid'])})"
    return replace(each, why=f"{INHERITED} from {who}, which bound it")


def _from_history(history: History, row: np.void) -> tuple[Holder, ...]:
    # Kernels before 6.8 do not list sockets that are bound and do nothing.
    if row["errno"] != errno.EADDRINUSE or not row["port_asked"]:
        return ()
    each = history.bound_before(row)
    if each is None:
        return ()
    holder = _bound_before(history.trace, each, row)
    if history.listened_before(holder.pid, holder.port, int(row["time_ns"])):
        holder = replace(holder, kind="listener")
    return (replace(holder, netns=history.netns(each)),)


def _bound_before(trace: Trace, each: np.void, row: np.void) -> Holder:
    known = trace.processes.get(int(each["pid"]))
    return Holder(
        "bound" if bind_names.protocol(each) == "tcp" else "udp",
        bind_names.protocol(each),
        bind_names.address(each),
        int(each["port_got"]),
        pid=int(each["pid"]),
        comm=names.comm(each),
        uid=int(each["uid"]),
        user=bind_names.user(trace, each),
        container=known.container if known else "",
        age_s=(int(row["time_ns"]) - int(each["time_ns"])) / 1e9,
        reuseport=bind_names.option(each, BindOption.reuseport),
        v6only=bind_names.option(each, BindOption.v6only),
        why="this trace saw it being bound",
    )
