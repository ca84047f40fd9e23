"""Rule `bind-conflict`: a program could not have its port or address: what stands in the way.

Calls that fail alike are one finding, also those of a service that is started again and again. A
program that goes on with another port, or gets this one a moment later, is only noted.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from porttrace.analysis import bind_names, names
from porttrace.analysis.bind_failed import History, Reason, failed
from porttrace.analysis.bind_reasons import explain
from porttrace.analysis.model import BindCall, Binds, Finding, Trace

RULE = "bind-conflict"
OFTEN = 3
"""So many failures alike are a program that tries again and does not get through."""
GAVE_UP_NS = 5_000_000_000
"""A program that ends so soon after its failure ended because of it."""
SOON_NS = 1_000_000_000
"""Who has its port so soon after all was not kept from it."""
MOST = 50
"""Findings at most: of hundreds of ports one is like the other."""
_LOOKED_AT = 32  # failures of a group that are asked for who held the port
_ALIKE = ("comm", "uid", "netns", "call", "protocol", "addr", "port_asked", "errno")


def bind_conflict(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find calls of bind(2) and listen(2) that failed, with who held the port and what to do."""
    binds = trace.binds
    bad = binds[(binds["errno"] > 0) & (binds["call"] != BindCall.autobind)]
    history = History(trace)
    return [_finding(history, rows) for rows, _ in zip(_groups(bad), range(MOST), strict=False)]


def _groups(bad: Binds) -> Iterator[Binds]:
    _, first, which = np.unique(bad[[*_ALIKE]], return_index=True, return_inverse=True)
    for number in np.argsort(first, kind="stable").tolist():
        yield bad[which.ravel() == number]


def _finding(history: History, rows: Binds) -> Finding:
    trace = history.trace
    reason, row = _best(history, rows)
    pids = list(dict.fromkeys(rows["pid"].tolist()))
    after_s, other = _went_on(trace, rows)
    holder = reason.holder
    return Finding(
        rule=RULE,
        severity=_severity(trace, rows, reason, after_s, other),
        confidence=min(reason.sure, 0.75)
        if trace.losses and reason.kind == "unknown"
        else reason.sure,
        subject={
            "pid": pids[0],
            "pids": pids[:1],
            "port": int(row["port_asked"]),
            "protocol": bind_names.protocol(row),
            "address": bind_names.address(row),
            "errno": bind_names.error(row),
        },
        summary=_summary(trace, rows, row, reason, after_s, other),
        evidence={
            "kind": reason.kind,
            "call": bind_names.call(row),
            "failures": len(rows),
            "pids": pids[:16],
            "processes": len(pids),
            "options": bind_names.options(row),
            "holders": [vars(each) for each in failed(history, row).holders],
            "holder_pid": holder.pid if holder else None,
            "facts": _facts(trace, row),
            "got_it_after_s": after_s,
            "went_on_with_port": other or None,
        },
        advice=reason.advice,
    )


# The failure of which most is known: who held the port may have been seen for some of them only.
def _best(history: History, rows: Binds) -> tuple[Reason, np.void]:
    known = [row for row in rows if bind_names.looked(history.trace, row)][:_LOOKED_AT]
    asked = [*known, rows[0]]
    reasons = [(explain(failed(history, row)), row) for row in asked]
    return max(reasons, key=lambda pair: pair[0].sure)


def _facts(trace: Trace, row: np.void) -> dict[str, object]:
    looked = bind_names.looked(trace, row)
    return dict(looked.facts) if looked else {}


# Did the same program get what it wanted later (seconds after the first failure), or another port?
def _went_on(trace: Trace, rows: Binds) -> tuple[float | None, int]:
    binds, last = trace.binds, rows[-1]
    later = binds[(binds["time_ns"] > last["time_ns"]) & (binds["errno"] == 0)]
    for name in ("call", "protocol", "netns"):
        later = later[later[name] == last[name]]
    mine = later[(later["comm"] == last["comm"]) & (later["uid"] == last["uid"])]
    same = mine[(mine["port_asked"] == last["port_asked"]) & _equal(mine["addr"], last["addr"])]
    if len(same) and last["port_asked"]:
        return (int(same["time_ns"][0]) - int(rows["time_ns"][0])) / 1e9, 0
    # another one in its place: by the same thread, at once
    other = mine[(mine["tid"] == last["tid"]) & (mine["port_asked"] != last["port_asked"])]
    other = other[other["time_ns"] - last["time_ns"] < SOON_NS]
    return None, int(other["port_got"][0]) if len(other) else 0


def _equal(addresses: npt.NDArray[np.void], one: np.void) -> npt.NDArray[np.bool_]:
    halves = np.ascontiguousarray(addresses).view("<u8").reshape(-1, 2)
    wanted = np.frombuffer(one.tobytes(), "<u8")
    same: npt.NDArray[np.bool_] = (halves == wanted).all(axis=1)
    return same


def _severity(trace: Trace, rows: Binds, reason: Reason, after_s: float | None, other: int) -> str:
    mine = reason.holder is not None and reason.holder.pid in rows["pid"]
    if other or (after_s is not None and after_s * 1e9 < SOON_NS):
        return "info"
    # One socket for both families, and a second one that is not needed: it serves all the same.
    if mine and reason.holder and ":" in reason.holder.address + bind_names.address(rows[-1]):
        return "info"
    if after_s is not None:
        return "warning"
    ended = trace.exits.get(int(rows["pid"][-1]), 0)
    gave_up = 0 <= ended - int(rows["time_ns"][-1]) < GAVE_UP_NS
    return "critical" if gave_up or len(rows) >= OFTEN else "warning"


def _summary(
    trace: Trace, rows: Binds, row: np.void, reason: Reason, after_s: float | None, other: int
) -> str:
    wanted = "listen on" if row["call"] == BindCall.listen else "bind"
    what = f"{bind_names.protocol(row)} {bind_names.local(row)}".strip()
    error = f"{bind_names.error(row)}, {bind_names.error_words(row)}"
    who = names.process(trace, int(row["pid"]))
    who = who if "(" in who else f"{names.comm(row)} ({who})"
    often = f" {len(rows)} times" if len(rows) > 1 else ""
    return f"{who} could not {wanted} {what}{often} ({error}). {reason.why}{_then(after_s, other)}"


def _then(after_s: float | None, other: int) -> str:
    if other:
        return f" It went on with port {other}."
    if after_s is None:
        return ""
    return f" It had it {names.duration(after_s * 1e9)} after the first failure."
