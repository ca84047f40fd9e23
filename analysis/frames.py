"""Tables for notebooks: pandas views of a trace with readable columns.

Made from the numpy tables at the end, for people; nothing in analysis reads them back.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd

from porttrace.analysis import bind_names, concurrency, ladder, names
from porttrace.analysis.bind_told import Told
from porttrace.analysis.holds import PLACES, waits
from porttrace.analysis.model import (
    Answer,
    BindCall,
    Binds,
    Origin,
    Outcome,
    Process,
    Table,
    Trace,
    start_ns,
)

_MARKS = (
    "sleep_ns", "gate_ns", "call_ns", "kernel_ns", "syn_ns", "wire_ns", "wire_last_ns",
    "kernel_return_ns", "answer_ns", "end_ns", "return_ns",
)  # fmt: skip
_AS_THEY_ARE = (
    "attempt_id", "pid", "tid", "uid", "cgroup", "fd", "sport", "dport", "errno",
    "retransmits", "in_flight_at_start", "demand_at_start", "complete",
    "watched", "wire_count", "answers",
)  # fmt: skip
_BIND_COLUMNS = (
    "time_ns", "pid", "tid", "comm", "uid", "netns", "protocol", "addr", "port_asked", "port_got",
    "errno", "options", "call", "holders", "advice", "error", "family", "call_ns", "fd", "backlog",
    "cgroup", "container", "container_name", "user", "daddr", "dport",
)  # fmt: skip


def attempts_table(trace: Trace) -> pd.DataFrame:
    """Return one row per attempt, sorted by first mark.

    Columns: identity (attempt_id, host, pid, tid, comm, exe, uid, user, cgroup, container (its id),
    container_name (outside of containers, the systemd service), ns_pid (the pid in its own pid
    namespace, null: the host's), netns, fd), `family` (4 or 6), saddr, sport, daddr, dport, origin,
    blocking (null: not known), the marks `*_ns` (CLOCK_MONOTONIC, null: not there), wait_user_ns,
    wait_gate_ns, wait_connect_ns, wait_beyond_ns (SYN to outcome; of that, where the wire was
    watched, wait_egress_ns, wait_network_ns and wait_ingress_ns), wait_return_ns, total_ns (first
    mark to outcome, or to the end of the trace), outcome, errno, retransmits, in_flight_at_start,
    demand_at_start (both of the process), ladder (the retransmission at which it was answered or
    ended, 1-based; null: none), watched (the wire was, from before the SYN), wire_count (SYNs that
    left), answer (none, syn_ack, rst, icmp), answers (how often), icmp_type, icmp_code, drop_reason
    (the kernel's name for why it freed the first SYN, "" not seen), wire_saddr, wire_sport,
    wire_daddr, wire_dport (the ends of the SYN on the wire where NAT made them others), complete.
    """
    rows = trace.attempts
    columns: dict[str, Any] = {name: rows[name] for name in _AS_THEY_ARE}
    columns |= {
        "host": _category([trace.host.name] * min(len(rows), 1), np.zeros(len(rows), np.intp)),
        "comm": _texts(rows["comm"], lambda raw: raw.decode(errors="backslashreplace")),
        **_process_columns(rows, trace.processes),
        "family": np.where(rows["family"] == 2, 4, 6).astype(np.uint8),
        "saddr": _texts(rows["saddr"], _address),
        "daddr": _texts(rows["daddr"], _address),
        "origin": _enum(rows["origin"], Origin),
        "outcome": _enum(rows["outcome"], Outcome),
        **_wire_columns(trace),
        "blocking": pd.arrays.BooleanArray(rows["blocking"] == 1, rows["blocking"] < 0),
        **{mark: _nullable(rows[mark], rows[mark] == 0) for mark in _MARKS},
        **{f"wait_{place}_ns": length for place, length in waits(rows, trace.end_ns).items()},
        "total_ns": _total_ns(trace),
        "ladder": _rung(trace),
    }
    return pd.DataFrame({name: columns[name] for name in _ORDER})


_ORDER = (
    "attempt_id", "host", "pid", "tid", "comm", "exe", "uid", "user", "cgroup", "container",
    "container_name", "ns_pid", "netns", "fd", "family", "saddr", "sport", "daddr", "dport",
    "origin", "blocking", *_MARKS, *(f"wait_{place}_ns" for place in PLACES), "total_ns", "outcome",
    "errno", "retransmits", "in_flight_at_start", "demand_at_start", "ladder", "watched",
    "wire_count", "answer", "answers", "icmp_type", "icmp_code", "drop_reason", "wire_saddr",
    "wire_sport", "wire_daddr", "wire_dport", "complete",
)  # fmt: skip


def binds_table(trace: Trace) -> pd.DataFrame:
    """Return one row per call of bind(2) or listen(2), and per connect that found no local port.

    Columns: time_ns (returned; CLOCK_MONOTONIC), pid, tid, comm, uid, netns (of the caller at the
    call; null: not known), protocol (tcp, udp, "" not known), addr and port_asked (0: any) as they
    were asked for, port_got (null: none, or not known), errno (0: it worked), options (those that
    were on, with commas; null: not known), call (bind, listen, autobind), holders (who held the
    port when the call failed, in words), advice (what to do), error (the errno's name), family (4,
    6), call_ns (entered), fd, backlog (of listen), cgroup, container, user, and of autobind daddr
    and dport, where to.
    """
    rows = trace.binds
    columns: dict[str, Any] = {
        name: rows[name]
        for name in ("time_ns", "pid", "tid", "uid", "errno", "call_ns", "fd", "cgroup")
    }
    columns |= {
        **_process_columns(rows, trace.processes),
        "netns": _netns(trace),
        "port_asked": rows["port_asked"],
        "comm": _texts(rows["comm"], lambda raw: raw.decode(errors="backslashreplace")),
        "addr": _asked_address(rows),
        "protocol": _each(rows, ("protocol",), bind_names.protocol),
        "options": _each(rows, ("options", "options_known"), bind_names.options),
        "error": _each(rows, ("errno",), bind_names.error),
        **_told_columns(trace),
        "call": _enum(rows["call"], BindCall),
        "family": np.where(rows["family"] == 2, 4, 6).astype(np.uint8),
        "port_got": _nullable(rows["port_got"], rows["port_got"] == 0),
        "backlog": _nullable(rows["backlog"], rows["call"] != BindCall.listen),
        "daddr": _texts(rows["daddr"], lambda raw: _address(raw) if raw else ""),
        "dport": _nullable(rows["dport"], rows["dport"] == 0),
    }
    return pd.DataFrame({name: columns[name] for name in _BIND_COLUMNS})


def _asked_address(rows: Binds) -> Any:
    words = _texts(rows["addr"], _address)
    none = np.flatnonzero((rows["call"] == BindCall.autobind) & (words == "::"))
    if not len(none):
        return words
    # a socket that was never bound asked for no address
    words = words if "" in words.categories else words.add_categories("")
    words[none] = ""
    return words


def _netns(trace: Trace) -> Any:
    rows, known = trace.binds, trace.binds["netns"].astype(np.int64)
    looked = np.fromiter((key[0] for key in trace.looked), np.int64, len(trace.looked))
    for at in np.flatnonzero((known == 0) & np.isin(rows["time_ns"], looked)).tolist():
        known[at] = bind_names.netns(rows[at], bind_names.looked(trace, rows[at]))
    return _nullable(known, known == 0)


def _each(rows: Binds, names_: Sequence[str], text: Callable[[np.void], str | None]) -> Any:
    # Rows that are alike in these columns have the same text.
    keys = np.zeros(len(rows), np.int64)
    for name in names_:
        keys = keys << 16 | rows[name].astype(np.int64)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    texts = np.array([text(rows[at]) for at in first.tolist()], object)
    return pd.Series(texts[which] if len(rows) else [], dtype=object)


def _told_columns(trace: Trace) -> dict[str, Any]:
    # Who held the port, and what to do.
    rows, told = trace.binds, Told(trace)
    holders, advice = np.full((2, len(rows)), "", object)
    looked = np.fromiter((key[0] for key in trace.looked), np.int64, len(trace.looked))
    wanted = np.flatnonzero((rows["errno"] > 0) | np.isin(rows["time_ns"], looked))
    for at, (who, first) in zip(wanted.tolist(), told.of(rows[wanted]), strict=True):
        holders[at], advice[at] = _plain("; ".join(who)), _plain(first)
    return {"holders": holders, "advice": advice}


def concurrency_table(trace: Trace, scope: str) -> pd.DataFrame:
    """Return the steps of each `scope`: from `time_ns` on so many are in flight and in demand.

    Columns scope (the key: pid, tid, uid, ...), time_ns, in_flight, demand; sorted by both.
    Raises ValueError for a scope that is none of `concurrency.SCOPES`.
    """
    if scope not in concurrency.SCOPES:
        raise ValueError(f"scope {scope!r} is none of {', '.join(concurrency.SCOPES)}")
    flight = concurrency.in_flight(trace.attempts, scope, trace.end_ns, trace.processes)
    demand = concurrency.demand(trace.attempts, scope, trace.end_ns, trace.processes)
    moments = np.union1d(flight[["scope", "time_ns"]], demand[["scope", "time_ns"]])
    key, time_ns = moments["scope"].astype(np.int64), moments["time_ns"].astype(np.int64)
    return pd.DataFrame(
        {
            "scope": key,
            "time_ns": time_ns,
            "in_flight": concurrency.count_at(flight, key, time_ns),
            "demand": concurrency.count_at(demand, key, time_ns),
        }
    )


# -- columns ---------------------------------------------------------------------


def _wire_columns(trace: Trace) -> dict[str, Any]:
    rows, reasons = trace.attempts, trace.host.drop_reasons
    numbers, back = np.unique(rows["drop_reason"], return_inverse=True)
    dropped = [names.drop_reason(number, reasons) for number in numbers.tolist()]
    icmp = rows["answer"] != Answer.icmp
    translated = {
        name: _texts(rows[name], lambda raw: _address(raw) if raw else "")
        for name in ("wire_saddr", "wire_daddr")
    }
    return {
        "answer": _enum(rows["answer"], Answer),
        "drop_reason": _category(dropped, back),
        **{name: _nullable(rows[name], icmp) for name in ("icmp_type", "icmp_code")},
        **{name: _nullable(rows[name], rows[name] == 0) for name in ("wire_sport", "wire_dport")},
        **translated,
    }


def _process_columns(rows: Table, processes: Mapping[int, Process]) -> dict[str, Any]:
    # What /proc said, for each pid once.
    pids, back = np.unique(rows["pid"], return_inverse=True)
    known = [processes.get(pid, Process(pid)) for pid in pids.tolist()]
    text = {
        name: _category([_plain(getattr(process, name)) for process in known], back)
        for name in ("exe", "user", "container", "container_name")
    }
    numbers = {
        name: np.array([getattr(process, name) for process in known], np.int64)[back]
        for name in ("ns_pid", "netns")
    }
    return {**text, **{name: _nullable(each, each == 0) for name, each in numbers.items()}}


def _plain(text: str) -> str:
    # Names that are no UTF-8 must not stop a notebook that writes its tables.
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _texts(values: Any, read: Any) -> Any:
    # Each distinct value is turned into text once.
    whole = values if values.dtype.kind == "S" else np.ascontiguousarray(values).view("S16")
    unique, back = np.unique(whole, return_inverse=True)
    return _category([read(raw) for raw in unique.tolist()], back)


def _address(raw: bytes) -> str:
    # numpy leaves out the zeros at the end.
    return names.plain_address(raw.ljust(16, b"\0"))


def _category(texts: Sequence[str], index: Any) -> Any:
    # Several values may have the same text.
    unique, back = np.unique(np.array(texts, object), return_inverse=True)
    codes = back[index] if len(back) else np.empty(0, np.intp)
    return pd.Categorical.from_codes(codes, pd.Index(unique, dtype=object))


def _enum(values: Any, kind: type[IntEnum]) -> Any:
    members = list(kind)
    return pd.Categorical.from_codes(
        values, pd.Index([each.name for each in members], dtype=object)
    )


def _nullable(values: Any, missing: Any) -> Any:
    return pd.arrays.IntegerArray(values.astype(np.int64), np.array(missing, bool))


def _ended_ns(trace: Trace) -> Any:
    end = trace.attempts["end_ns"].astype(np.int64)
    return np.where(end > 0, end, trace.end_ns)


def _total_ns(trace: Trace) -> Any:
    return np.maximum(_ended_ns(trace) - start_ns(trace.attempts), 0)


def _rung(trace: Trace) -> Any:
    # The rung of the host's ladder at which the attempt was over, if it was sent again at all.
    rows, rungs = trace.attempts, np.array(ladder.of_host(trace.host.sysctls).rungs_s) * 1e9
    waited = _ended_ns(trace) - rows["syn_ns"]
    # Timers are late by what the timer wheel rounds up: the last rung before the outcome.
    rung = np.searchsorted(rungs, waited, side="right")
    none = (rows["syn_ns"] == 0) | (rows["retransmits"] == 0) | (rung == 0)
    return _nullable(rung, none)
