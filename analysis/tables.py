"""The tables that are shown and exported: those of `frames`, with what readers ask for besides.

Repeated text is categorical, and a mark that is not there is <NA>, never 0. Millions of rows are
converted column by column: nothing here runs once a row.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from porttrace.analysis import names
from porttrace.analysis.concurrency import Ints, scope_keys
from porttrace.analysis.frames import attempts_table, binds_table, concurrency_table
from porttrace.analysis.holds import HOLDS, longest
from porttrace.analysis.model import Trace, start_ns
from porttrace.tracer.event import Events, EventType, Flag, Origin
from porttrace.tracer.words import endpoint

_AF_INET = 2
_UNKNOWN = "::"  # all zero: what nobody filled in reads so, too
_NUMBERS = ("pid", "tid", "uid", "peer_pid", "in_flight", "error", "fd", "cpu")
_TIMES = ("start_ns", "call_ns", "gate_ns", "sleep_ns", "kernel_ns", "kernel_return_ns")


def attempts(trace: Trace) -> pd.DataFrame:
    """Return one row per attempt, in the order of `trace.attempts`: `frames.attempts_table`, and

    `start_time`, the wall clock (UTC) of the first mark; `first_ns`, that mark; `destination`, as
    `192.0.2.2:389`; `held_ns`, how long it was held on this host, at the gate, in connect, at
    egress and at ingress together; `held_place`, which of these held it longest, "" where none
    held it for 10 ms.
    """
    frame, first = attempts_table(trace), start_ns(trace.attempts)
    first = np.where(first == np.iinfo(np.int64).max, trace.start_ns, first)
    added = {
        "attempt_id": ("start_time", wall_clock(trace, first)),
        "dport": ("destination", _destinations(frame["daddr"].array, frame["dport"].to_numpy())),
        "blocking": ("first_ns", first),
    }
    lengths = [frame[f"wait_{place}_ns"].to_numpy() for place in HOLDS]
    places = pd.Categorical.from_codes(longest(lengths) + 1, pd.Index(["", *HOLDS], dtype=object))
    columns: dict[str, Any] = {}
    for name in frame:
        columns[str(name)] = frame[name]
        if name in added:
            columns |= [added[str(name)]]
        if name == "wait_beyond_ns":
            columns |= {"held_ns": np.sum(lengths, axis=0), "held_place": places}
    return pd.DataFrame(columns)


def events(records: Events) -> pd.DataFrame:
    """Return one row per record of the kernel, in the order of `records`.

    The columns are those of bpf/event.h; `flags` are words with commas, times that are not there
    <NA>, and `destination` reads as `192.0.2.2:389`. Calls of bind(2) and listen(2) have no
    destination but `local`, what they asked for or got, as `0.0.0.0:80`. What is not known is "".
    """
    own = np.isin(records["type"], (EventType.BIND, EventType.LISTEN))
    known = own & (records["family"] > 0)
    there = ~own & (records["dport"] > 0)
    saddr, daddr = (_packed(records[end], names.plain_address) for end in ("saddr", "daddr"))
    lport = np.where(own & (records["dport"] > 0), records["dport"], records["sport"])
    return pd.DataFrame(
        {
            "time_ns": records["time_ns"].astype(np.int64),
            "event": _categories(records["type"], lambda kind: str(EventType(kind).name)),
            "comm": _packed(records["comm"], _name),
            **{name: records[name] for name in _NUMBERS},
            "family": np.where(records["family"] == _AF_INET, 4, 6).astype(np.uint8),
            "saddr": _only(saddr, known | (records["sport"] > 0) | (saddr != _UNKNOWN)),
            "sport": records["sport"],
            "daddr": _only(daddr, there | (daddr != _UNKNOWN)),
            "dport": records["dport"],
            "destination": _only(_destinations(daddr, records["dport"]), there),
            "local": _only(_destinations(saddr, lport), known),
            "flags": _categories(records["flags"], _flags),
            "newstate": records["newstate"],
            "sock": records["sock"],
            "cgroup": records["cgroup"],
            **{name: _optional(records[name]) for name in _TIMES},
            "gate_stack": records["gate_stack"],
            "connect_stack": records["connect_stack"],
            "origin": _categories(records["origin"], lambda way: Origin(way).name.lower()),
        }
    )


def accepts(records: Events) -> pd.DataFrame:
    """Return one row per connection that accept(2) took, in the order of `records`.

    Columns: time_ns (accepted), pid, tid, comm, uid, family (4 or 6), listener and peer (as
    `192.0.2.2:389`), lport, dport (the peer's), daddr, established_ns (<NA> where that was not
    seen), queued_ns (from established to accepted), waited_ns (how long accept(2) stood in the
    kernel). Recordings of the hook mode `tracepoint` have no such row.
    """
    rows = records[records["type"] == EventType.ACCEPT]
    saddr, daddr = (_packed(rows[end], names.plain_address) for end in ("saddr", "daddr"))
    accepted, established = rows["time_ns"].astype(np.int64), _optional(rows["start_ns"])
    return pd.DataFrame(
        {
            "time_ns": accepted,
            "pid": rows["pid"],
            "tid": rows["tid"],
            "comm": _packed(rows["comm"], _name),
            "uid": rows["uid"],
            "family": np.where(rows["family"] == _AF_INET, 4, 6).astype(np.uint8),
            "listener": _destinations(saddr, rows["sport"]),
            "lport": rows["sport"],
            "peer": _destinations(daddr, rows["dport"]),
            "daddr": daddr,
            "dport": rows["dport"],
            "established_ns": established,
            "queued_ns": pd.Series(accepted, dtype="Int64") - pd.Series(established),
            "waited_ns": pd.Series(accepted, dtype="Int64") - _optional(rows["call_ns"]),
        }
    )


def binds(trace: Trace) -> pd.DataFrame:
    """Return `frames.binds_table`, and `start_time`, the wall clock (UTC) of its end;

    `local`, what was asked for, as `0.0.0.0:80`, "" of a connect from a socket that was not bound.
    """
    frame = binds_table(trace)
    addr = frame["addr"].array
    local = _only(_destinations(addr, frame["port_asked"].to_numpy()), addr != "")
    frame.insert(0, "start_time", wall_clock(trace, frame["time_ns"].to_numpy()))
    return frame.assign(local=local)


def concurrency(trace: Trace, scope: str) -> pd.DataFrame:
    """Return `frames.concurrency_table`, and `name`, what to call each key of the scope."""
    frame, called = concurrency_table(trace, scope), _scope_names(trace, scope)
    name = _categories(frame["scope"].to_numpy(), lambda key: called[key])
    return frame.assign(name=name)[["scope", "name", "time_ns", "in_flight", "demand"]]


def by_destination(trace: Trace) -> pd.DataFrame:
    """Return one row per destination, most attempts first, indexed by `destination`.

    Columns: attempts, answered (established ones), resent (SYNs sent again), median_held_ns and
    worst_held_ns (held on this host), median_took_ns and worst_took_ns (from the SYN to the end).
    """
    frame = attempts(trace).assign(answered=lambda rows: rows["outcome"] == "established")
    table = frame.groupby("destination", observed=True).agg(
        attempts=("pid", "size"),
        answered=("answered", "sum"),
        resent=("retransmits", "sum"),
        median_held_ns=("held_ns", "median"),
        worst_held_ns=("held_ns", "max"),
        median_took_ns=("wait_beyond_ns", "median"),
        worst_took_ns=("wait_beyond_ns", "max"),
    )
    return table.sort_values("attempts", ascending=False, kind="stable")


def compared(before: Trace, after: Trace) -> pd.DataFrame:
    """Return `by_destination` of two traces side by side: each column of the one, then the other.

    The columns have two levels, the name and `before` or `after`; a destination that one of the
    traces does not have is <NA> there.
    """
    tables = {"before": by_destination(before), "after": by_destination(after)}
    both = pd.concat(tables, axis=1, sort=False).swaplevel(axis="columns")
    return both[[(name, when) for name in tables["before"] for when in tables]]


def _scope_names(trace: Trace, scope: str) -> dict[int, str]:
    keys = scope_keys(trace.attempts, scope, trace.processes)
    distinct, first = np.unique(keys, return_index=True)
    pairs = zip(distinct.tolist(), first.tolist(), strict=True)
    return {key: text(_scope_name(trace, scope, key, trace.attempts[row])) for key, row in pairs}


def _scope_name(trace: Trace, scope: str, key: int, row: np.void) -> str:
    if scope == "process":
        return names.process(trace, key)
    if scope == "thread":
        return f"{names.comm(row)} (tid {key})" if key > 0 else f"no thread of pid {-key}"
    if scope == "destination":
        return names.destination(row)
    if scope == "host":
        return trace.host.name or "host"
    known = trace.processes.get(int(row["pid"]))
    called = {"user": known.user, "cgroup": known.cgroup} if known else {}
    return called.get(scope, "") or f"{'uid' if scope == 'user' else scope} {key}"


def wall_clock(trace: Trace, marks: Ints) -> pd.DatetimeIndex:
    """Return marks (ns of CLOCK_MONOTONIC) as times of the wall clock, UTC."""
    times = (marks + trace.wall_offset_ns).astype("datetime64[ns]")
    return pd.DatetimeIndex(times).tz_localize("UTC")


def text(raw: str) -> str:
    """Return what /proc or the kernel said as valid Unicode: bytes that are no UTF-8 as \\xNN."""
    try:
        return raw.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return raw.encode(errors="backslashreplace").decode()


def _destinations(daddr: Any, dport: npt.NDArray[np.uint16]) -> pd.Categorical:
    # Of a Categorical of addresses; each pair is put into words once.
    known = daddr.categories.tolist()
    pairs = daddr.codes.astype(np.int64) << 16 | dport.astype(np.int64)
    return _categories(pairs, lambda pair: endpoint(known[pair >> 16], pair & 0xFFFF))


# Text where it means something, "" elsewhere.
def _only(words: Any, where: npt.NDArray[np.bool_]) -> pd.Categorical:
    found = words.categories.tolist()
    return _worded(np.where(where, words.codes, len(found)), [*found, ""])


def _name(packed: bytes) -> str:
    return packed.rstrip(b"\0").decode(errors="backslashreplace")


def _flags(number: int) -> str:
    return ",".join(flag.name.lower() for flag in Flag if number & flag)


# Each distinct value is put into words once, and the rows point at the words.
def _categories(values: npt.NDArray[np.generic], word: Callable[[int], str]) -> pd.Categorical:
    codes, distinct = pd.factorize(values)
    return _worded(codes, [word(value) for value in distinct.tolist()])


def _packed(values: npt.NDArray[np.void], word: Callable[[bytes], str]) -> pd.Categorical:
    # 16 bytes have no hash in numpy: two halves have one each, and so has the pair of their ranks.
    halves = np.ascontiguousarray(values).view("<u8").reshape(-1, 2)
    high, _ = pd.factorize(halves[:, 0])
    low, lows = pd.factorize(halves[:, 1])
    codes, distinct = pd.factorize(high.astype(np.int64) * max(1, len(lows)) + low)
    first = np.zeros(len(distinct), np.intp)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return _worded(codes, [word(halves[row].tobytes()) for row in first.tolist()])


def _worded(codes: Ints, words: list[str]) -> pd.Categorical:
    # Different values may read alike: one category then.
    back, distinct = pd.factorize(np.array(words, object))
    kind = pd.CategoricalDtype(pd.Index(list(distinct), dtype=object))
    return pd.Categorical.from_codes(back[codes] if len(words) else codes, dtype=kind)


def _optional(values: npt.NDArray[np.integer]) -> pd.api.extensions.ExtensionArray:
    numbers = values.astype(np.int64)
    return pd.arrays.IntegerArray(numbers, numbers == 0)
