"""Calls of bind(2) and listen(2), told in the words of the domain, as records and as traces."""

import dataclasses
import errno
from typing import Any

import numpy as np

from builders import MS, S, packed
from porttrace.analysis.binds import binds_of
from porttrace.analysis.model import BindCall, BindOption, Trace, no_attempts
from porttrace.tracer.event import EVENT, Events, EventType
from porttrace.tracer.facts import Holder, Looked, Process

ALL_OPTIONS = 31
_PROTOCOLS = {"tcp": 6, "udp": 17, "": 0}
_CALLS = {"bind": EventType.BIND, "listen": EventType.LISTEN, "autobind": EventType.AUTOBIND}


def call(
    what: str = "bind",
    to: str = "0.0.0.0:80",
    *,
    at: int = S,
    got: int | None = None,
    error: int = 0,
    protocol: str = "tcp",
    pid: int = 7,
    tid: int = 0,
    fd: int = 3,
    uid: int = 33,
    comm: bytes = b"web",
    on: BindOption = BindOption(0),  # noqa: B008 (a plain number)
    known: int = ALL_OPTIONS,
    backlog: int = 0,
    netns: int = 1,
) -> Events:
    """Return the record of one call that returned at `at` (ns)."""
    address, _, port = to.rpartition(":")
    event = np.zeros(1, EVENT)
    event["type"], event["time_ns"], event["call_ns"] = _CALLS[what], at, max(at - 4_000, 0)
    event["pid"], event["tid"], event["uid"], event["comm"] = pid, tid or pid, uid, comm
    event["fd"], event["error"], event["newstate"] = fd, -error, _PROTOCOLS[protocol]
    event["family"] = 10 if ":" in address else 2
    event["saddr"], event["sport"] = packed(address.strip("[]")), int(port)
    event["dport"] = (0 if error else int(port)) if got is None else got
    event["answer"], event["answers"], event["in_flight"] = on, known, backlog
    event["peer_pid"] = netns
    event["gate_stack"] = event["connect_stack"] = -1
    return event


def in_use(*holders: Holder, to: str = "0.0.0.0:80", facts: Any = None, **how: Any) -> Trace:
    """Return a trace in which one bind failed, after which these holders were seen."""
    at = how.setdefault("at", S)
    event = call(to=to, error=errno.EADDRINUSE, **how)
    looked = Looked(((at, int(event["tid"][0])),), holders, facts or RANGE, 0.002)
    return trace_of_binds(event, looked=[looked])


RANGE = {"range_first": 32768, "range_last": 60999}


def trace_of_binds(*calls: Events, looked: list[Looked] | None = None, **about: Any) -> Trace:
    """Return the trace of some calls, of processes that /proc knew."""
    events = np.concatenate([np.empty(0, EVENT), *calls])
    binds = binds_of(events)
    known = {
        int(row["pid"]): Process(
            int(row["pid"]),
            comm=bytes(row["comm"]).decode(errors="backslashreplace"),
            exe="/usr/bin/web",
        )
        for row in binds
    }
    found = {key: each for each in looked or [] for key in each.keys}
    end_ns = int(binds["time_ns"].max(initial=0)) + 10 * S
    trace = Trace(no_attempts(), 0, end_ns, known, binds=binds, looked=found)
    return dataclasses.replace(trace, **about)


def listener(**how: Any) -> Holder:
    """Return nginx, which listens."""
    values = {"pid": 12, "comm": "nginx", "uid": 0, "user": "root", "age_s": 60.0, **how}
    return Holder(**{"kind": "listener", "address": "0.0.0.0", "port": 80, **values})


__all__ = ["MS", "BindCall", "call", "in_use", "listener", "trace_of_binds"]
