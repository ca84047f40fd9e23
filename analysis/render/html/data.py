"""Everything a page shows, as plain values: JSON with inert strings and times from one zero.

Times are ns after the start of the trace, so that they stay exact in the browser's numbers on a
host that has been up for years. Every string passes `printable`, whoever made it.
"""

import errno
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from porttrace.analysis import ladder, names, summary
from porttrace.analysis.concurrency import resolved_ns
from porttrace.analysis.model import Attempts, Finding, Origin, Outcome, Party, Trace, start_ns
from porttrace.analysis.remarks import remarks
from porttrace.analysis.render.closing import level
from porttrace.analysis.render.escape import printable
from porttrace.analysis.render.html.binds import bind_values
from porttrace.analysis.render.html.lines import step_lines
from porttrace.analysis.render.html.links import links
from porttrace.analysis.render.html.selection import Selection, select
from porttrace.analysis.render.peace import nothing_found
from porttrace.analysis.render.report import finding_json

_MARKS = ("sleep_ns", "gate_ns", "call_ns", "syn_ns", "end_ns", "return_ns")
_NUMBERS = (
    "attempt_id",
    "pid",
    "tid",
    "uid",
    "sport",
    "origin",
    "outcome",
    "errno",
    "retransmits",
    "blocking",
    "in_flight_at_start",
    "demand_at_start",
)
_PROCESSES = 500  # rows of their table
_LOSSES = 500
_FRAMES = 16


def page_data(trace: Trace, findings: Sequence[Finding], title: str) -> dict[str, Any]:
    """Return what a page of `trace` and its `findings` shows."""
    shown = select(trace, findings)
    rows = trace.attempts[shown.rows]
    values = {
        "title": title or _title(trace),
        "trace": _about(trace),
        "trust": _trust(trace),
        "findings": [_finding(trace, finding) for finding in findings],
        "remarks": remarks(trace, findings),
        "nothing_found": nothing_found(trace),
        "outcomes": summary.by_outcome(trace.attempts),
        "outcome_names": [outcome.name for outcome in Outcome],
        "errno_names": {str(code): errno.errorcode.get(code, "") for code in _errnos(rows)},
        "origin_names": [origin.name for origin in Origin],
        "left_out": shown.left_out,
        "extent": _extent(trace, rows, shown),
        "window": shown.window and [t - trace.start_ns for t in shown.window],
        "focus": _focus(findings, shown),
        "pids": shown.pids,
        "attempts": _attempts(trace, rows),
        "binds": bind_values(trace, findings),
        "links": links(trace, findings),
        "steps": step_lines(trace.attempts, shown, trace.start_ns, trace.end_ns),
        "losses": [
            [loss.first_ns - trace.start_ns, loss.last_ns - trace.start_ns, loss.count]
            for loss in trace.losses[:_LOSSES]
        ],
        "ladder": _ladder(trace),
        **_processes(trace),
    }
    inert: dict[str, Any] = _inert(values)
    return inert


def _title(trace: Trace) -> str:
    what = "Connection attempts" if len(trace.attempts) or not len(trace.binds) else "Ports"
    return f"{what} on {trace.host.name}" if trace.host.name else ""


def _errnos(rows: Attempts) -> list[int]:
    codes: list[int] = np.unique(rows["errno"][rows["errno"] > 0]).tolist()
    return codes


def _about(trace: Trace) -> dict[str, Any]:
    return {
        "host": trace.host.name,
        "kernel": trace.host.kernel,
        "start": summary.began(trace),
        "duration_ns": trace.end_ns - trace.start_ns,
        "filter": trace.filter,
        "attempts": len(trace.attempts),
        "binds": len(trace.binds),
        "processes": len(np.unique(np.concatenate([trace.attempts["pid"], trace.binds["pid"]]))),
    }


def _trust(trace: Trace) -> dict[str, Any]:
    trust = summary.trust(trace)
    return {
        "duration_s": summary.duration_s(trace),
        "events": trust.events,
        "lost_events": trust.lost_events,
        "attempts_unknown": trust.attempts_unknown,
        "complete": trust.complete,
        "mode": trace.host.mode,
        "wire": trace.host.wire,
        "gates_seen": trace.gates_seen,
        "notes": trust.notes,
    }


def _finding(trace: Trace, finding: Finding) -> dict[str, Any]:
    return {
        **finding_json(finding),
        "level": level(finding),
        "victims": [_party(trace, party) for party in finding.victims],
        "blockers": [_party(trace, party) for party in finding.blockers],
    }


def _party(trace: Trace, party: Party) -> dict[str, Any]:
    return {**vars(party), "start_ns": party.start_ns - trace.start_ns}


def _extent(trace: Trace, rows: Attempts, shown: Selection) -> list[int]:
    # Of what is drawn; where something is left out, of the whole trace.
    if shown.left_out or not len(rows):
        return [0, max(1, trace.end_ns - trace.start_ns)]
    begin = int(start_ns(rows).min()) - trace.start_ns
    end = int(resolved_ns(rows, trace.end_ns).max()) - trace.start_ns
    return [begin, max(end, begin + 1)]


def _focus(findings: Sequence[Finding], shown: Selection) -> int | None:
    # The one process that the gravest finding is about; None: look at all of them.
    if not findings or not shown.pids or findings[0].severity == "info":
        return None
    pids = findings[0].subject.get("pids", ())
    several = isinstance(pids, list | tuple) and len(pids) > 1
    return None if several else shown.pids[0]


def _attempts(trace: Trace, rows: Attempts) -> dict[str, Any]:
    """Return the attempts shown by column; a mark that is not there is null."""
    comm, threads = _numbered([names.comm(row) for row in rows])
    destination, destinations = _numbered([names.destination(row) for row in rows])
    marks = {mark: _mark(rows[mark], trace.start_ns) for mark in _MARKS}
    return {
        **{name: rows[name].astype(np.int64).tolist() for name in _NUMBERS},
        **marks,
        "complete": rows["complete"].astype(int).tolist(),
        "begin": (start_ns(rows) - trace.start_ns).tolist(),
        "over": (resolved_ns(rows, trace.end_ns) - trace.start_ns).tolist(),
        "comm": comm,
        "destination": destination,
        "gate_stack": rows["gate_stack"].tolist(),
        "threads": threads,
        "destinations": destinations,
        "stacks": {
            str(key): trace.stacks[key][:_FRAMES]
            for key in np.unique(rows["gate_stack"]).tolist()
            if key in trace.stacks
        },
    }


def _mark(times: np.ndarray, begin_ns: int) -> list[int | None]:
    return [time - begin_ns if time else None for time in times.tolist()]


def _numbered(values: Sequence[str]) -> tuple[list[int], list[str]]:
    known: dict[str, int] = {}
    return [known.setdefault(value, len(known)) for value in values], list(known)


def _ladder(trace: Trace) -> dict[str, Any]:
    own = ladder.of_host(trace.host.sysctls)
    return {
        "rungs_s": own.rungs_s,
        "give_up_s": own.give_up_s,
        "known": any(name.endswith("tcp_syn_retries") for name in trace.host.sysctls),
    }


def _processes(trace: Trace) -> dict[str, Any]:
    # No command lines: a report is passed on, and they may hold passwords.
    table = summary.process_table(trace)
    rows = table.head(_PROCESSES).to_dict("records")
    for row in rows:
        known = trace.processes.get(int(row["pid"]))
        row["user"] = known.user if known else ""
        row["inside"] = names.inside(known)
        row["container"] = known.container if known else ""
    return {"processes": rows, "processes_left_out": len(table) - len(rows)}


def _inert(value: Any) -> Any:
    # Strings made printable, numpy's numbers Python's, and null for what is no number.
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _inert(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_inert(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
