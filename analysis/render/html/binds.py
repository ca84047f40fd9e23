"""The calls of bind(2) and listen(2) that a page shows, as plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from porttrace.analysis import bind_names, names
from porttrace.analysis.bind_told import Told, Words
from porttrace.analysis.findings.bind_conflict import RULE
from porttrace.analysis.model import BindCall, Finding, Trace

MOST = 2_000
"""So many calls that failed are shown, the first ones, and as many that worked."""
_HOLDERS = 6  # of one call


def bind_values(trace: Trace, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return how many calls there were, and those that are shown, in order of time.

    `finding` of one that failed is the place among `findings` of the one about it, or None.
    """
    bad = trace.binds["errno"] > 0
    shown = np.sort(np.concatenate([np.flatnonzero(each)[:MOST] for each in (bad, ~bad)]))
    rows, told = trace.binds[shown], Told(trace)
    callers = {pid: names.process(trace, pid) for pid in np.unique(rows["pid"]).tolist()}
    about = _about(findings)
    return {
        "failed": int(bad.sum()),
        "worked": int((~bad).sum()),
        "rows": [
            {**_row(trace, row, callers, words), "finding": _finding(about, row)}
            for row, words in zip(rows, told.of(rows), strict=True)
        ],
    }


def _row(trace: Trace, row: np.void, callers: dict[int, str], words: Words) -> dict[str, Any]:
    caller = callers[int(row["pid"])]
    got, asked = int(row["port_got"]), int(row["port_asked"])
    return {
        "at": int(row["time_ns"]) - trace.start_ns,
        "process": caller if "(" in caller else f"{names.comm(row)} ({caller})",
        "user": bind_names.user(trace, row) or str(int(row["uid"])),
        "call": f"{bind_names.call(row)} {bind_names.protocol(row)}".strip(),
        "asked": _asked(row),
        "options": bind_names.options(row),
        "got": got if got != asked and row["errno"] == 0 else 0,
        "error": bind_names.error(row),
        "said": bind_names.error_words(row) if row["errno"] else "",
        "held": _held(words[0]),
    }


def _asked(row: np.void) -> str:
    if row["call"] == BindCall.autobind:
        return f"any port to {names.destination(row)}"
    return bind_names.local(row)


def _held(holders: Sequence[str]) -> list[str]:
    more = len(holders) - _HOLDERS
    rest = [f"and {names.count(more, 'more socket')}"] if more > 0 else []
    return [*holders[:_HOLDERS], *rest]


_About = dict[tuple[object, ...], list[tuple[int, frozenset[int]]]]


def _about(findings: Sequence[Finding]) -> _About:
    found: _About = {}
    for number, each in enumerate(findings):
        if each.rule == RULE:
            about = each.subject
            key = about["errno"], about["protocol"], about["address"], about["port"]
            pids = each.evidence["pids"]
            assert isinstance(pids, list)
            found.setdefault((each.evidence["call"], *key), []).append((number, frozenset(pids)))
    return found


# Of several alike (users, namespaces) the one that names the process; none where that is open.
def _finding(about: _About, row: np.void) -> int | None:
    if not row["errno"] or row["call"] == BindCall.autobind:
        return None
    key = (
        bind_names.call(row), bind_names.error(row), bind_names.protocol(row),
        bind_names.address(row), int(row["port_asked"]),
    )  # fmt: skip
    found = about.get(key, [])
    mine = [number for number, pids in found if int(row["pid"]) in pids]
    if len(mine) == 1:
        return mine[0]
    return found[0][0] if len(found) == 1 else None
