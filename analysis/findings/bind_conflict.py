"""Rule `bind-conflict`: a program could not have its port or address: what stands in the way.

Calls that fail alike are one finding, also those of a service that is started again and again. A
program that goes on with a port near by, or gets this one a moment later, is only noted.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from porttrace.analysis import bind_names, names
from porttrace.analysis.bind_failed import History, Reason, failed
from porttrace.analysis.bind_reasons import explain
from porttrace.analysis.findings.bind_after import After, after
from porttrace.analysis.model import BindCall, Binds, Finding, Trace

RULE = "bind-conflict"
OFTEN = 3
"""So many failures alike are a program that tries again and does not get through."""
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
    then = after(trace, rows)
    holder = reason.holder
    return Finding(
        rule=RULE,
        severity=_severity(rows, reason, then),
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
        summary=_summary(trace, rows, row, reason, then),
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
            "got_it_after_s": then.got_it_s,
            "went_on_with_port": then.other or None,
            "runs_on_without": then.runs_on and not _serves_both(rows, reason),
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


# The holder is the caller itself, and one of the two sockets takes both families: it serves all the
# same without the second.
def _serves_both(rows: Binds, reason: Reason) -> bool:
    holder = reason.holder
    mine = holder is not None and holder.pid in rows["pid"]
    return bool(mine and holder and ":" in holder.address + bind_names.address(rows[-1]))


def _severity(rows: Binds, reason: Reason, then: After) -> str:
    if then.is_harmless or _serves_both(rows, reason):
        return "info"
    if then.got_it_s is not None:
        return "warning"
    return "critical" if then.gave_up or len(rows) >= OFTEN else "warning"


def _summary(trace: Trace, rows: Binds, row: np.void, reason: Reason, then: After) -> str:
    wanted = "listen on" if row["call"] == BindCall.listen else "bind"
    what = f"{bind_names.protocol(row)} {bind_names.local(row)}".strip()
    error = f"{bind_names.error(row)}, {bind_names.error_words(row)}"
    who = names.process(trace, int(row["pid"]))
    who = who if "(" in who else f"{names.comm(row)} ({who})"
    often = f" {len(rows)} times" if len(rows) > 1 else ""
    said = f"{who} could not {wanted} {what}{often} ({error}). {reason.why}"
    return said if _serves_both(rows, reason) else f"{said}{_then(row, then)}"


def _then(row: np.void, then: After) -> str:
    if then.other:
        return f" It went on with port {then.other}."
    if then.got_it_s is not None:
        return f" It had it {names.duration(then.got_it_s * 1e9)} after the first failure."
    what = "this port" if row["port_asked"] else "a port"
    return f" {names.comm(row)} runs on without {what}." if then.runs_on else ""
