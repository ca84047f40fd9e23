"""Records of bind(2) and listen(2) to the rows of `Trace.binds`.

Each record is a row: nothing is open between two batches. Which port the kernel chose for a
client shows in its attempt, where nobody could be asked in time.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from porttrace.analysis.model import BIND, BindCall, Binds, Table, no_binds
from porttrace.tracer.event import Events, EventType

_CALL_OF = {
    EventType.BIND: BindCall.bind,
    EventType.LISTEN: BindCall.listen,
    EventType.AUTOBIND: BindCall.autobind,
}
_SAME = ("time_ns", "call_ns", "sock", "cgroup", "pid", "tid", "uid", "fd", "family", "comm")
_RENAMED = {
    "netns": "peer_pid",
    "port_asked": "sport",
    "addr": "saddr",
    "protocol": "newstate",
    "options": "answer",
    "options_known": "answers",
}
# The attempt of a descriptor follows its bind within this time, or may be another socket's.
_SOON_NS = 1_000_000_000


def binds_of(events: Events) -> Binds:
    """Return the rows that the records among `events` make, in their order."""
    kinds = events["type"]
    found = events[(kinds >= EventType.BIND) & (kinds <= EventType.AUTOBIND)]
    if not len(found):
        return no_binds()
    rows = np.zeros(len(found), BIND)
    for name in _SAME:
        rows[name] = found[name]
    for name, source in _RENAMED.items():
        rows[name] = found[source]
    rows["errno"] = np.maximum(-found["error"], 0)
    for kind, call in _CALL_OF.items():
        rows["call"][found["type"] == kind] = call
    auto, listens = rows["call"] == BindCall.autobind, rows["call"] == BindCall.listen
    rows["backlog"][listens] = found["in_flight"][listens]
    rows["port_got"][~auto] = found["dport"][~auto]
    rows["dport"][auto], rows["daddr"][auto] = found["dport"][auto], found["daddr"][auto]
    return rows


def joined_binds(parts: Iterable[Binds]) -> Binds:
    """Return all rows of the parts in order of time; a copy."""
    rows = np.concatenate([no_binds(), *parts])
    return rows[np.argsort(rows["time_ns"], kind="stable")]


def with_ports(binds: Binds, attempts: Table) -> Binds:
    """Return `binds` with ports that the kernel chose, where the socket's next act tells them.

    That is a listen(2) or an attempt of the same descriptor, when it came soon.
    """
    lacking = (binds["call"] == BindCall.bind) & (binds["errno"] == 0) & (binds["port_got"] == 0)
    where = np.flatnonzero(lacking)
    if not len(where):
        return binds
    key, called_ns, port = _acts(binds, attempts)
    wanted = _key(binds[where])
    filled = binds.copy()
    for row, mine in zip(where.tolist(), wanted.tolist(), strict=True):
        first, last = np.searchsorted(key, [mine, mine + 1])
        at = first + np.searchsorted(called_ns[first:last], binds["time_ns"][row])
        if at < last and called_ns[at] - binds["time_ns"][row] < _SOON_NS:
            filled["port_got"][row] = port[at]
    return filled


def _acts(
    binds: Binds, attempts: Table
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    # What tells the port of a socket: whose (pid and descriptor), when, which port; sorted so.
    listens = binds[(binds["call"] == BindCall.listen) & (binds["port_asked"] > 0)]
    tries = attempts[(attempts["sport"] > 0) & (attempts["fd"] >= 0) & (attempts["call_ns"] > 0)]
    key = np.concatenate([_key(listens), _key(tries)])
    called_ns = np.concatenate([listens["call_ns"], tries["call_ns"]])
    port = np.concatenate([listens["port_asked"], tries["sport"]])
    order = np.lexsort((called_ns, key))
    return key[order], called_ns[order], port[order]


def _key(rows: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    key: npt.NDArray[np.int64] = rows["pid"].astype(np.int64) << 32 | rows["fd"].astype(np.int64)
    return key
