"""Attempts as one JSON object a line: the very objects that a live `--json` trace prints."""

import json
from collections.abc import Iterator

import numpy as np

from porttrace.analysis.model import Trace
from porttrace.analysis.render.report import attempt_json

_CHUNK = 4096  # lines that are written at once


def ndjson(trace: Trace) -> Iterator[bytes]:
    """Yield the lines of all attempts of `trace`, in the order of their first marks."""
    for at in range(0, len(trace.attempts), _CHUNK):
        rows = trace.attempts[at : at + _CHUNK]
        yield "".join(_line(trace, row) for row in rows).encode()


def _line(trace: Trace, row: np.void) -> str:
    known = trace.processes.get(int(row["pid"]))
    return (
        json.dumps({"type": "attempt", **attempt_json(row, known, trace.host.drop_reasons)}) + "\n"
    )
