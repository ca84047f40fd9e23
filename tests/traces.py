"""Traces and recordings of a story, without a file between."""

from typing import Any

from builders import NEVER, S
from porttrace.analysis.assemble import assemble, losses_of
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.model import Trace, no_attempts
from porttrace.analysis.recording import Recording
from porttrace.tracer.beside import TraceHeader
from porttrace.tracer.event import Events


def trace_of(table: Events, end_ns: int = 100 * S, **about: Any) -> Trace:
    """Return the trace of some events, from 0 to `end_ns`; `about` are other fields of it."""
    rows, carried = step(table, Open(), NEVER)
    known = {"losses": losses_of(table), "events": len(table), **about}
    return assemble(Trace(no_attempts(), 0, end_ns, **known), [rows], carried)


def recording_of(table: Events, **about: Any) -> Recording:
    """Return a complete recording of some events; its file is not there."""
    return Recording("nowhere", TraceHeader(0), trace_of(table, **about), True, "")
