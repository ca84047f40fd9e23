"""What stands out in a trace without being a finding: long waits that no rule explains.

Nothing is worse than "nothing wrong" above a wait of seconds. A remark says what was
seen, and what to look at or trace next; it claims no cause.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Bools
from porttrace.analysis.holds import waits
from porttrace.analysis.model import Finding, Outcome, Trace
from porttrace.analysis.stacks import held_in

_HELD_NS = 100_000_000
_SLOW_NS = 1_000_000_000


def remarks(trace: Trace, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return plain sentences on long waits that `findings` leave unexplained."""
    if not len(trace.attempts):
        return ()
    return (*_held(trace, findings), *_slow(trace), *_unanswered(trace, findings))


def _held(trace: Trace, findings: Sequence[Finding]) -> Iterator[str]:
    place_ns = waits(trace.attempts, trace.end_ns)
    explained = _explained_pids(findings)
    for place in ("gate", "connect"):
        held = (place_ns[place] >= _HELD_NS) & ~np.isin(trace.attempts["pid"], explained)
        if held.any():
            yield _held_sentence(trace, place, held, int(place_ns[place][held].max()))


def _explained_pids(findings: Sequence[Finding]) -> list[int]:
    pids: set[int] = set()
    for finding in findings:
        if finding.rule == "serialized-connects":
            found = finding.subject.get("pids")
            pids.update(found if isinstance(found, list) else [])
    return sorted(pids)


def _held_sentence(trace: Trace, place: str, held: Bools, worst_ns: int) -> str:
    rows = trace.attempts[held]
    where = {"gate": "before the kernel started them (gate)",
             "connect": "inside the kernel's connect (connect)"}[place]  # fmt: skip
    number, were = len(rows), "was" if len(rows) == 1 else "were"
    stack = held_in(rows, place, trace.stacks)
    inside = f", in {stack[0]}" if stack else ""
    said = (
        f"{names.count(number, 'connect')} {were} held {where}, up to {names.duration(worst_ns)}"
        f"{inside}. This trace does not show behind what."
    )
    return f"{said} {_next_step(trace)}"


def _next_step(trace: Trace) -> str:
    if trace.filter and not trace.filter.startswith("pid"):
        return f"The filter ({trace.filter}) may hide it: trace again with --pid alone."
    if "," in trace.filter:
        return f"The filter ({trace.filter}) may hide it: leave out all but the pid."
    return "Trace for longer, until some of them have gone on; other processes may be in front."


def _slow(trace: Trace) -> Iterator[str]:
    rows = trace.attempts
    done = rows[(rows["outcome"] == Outcome.established) & (rows["syn_ns"] > 0)]
    took_ns = done["end_ns"] - done["syn_ns"]
    slow = took_ns >= _SLOW_NS
    if slow.any():
        again = int(done["retransmits"][slow].sum())
        sent = f"; their SYN was sent again {names.count(again, 'time')}" if again else ""
        yield (
            f"{int(slow.sum())} of {names.count(len(done), 'established connect')} took over 1 s "
            f"to be answered, up to {names.duration(int(took_ns.max()))}{sent}. The wait lies "
            "beyond SYN_SENT: a listener whose queue is full (ss -ltn), or the network."
        )


def _unanswered(trace: Trace, findings: Sequence[Finding]) -> Iterator[str]:
    rows = trace.attempts
    told = {str(f.subject.get("destination", "")) for f in findings if f.rule == "dead-destination"}
    waiting = rows[(rows["outcome"] == Outcome.pending) & (rows["syn_ns"] > 0)]
    waiting = waiting[trace.end_ns - waiting["syn_ns"] >= _SLOW_NS // 2]
    open_rows = [row for row in waiting[:1000] if names.destination(row) not in told]
    if open_rows:
        where = sorted({names.destination(row) for row in open_rows})
        listed = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
        yield (
            f"{names.count(len(open_rows), 'attempt')} had no answer yet when the trace ended "
            f"({listed}): trace for longer to see how they end."
        )
