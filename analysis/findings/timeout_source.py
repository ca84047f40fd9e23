"""Rule `timeout-source`: whose timer ended the waits in SYN_SENT?

The kernel's ladder, TCP_SYNCNT, TCP_USER_TIMEOUT, SO_SNDTIMEO, the neighbour table, or the
application: each leaves another combination of outcome, call and length. Only equal waits are
one timer's; what a process left open when it ended, or closed all at once, is nobody's.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.findings.closing import AT_ONCE_NS, among_others, with_process
from porttrace.analysis.findings.sources import (
    Source,
    kernel_source,
    no_timer,
    program_source,
    sndtimeo_source,
)
from porttrace.analysis.findings.timers import alike, clusters, middle, round_s, split
from porttrace.analysis.holds import spans
from porttrace.analysis.ladder import of_host
from porttrace.analysis.model import Attempts, Columns, Finding, Origin, Outcome, Trace
from porttrace.analysis.rows import take

RULE = "timeout-source"
_SLOW_NS = 500_000_000
_Case = tuple[int, str, Ints]
_ENDED = (Outcome.timed_out, Outcome.cancelled, Outcome.unreachable)


def timeout_source(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Tell whose timer ended the waits: one finding per process, destination, source and length."""
    attempts = trace.columns
    waits = spans(attempts, "beyond", trace.end_ns)
    lengths = waits.lengths()
    cancelled = waits.closed & (attempts["outcome"] == Outcome.cancelled)
    cancelled &= ~with_process(trace)
    slow = waits.closed & (lengths >= _SLOW_NS) & np.isin(attempts["outcome"], _ENDED)
    slow &= cancelled | (attempts["outcome"] != Outcome.cancelled)
    slow &= attempts["origin"] != Origin.seeded  # for how long they had waited is not known
    crowded = _crowded(attempts, cancelled, lengths)
    by_kernel, by_caller = (np.flatnonzero(slow & mask) for mask in (~cancelled, cancelled))
    cases = [*_cases(trace, by_caller)]
    in_call = np.zeros(len(attempts), np.int64)
    in_call[by_caller] = _in_call_ns(take(trace.attempts, by_caller))
    return [
        *_of_kernel(trace, by_kernel, lengths),
        *_of_sndtimeo(trace, cases, lengths, in_call),
        *_of_application(trace, cases, lengths, crowded, in_call),
    ]


def _crowded(attempts: Columns, cancelled: Bools, lengths: Ints) -> Bools:
    rows = np.flatnonzero(cancelled)
    crowded = np.zeros(len(attempts), np.bool_)
    pid, end = attempts["pid"][rows].astype(np.int64), attempts["end_ns"][rows]
    crowded[rows] = among_others(pid, end, lengths[rows])
    return crowded


# The rows of each process and destination, in the order of the first of each.
def _cases(trace: Trace, rows: Ints) -> Iterator[_Case]:
    pid, to = trace.columns["pid"][rows], scope_keys(trace.columns, "destination")[rows]
    order = np.lexsort((to, pid))
    pid, to = pid[order], to[order]
    borders = np.flatnonzero((pid[1:] != pid[:-1]) | (to[1:] != to[:-1])) + 1
    cases = np.split(rows[order], borders) if len(rows) else []
    for found in sorted(cases, key=lambda case: int(case[0])):
        first = trace.attempts[found[0]]
        yield int(first["pid"]), names.destination(first), found


def _of_kernel(trace: Trace, rows: Ints, lengths: Ints) -> Iterator[Finding]:
    sysctls = trace.host.sysctls
    for pid, to, mine in _cases(trace, rows):
        by_source: dict[Source, list[int]] = defaultdict(list)
        for row in mine.tolist():
            outcome = Outcome(int(trace.attempts["outcome"][row]))
            by_source[kernel_source(sysctls, int(lengths[row]) / 1e9, outcome)].append(row)
        for source, found in by_source.items():
            waits = lengths[found]
            for group in _by_length(source, waits):
                yield _finding(trace, pid, to, source, waits[group])


# A host sets one ladder, but each socket its own TCP_USER_TIMEOUT.
def _by_length(source: Source, waits: Ints) -> list[Ints]:
    if source.name != "tcp-user-timeout":
        return [np.arange(len(waits))]
    parts = split(waits)
    return [*parts.timers, parts.others] if len(parts.others) else [*parts.timers]


# A blocking connect that returns before its socket leaves SYN_SENT was let go by SO_SNDTIMEO (or
# by a signal, which has no reason to come at a round time).
def _in_call_ns(attempts: Attempts) -> Ints:
    called = attempts["call_ns"].astype(np.int64)
    returned = attempts["return_ns"].astype(np.int64)
    early = (attempts["blocking"] == 1) & (called > 0) & (called < returned)
    early &= returned < attempts["end_ns"]
    in_call = np.where(early, returned - called, 0)
    for row in np.flatnonzero(in_call).tolist():
        length = int(in_call[row])
        if length < _SLOW_NS or not round_s(length / 1e9) > 0:
            in_call[row] = 0
    return in_call


def _of_sndtimeo(
    trace: Trace, cases: Sequence[_Case], lengths: Ints, in_call: Ints
) -> Iterator[Finding]:
    for pid, to, found in cases:
        mine = found[in_call[found] > 0]
        for group in clusters(in_call[mine]):
            source = sndtimeo_source(in_call[mine[group]])
            yield _finding(trace, pid, to, source, lengths[mine[group]])


def _of_application(
    trace: Trace, cases: Sequence[_Case], lengths: Ints, crowded: Bools, in_call: Ints
) -> Iterator[Finding]:
    ends = trace.columns["end_ns"]
    for pid, to, found in cases:
        mine = found[in_call[found] == 0]
        mine = mine[_own_end(lengths[mine], ends[mine], crowded[mine])]
        waits = lengths[mine]
        parts = split(waits)
        for group in parts.timers:
            yield _finding(trace, pid, to, program_source(waits[group]), waits[group])
        if len(parts.others):
            rest = waits[parts.others]
            yield _finding(trace, pid, to, no_timer(len(rest)), rest)


# Sockets of a process that are closed together after different waits have no timer in common,
# unless the same length comes again at another time.
def _own_end(waits: Ints, ends: Ints, crowded: Bools) -> Bools:
    own = np.ones(len(waits), np.bool_)
    if not crowded.any():
        return own
    for group in clusters(waits):
        if crowded[group].all() and int(np.ptp(ends[group])) <= AT_ONCE_NS:
            own[group] = False
    return own


def _finding(trace: Trace, pid: int, to: str, source: Source, waits: Ints) -> Finding:
    number = names.count(len(waits), "attempt")
    return Finding(
        rule=RULE,
        severity="info",
        confidence=source.confidence,
        subject={"pid": pid, "destination": to, "source": source.name},
        summary=(
            f"{number} of {names.process(trace, pid)} to {to} waited {_length(waits)} without an"
            f" answer: {source.why}."
        ),
        evidence={
            "source": source.name,
            "attempts": len(waits),
            "median_wait_s": middle(waits) / 1e9,
            "ladder_s": list(of_host(trace.host.sysctls).rungs_s),
            "give_up_s": of_host(trace.host.sysctls).give_up_s,
        },
    )


def _length(waits: Ints) -> str:
    shortest, longest = waits.min(), waits.max()
    if alike(shortest, longest):
        return names.duration(middle(waits))
    return f"{names.duration(float(shortest))} to {names.duration(float(longest))}"
