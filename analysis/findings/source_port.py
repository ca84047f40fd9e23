"""Rule `source-port-taken`: a connect failed for the one local port that its program had chosen.

The range of local ports has no part in it: the socket was bound to a port before the connect, and
that port has a connection to the same peer already, open or in TIME_WAIT (EADDRNOTAVAIL of
__inet_hash_connect, which looks at no other port then).
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.model import Finding, Outcome, Trace, start_ns
from porttrace.analysis.pairs import as_numbers, parts_by_key

RULE = "source-port-taken"
_TIME_WAIT_S = 60  # TCP_TIMEWAIT_LEN
_MOST = 50  # findings: of hundreds of ports one is like the other


def of_own_port(trace: Trace) -> Bools:
    """Tell which attempts failed for the port that their socket was bound to before.

    A socket that leaves the choice to connect(2) has no port yet when the kernel finds none.
    """
    columns = trace.columns
    lacking = (columns["outcome"] == Outcome.no_port) & (columns["syn_ns"] > 0)
    return np.asarray(lacking & (columns["sport"] > 0))


def source_port_taken(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find connects that failed for the port they were bound to: one finding for each two ends."""
    failed = of_own_port(trace)
    if not failed.any():
        return []
    return [_finding(trace, rows, failed) for rows in islice(_alike(trace, failed), _MOST)]


# The attempts between the two ends of each that failed, by when they were made.
def _alike(trace: Trace, failed: Bools) -> Iterator[Ints]:
    columns = trace.columns
    halves = np.ascontiguousarray(columns["saddr"]).view("<u8").reshape(-1, 2)
    parts = [np.unique(half, return_inverse=True)[1].astype(np.int64) for half in halves.T]
    keys = scope_keys(columns, "destination")
    for part in (*parts, scope_keys(columns, "netns", trace.processes)):
        (keys,) = as_numbers((keys, part))
    (keys,) = as_numbers((keys, columns["sport"].astype(np.int64)))
    rows = np.flatnonzero(np.isin(keys, np.unique(keys[failed])))
    for part in parts_by_key(keys[rows])[1]:
        yield rows[part]


def _finding(trace: Trace, rows: Ints, failed: Bools) -> Finding:
    lacking = rows[failed[rows]]
    first = trace.attempts[lacking[0]]
    before = _before(trace, rows, int(lacking[0]))
    pids = [int(pid) for pid in np.unique(trace.columns["pid"][lacking])]
    holder = int(trace.columns["pid"][before]) if before is not None else None
    return Finding(
        rule=RULE,
        severity="warning",
        confidence=0.95 if before is not None else 0.9,
        subject={
            "pid": pids[0],
            "pids": pids,
            "source": names.plain_address(first["saddr"].tobytes()),
            "port": int(first["sport"]),
            "destination": names.destination(first),
        },
        summary=_summary(trace, first, lacking, before),
        evidence={"failed": len(lacking), "attempts": len(rows), "holder_pid": holder},
        advice=_advice(trace, first, holder),
    )


# The attempt that got through between the same two ends, the last one before the failure.
def _before(trace: Trace, rows: Ints, failed: int) -> int | None:
    good = rows[trace.columns["outcome"][rows] == Outcome.established]
    good = good[trace.columns["end_ns"][good] <= trace.columns["syn_ns"][failed]]
    return int(good[-1]) if len(good) else None


def _summary(trace: Trace, first: np.void, lacking: Ints, before: int | None) -> str:
    port, here = int(first["sport"]), names.address(first["saddr"].tobytes())
    often = f" {len(lacking)} times" if len(lacking) > 1 else ""
    text = (
        f"{names.process(trace, int(first['pid']))} could not connect{often} from {here}:{port}"
        f" to {names.destination(first)} (EADDRNOTAVAIL): its own source port {port}, to which it"
        " had bound the socket before, already has a connection to that peer"
    )
    if before is None:
        return (
            f"{text}: an open one, or one that ended less than {_TIME_WAIT_S} s ago (TIME_WAIT)."
            f" {_NO_SHORTAGE}"
        )
    began = np.array([first, trace.attempts[before]])
    later_ns = int(np.subtract(*start_ns(began)))
    holder = names.process(trace, int(trace.attempts[before]["pid"]))
    return (
        f"{text}: that of {holder}, made {names.duration(later_ns)} before, which is open or was"
        f" closed less than {_TIME_WAIT_S} s ago (TIME_WAIT). {_NO_SHORTAGE}"
    )


_NO_SHORTAGE = "This is no shortage of ports: only that one port was asked for."


def _advice(trace: Trace, first: np.void, holder: int | None) -> tuple[str, ...]:
    port, there = int(first["sport"]), names.address(first["daddr"].tobytes())
    pids = [pid for pid in (holder, int(first["pid"])) if pid and pid not in trace.exits]
    enter = f"nsenter -t {pids[0]} -n " if pids else ""
    return (
        "Use another source port for each connection to one peer, or none: without bind(2) before"
        " connect(2) the kernel chooses a free one. Where the source address must be chosen, bind"
        " it with port 0 and IP_BIND_ADDRESS_NO_PORT. Price: a firewall that lets only this source"
        " port through must be told.",
        f"Where it has to be this port: end the other connection first, and let the peer close it,"
        f" or wait {_TIME_WAIT_S} s: TIME_WAIT stays with who closes first.",
        f"See what has it: {enter}ss -tanpo 'sport = :{port} and dst {there} and dport ="
        f" :{int(first['dport'])}'{'' if pids else ', in its network namespace'}.",
    )
