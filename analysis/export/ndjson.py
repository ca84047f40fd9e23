"""Attempts and binds, a JSON object a line: the very objects that a live `--json` trace prints."""

import json
from collections.abc import Iterator

import numpy as np

from porttrace.analysis import bind_names
from porttrace.analysis.model import Trace
from porttrace.analysis.render.report import attempt_json, bind_json

_CHUNK = 4096  # lines that are written at once


def ndjson(trace: Trace) -> Iterator[bytes]:
    """Yield the lines of all attempts of `trace`, then of its binds, each in order of time."""
    for at in range(0, len(trace.attempts), _CHUNK):
        rows = trace.attempts[at : at + _CHUNK]
        yield "".join(_line(trace, row) for row in rows).encode()
    for at in range(0, len(trace.binds), _CHUNK):
        yield "".join(_bind_line(trace, row) for row in trace.binds[at : at + _CHUNK]).encode()


def _bind_line(trace: Trace, row: np.void) -> str:
    known = trace.processes.get(int(row["pid"]))
    value = bind_json(row, known, bind_names.looked(trace, row))
    return json.dumps({"type": "bind", **value}) + "\n"


def _line(trace: Trace, row: np.void) -> str:
    known = trace.processes.get(int(row["pid"]))
    return (
        json.dumps({"type": "attempt", **attempt_json(row, known, trace.host.drop_reasons)}) + "\n"
    )
