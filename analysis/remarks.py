"""What stands out in a trace without being a finding: long waits that no rule explains.

Nothing is worse than "nothing wrong" above a wait of seconds. A remark says what was
seen, and what to look at or trace next; it claims no cause.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Ints
from porttrace.analysis.holds import ON_THE_WAY, spans
from porttrace.analysis.model import Finding, Outcome, Trace
from porttrace.analysis.rows import take
from porttrace.analysis.stacks import held_in

_HELD_NS = 100_000_000
_SLOW_NS = 1_000_000_000
_LOST = ("syn-lost", "accept-queue")


def remarks(trace: Trace, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return plain sentences on long waits that `findings` leave unexplained."""
    if not len(trace.attempts):
        return ()
    return (*_held(trace, findings), *_slow(trace, findings), *_unanswered(trace, findings))


def _held(trace: Trace, findings: Sequence[Finding]) -> Iterator[str]:
    explained = _explained_pids(findings)
    for place in ("gate", "connect"):
        length = spans(trace.columns, place, trace.end_ns).lengths()
        held = np.flatnonzero(length >= _HELD_NS)
        held = held[~np.isin(trace.columns["pid"][held], explained)]
        if len(held):
            yield _held_sentence(trace, place, held, int(length[held].max()))


def _explained_pids(findings: Sequence[Finding]) -> list[int]:
    pids: set[int] = set()
    for finding in findings:
        if finding.rule in ("serialized-connects", "paced-connects"):
            pids.update(finding.pids())
    return sorted(pids)


def _held_sentence(trace: Trace, place: str, held: Ints, worst_ns: int) -> str:
    rows = take(trace.attempts, held)
    where = {"gate": "before the kernel started them (gate)",
             "connect": "inside the kernel's connect (connect)"}[place]  # fmt: skip
    number, were = len(rows), "was" if len(rows) == 1 else "were"
    stack = held_in(rows, place, trace.stacks)
    inside = f", in {stack[0]}" if stack else ""
    said = (
        f"{names.count(number, 'connect')} {were} held {where}, up to {names.duration(worst_ns)}"
        f"{inside}. This trace does not show behind what."
    )
    waiting = bool((rows["outcome"] == Outcome.pending).any())
    return f"{said} {_next_step(trace, waiting)}"


def _next_step(trace: Trace, waiting: bool) -> str:
    if trace.filter and not trace.filter.startswith("pid"):
        return f"The filter ({trace.filter}) may hide it: trace again with --pid alone."
    if "," in trace.filter:
        return f"The filter ({trace.filter}) may hide it: leave out all but the pid."
    longer = "Trace for longer, until some of them have gone on" if waiting else "Trace once more"
    return f"{longer}; other processes may be in front."


def _slow(trace: Trace, findings: Sequence[Finding]) -> Iterator[str]:
    rows = trace.columns
    done = (rows["outcome"] == Outcome.established) & (rows["syn_ns"] > 0)
    took_ns = np.where(done, rows["end_ns"] - rows["syn_ns"], 0)
    late = (f for f in findings if f.rule in _LOST or f.place in ON_THE_WAY)
    told = [victim.attempt_id for finding in late for victim in finding.victims]
    slow = (took_ns >= _SLOW_NS) & ~np.isin(rows["attempt_id"], told)
    if slow.any():
        answered = names.count(int(done.sum()), "established connect")
        again = int(rows["retransmits"][slow].sum())
        sent = f"; their SYN was sent again {names.count(again, 'time')}" if again else ""
        yield (
            f"{int(slow.sum())} of {answered} took over 1 s "
            f"to be answered, up to {names.duration(int(took_ns.max()))}{sent}. The wait lies "
            "beyond SYN_SENT: a listener whose queue is full (ss -ltn), or the network."
        )


def _unanswered(trace: Trace, findings: Sequence[Finding]) -> Iterator[str]:
    rows = trace.columns
    told = {str(f.subject.get("destination", "")) for f in findings if f.rule == "dead-destination"}
    waiting = np.flatnonzero((rows["outcome"] == Outcome.pending) & (rows["syn_ns"] > 0))
    waiting = waiting[trace.end_ns - rows["syn_ns"][waiting] >= _SLOW_NS // 2]
    first = take(trace.attempts, waiting[:1000])
    open_rows = [row for row in first if names.destination(row) not in told]
    if open_rows:
        where = sorted({names.destination(row) for row in open_rows})
        listed = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
        yield (
            f"{names.count(len(open_rows), 'attempt')} had no answer yet when the trace ended "
            f"({listed}): trace for longer to see how they end."
        )
