"""Which attempts a page shows, and in plain words what it leaves out.

A trace of up to `MOST` attempts is shown whole. Of a longer one the processes that the findings
name are shown, or else the busiest, near the longest wait; every attempt that a finding names
is shown in any case.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Bools, Ints, resolved_ns
from porttrace.analysis.model import Finding, Trace, start_ns

MOST = 10_000
"""So many attempts a page shows around the longest wait."""


@dataclass(frozen=True)
class Selection:
    """What is shown of a trace.

    `rows` are indices into its attempts, in order. `pids` are the processes shown, those that the
    findings name first, then the busiest. `window` (ns) is the stretch around the longest wait that
    is shown without gaps, None if nothing of these processes is left out.
    """

    rows: Ints
    pids: tuple[int, ...]
    window: tuple[int, int] | None = None
    left_out: tuple[str, ...] = ()


def select(trace: Trace, findings: Sequence[Finding]) -> Selection:
    """Return what a page of `trace` shows."""
    pids = _by_importance(trace, findings)
    if len(trace.attempts) <= MOST:
        return Selection(np.arange(len(trace.attempts)), pids)
    matter = tuple(dict.fromkeys(_pids_of(findings))) or pids[:1]
    return _cut(trace, findings, tuple(pid for pid in pids if pid in matter))


def _by_importance(trace: Trace, findings: Sequence[Finding]) -> tuple[int, ...]:
    pids, counts = np.unique(trace.attempts["pid"], return_counts=True)
    busiest = pids[np.argsort(-counts, kind="stable")].tolist()
    there = set(busiest)
    named = [pid for pid in _pids_of(findings) if pid in there]
    return tuple(dict.fromkeys([*named, *busiest]))


def _pids_of(findings: Sequence[Finding]) -> Iterator[int]:
    for finding in findings:
        subject = finding.subject.get("pids", (finding.subject.get("pid"),))
        if isinstance(subject, list | tuple):
            yield from (int(pid) for pid in subject if pid is not None)
        yield from (party.pid for party in (*finding.victims, *finding.blockers))


def named_rows(trace: Trace, findings: Sequence[Finding]) -> Bools:
    """Tell which attempts of `trace` some finding names."""
    parties = (p for f in findings for p in (*f.victims, *f.blockers))
    return np.isin(trace.attempts["attempt_id"], [party.attempt_id for party in parties])


def _cut(trace: Trace, findings: Sequence[Finding], pids: tuple[int, ...]) -> Selection:
    named = named_rows(trace, findings)
    mine = np.isin(trace.attempts["pid"], pids)
    begin, end = start_ns(trace.attempts), resolved_ns(trace.attempts, trace.end_ns)
    candidates = np.flatnonzero(mine)
    near = candidates
    window = None
    if len(candidates) > MOST:
        centre = _longest_wait(trace, findings, candidates)
        gap = np.maximum(begin - end[centre], begin[centre] - end)[candidates]
        from_release = np.abs(begin[candidates] - end[centre])
        near = candidates[np.lexsort((from_release, np.maximum(gap, 0)))[:MOST]]
        window = _whole_stretch(begin, end, np.setdiff1d(candidates, near), int(end[centre]))
    chosen = named.copy()
    chosen[near] = True
    rows = np.flatnonzero(chosen)
    shown = Selection(rows, pids, window)
    return replace(shown, left_out=tuple(_left_out(trace, findings, shown, len(near))))


def _longest_wait(trace: Trace, findings: Sequence[Finding], candidates: Ints) -> int:
    # The worst victim of the gravest finding; without one, whatever took longest.
    ids = [party.attempt_id for f in findings for party in (f.victims or f.blockers)[:1]]
    found = np.flatnonzero(trace.attempts["attempt_id"] == ids[0]) if ids else np.empty(0, int)
    if len(found):
        return int(found[0])
    begin, end = start_ns(trace.attempts), resolved_ns(trace.attempts, trace.end_ns)
    return int(candidates[np.argmax((end - begin)[candidates])])


def _whole_stretch(begin: Ints, end: Ints, missing: Ints, centre_ns: int) -> tuple[int, int]:
    # Around the centre, up to the nearest attempt on either side that is not shown.
    before, after = end[missing], begin[missing]
    start = int(before[before < centre_ns].max(initial=int(begin.min())))
    stop = int(after[after > centre_ns].min(initial=int(end.max())))
    return start, stop


def _left_out(
    trace: Trace, findings: Sequence[Finding], shown: Selection, near: int
) -> Iterator[str]:
    total, number = len(trace.attempts), len(shown.rows)
    made = int(np.isin(trace.attempts["pid"], shown.pids).sum())
    whole = names.count(total, "attempt", f"{total:,}")
    yield f"This page shows {number:,} of the {whole} of the trace."
    yield f"{_who(trace, findings, shown)} made {made:,}: {_which(trace, shown, near)}."
    if total > made:
        others = len(np.unique(trace.attempts["pid"])) - len(shown.pids)
        of = "another process" if others == 1 else f"{others:,} other processes"
        rest = total - made
        are = "is" if rest == 1 else "are"
        yield f"{names.count(rest, 'attempt', f'{rest:,}')} of {of} {are} only counted."
    yield "Outcomes, the table of processes and the step lines count what is not shown, too."


def _who(trace: Trace, findings: Sequence[Finding], shown: Selection) -> str:
    named = any(_pids_of(findings))
    if len(shown.pids) > 1:
        return f"The {len(shown.pids):,} processes that findings name"
    which = "which findings name" if named else "which made the most"
    return f"Process {names.process(trace, shown.pids[0])}, {which},"


def _which(trace: Trace, shown: Selection, near: int) -> str:
    if shown.window is None:
        return "all of them are shown"
    start_s, stop_s = ((time - trace.start_ns) / 1e9 for time in shown.window)
    more = len(shown.rows) - near
    also = f", and {more:,} more that findings name" if more else ""
    return (
        f"shown are the {near:,} around the longest wait, without gaps from {start_s:.3f} s "
        f"to {stop_s:.3f} s{also}"
    )
