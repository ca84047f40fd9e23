"""Attempts as spans of OpenTelemetry: a CLIENT span each, with a child for each hold.

    192.0.2.2:389                       client span: from the first mark to the outcome
      gate, connect, egress, ...        internal spans: where it stood still for 10 ms or more

Every attempt is a trace of its own. Names are those of the semantic conventions where there is
one; what is porttrace's alone begins with `porttrace.`. The numbers of spans are made from the
recording, so that what is exported twice is the same twice, and not more.

Spans are made by hand, not by a tracer of the SDK: its sampler, limits and off switch, which
variables of the environment set, are about programs that run now, and not about what was recorded.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

import numpy as np
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from porttrace.analysis import concurrency, names
from porttrace.analysis.holds import HELD_NS, ON_THE_WAY, PLACES, spans
from porttrace.analysis.model import Attempts, Finding, Origin, Outcome, Process, Trace, start_ns
from porttrace.analysis.render.escape import valid
from porttrace.analysis.top import in_order

BATCH = 512
"""So many spans are made, and can be sent, at once; a hold of one attempt may add a few."""
SYN_SENT = "syn_sent"
"""The place from SYN to outcome, where the wire was not watched: its parts are not known."""
_OPEN = (Outcome.pending, Outcome.unknown)
_Value = str | int | float | bool
_Values = Mapping[str, _Value]


def batches(trace: Trace, findings: Sequence[Finding] = ()) -> Iterator[list[ReadableSpan]]:
    """Yield the spans of all attempts, in order of their beginnings, about `BATCH` at a time."""
    making = _Making(trace, findings)
    made: list[ReadableSpan] = []
    for at in range(0, len(trace.attempts), BATCH):
        for each in making.spans(trace.attempts[at : at + BATCH]):
            made.append(each)
            if len(made) >= BATCH:
                yield made
                made = []
    if made:
        yield made


def json_lines(made: Iterable[Sequence[ReadableSpan]]) -> Iterator[bytes]:
    """Yield batches of spans as OTLP/JSON, a line each, as a collector's otlpjsonfile reads it."""
    from google.protobuf.json_format import MessageToDict

    for batch in made:
        value = MessageToDict(encode_spans(batch), use_integers_for_enums=True)
        for part in value["resourceSpans"]:
            for scope in part["scopeSpans"]:
                for span, each in zip(scope["spans"], batch, strict=True):
                    span |= _hexadecimal(each)
        yield json.dumps(value).encode() + b"\n"


def _hexadecimal(span: ReadableSpan) -> dict[str, str]:
    # OTLP writes the numbers in hexadecimal, where protobuf's JSON has bytes in base64.
    context = span.get_span_context()
    assert context  # ours have one
    ids = {"traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}"}
    return ids | ({"parentSpanId": f"{span.parent.span_id:016x}"} if span.parent else {})


class _Making:
    # Spans of one trace: what all have in common is made once.
    def __init__(self, trace: Trace, findings: Sequence[Finding]) -> None:
        self._trace = trace
        self._roles = _roles(findings)
        self._resource = Resource(_resource(trace))
        self._scope = InstrumentationScope("porttrace", version("porttrace"))
        origin = f"{trace.host.name}\0{trace.start_ns + trace.wall_offset_ns}".encode()
        self._origin = hashlib.sha256(origin)

    def spans(self, rows: Attempts) -> Iterator[ReadableSpan]:
        """Yield the spans of some attempts: of each its own first, then its holds."""
        holds = _holds(rows, self._trace.end_ns)
        begin, end = _ends(rows, self._trace)
        for at, row in enumerate(rows):
            stood = {
                name: (int(start[at]), int(stop[at]))
                for name, (start, stop) in holds.items()
                if stop[at] > start[at]
            }
            times = int(begin[at]), max(int(end[at]), *(stop for _, stop in stood.values()), 0)
            yield from self._attempt(row, stood, times)

    def _attempt(
        self, row: np.void, stood: Mapping[str, tuple[int, int]], times: tuple[int, int]
    ) -> Iterator[ReadableSpan]:
        known = self._trace.processes.get(int(row["pid"])) or Process(0)
        number = int(row["attempt_id"])
        roles = self._roles.get(number, {})
        values = {**_attributes(row), **_caller(row, known), **_waits(stood), **roles}
        context = self._context(number, "")
        name, status = names.destination(row), _status(row)
        yield self._span(name, context, None, SpanKind.CLIENT, values, status, times)
        for place, span in stood.items():
            if span[1] - span[0] >= HELD_NS and place != "user":
                inner = self._context(number, place)
                told = {"porttrace.place": place}
                yield self._span(place, inner, context, SpanKind.INTERNAL, told, Status(), span)

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        values: _Values,
        status: Status,
        times: tuple[int, int],
    ) -> ReadableSpan:
        start, end = (time + self._trace.wall_offset_ns for time in times)
        return ReadableSpan(
            name, context, parent, self._resource, values, kind=kind, status=status,
            start_time=start, end_time=end, instrumentation_scope=self._scope,
        )  # fmt: skip

    def _context(self, number: int, place: str) -> SpanContext:
        of_attempt = self._origin.copy()
        of_attempt.update(f"\0{number}".encode())
        of_span = of_attempt.copy()
        of_span.update(f"\0{place}".encode())
        trace_id = int.from_bytes(of_attempt.digest()[:16])
        span_id = int.from_bytes(of_span.digest()[:8])
        return SpanContext(trace_id, span_id, False, TraceFlags(TraceFlags.SAMPLED))


def _resource(trace: Trace) -> _Values:
    return {
        "service.name": "porttrace",
        "service.version": version("porttrace"),
        "host.name": valid(trace.host.name),
        "os.type": "linux",
        "os.version": trace.host.kernel,
        "porttrace.mode": trace.host.mode,
        "porttrace.filter": valid(trace.filter),
    }


def _roles(findings: Sequence[Finding]) -> dict[int, _Values]:
    # By attempt: what the worst finding says of it.
    roles: dict[int, _Values] = {}
    for finding in in_order(findings):
        told: _Values = {
            "porttrace.finding": finding.rule,
            "porttrace.confidence": round(finding.confidence, 3),
            "porttrace.place": finding.place,
            "porttrace.scope": finding.scope,
            "porttrace.mechanism": finding.mechanism,
            "porttrace.slots": finding.slots,
        }
        known = {name: value for name, value in told.items() if value}
        for role, parties in (("waited", finding.victims), ("in_front", finding.blockers)):
            for party in parties:
                roles.setdefault(party.attempt_id, {**known, "porttrace.role": role})
    return roles


# Of each place: when each attempt stood there, ns; start == stop where it did not.
def _holds(rows: Attempts, end_ns: int) -> dict[str, tuple[concurrency.Ints, concurrency.Ints]]:
    places = {place: spans(rows, place, end_ns) for place in PLACES}
    beyond = places.pop("beyond")
    on_the_way = np.sum([places[name].lengths() for name in ON_THE_WAY], axis=0)
    found = {place: (each.start, each.stop) for place, each in places.items()}
    # The wire tells more.
    found[SYN_SENT] = beyond.start, np.where(on_the_way > 0, beyond.start, beyond.stop)
    return found


def _ends(rows: Attempts, trace: Trace) -> tuple[concurrency.Ints, concurrency.Ints]:
    over = concurrency.resolved_ns(rows, trace.end_ns)
    over = np.where(over > 0, over, trace.end_ns)
    # One that was under way before the trace began has no first mark that is known.
    seeded = rows["origin"] == Origin.seeded
    begin = np.where(seeded, trace.start_ns, start_ns(rows))
    return np.minimum(begin, over), over


def _waits(stood: Mapping[str, tuple[int, int]]) -> _Values:
    return {f"porttrace.wait.{place}_ns": stop - start for place, (start, stop) in stood.items()}


def _attributes(row: np.void) -> _Values:
    address = names.plain_address(row["daddr"].tobytes())
    values: dict[str, _Value] = {
        "network.transport": "tcp",
        "network.type": "ipv4" if row["family"] == 2 else "ipv6",
        "network.peer.address": address,
        "network.peer.port": int(row["dport"]),
        "server.address": address,
        "server.port": int(row["dport"]),
        "process.pid": int(row["pid"]),
        "thread.name": valid(names.comm(row)),
        "porttrace.attempt_id": int(row["attempt_id"]),
        "porttrace.outcome": Outcome(int(row["outcome"])).name,
        "porttrace.origin": Origin(int(row["origin"])).name,
        "porttrace.retransmits": int(row["retransmits"]),
        "porttrace.in_flight_at_start": int(row["in_flight_at_start"]),
        "porttrace.demand_at_start": int(row["demand_at_start"]),
        "porttrace.complete": bool(row["complete"]),
    }
    return {**values, **_where(row), **_error(row)}


def _caller(row: np.void, known: Process) -> _Values:
    told: _Values = {
        "process.executable.name": os.path.basename(known.exe) or known.comm,
        "process.executable.path": known.exe,
        "process.owner": known.user,
        "thread.id": int(row["tid"]),
        "container.id": known.container,
        "container.name": known.container_name if known.container else "",
    }
    return {
        name: valid(value) if isinstance(value, str) else value
        for name, value in told.items()
        if value
    }


def _where(row: np.void) -> _Values:
    # Our own end, once a port was chosen; the ends on the wire where NAT made them others.
    values: dict[str, _Value] = {}
    for name, side in (("network.local", "s"), ("porttrace.wire.peer", "wire_d")):
        port = int(row[f"{side}port"])
        if port:
            address = names.plain_address(row[f"{side}addr"].tobytes())
            values |= {f"{name}.address": address, f"{name}.port": port}
    return values


def _error(row: np.void) -> _Values:
    outcome, number = Outcome(int(row["outcome"])), int(row["errno"])
    if outcome == Outcome.established or outcome in _OPEN:
        return {}
    return {"error.type": errno.errorcode.get(number, str(number)) if number else outcome.name}


def _status(row: np.void) -> Status:
    outcome = Outcome(int(row["outcome"]))
    if outcome == Outcome.established or outcome in _OPEN:
        return Status()
    return Status(StatusCode.ERROR, outcome.name)
