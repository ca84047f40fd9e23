"""Rule `sequential-connects`: the application itself connects one at a time, nobody makes it.

Seen from the kernel, only one attempt at a time even asks. That costs time when one is slow and
the next, to somewhere else or of another thread, starts as soon as it is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from porttrace.analysis import names
from porttrace.analysis.concurrency import Ints, highest_demand, resolved_ns, scope_keys
from porttrace.analysis.model import Finding, Hypothesis, Trace, start_ns
from porttrace.analysis.pairs import parts_by_key
from porttrace.analysis.rows import take

RULE = "sequential-connects"
_SLOW_NS = 500_000_000
_NEXT_NS = 50_000_000  # so soon after an end the next attempt was only waiting for it
_FEWEST = 3
_HURTS_NS = 3_000_000_000  # so much time, more than once, is felt by whoever comes next


@dataclass(frozen=True)
class _Turns:
    # The attempts of one process in order, and which of them had to wait for the one before.
    rows: Ints
    followed: Ints  # positions in rows whose predecessor was slow and which then came at once
    slept: int  # of these, fell asleep before the slow one was over and woke for the call
    lost_ns: int  # time of the slow ones that somebody followed
    longest: int  # row of the slowest of these, where there is one


def sequential_connects(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find processes that connect one at a time of their own accord, at a cost.

    Nothing is found when the scheduler was not watched: who is held at the entry of the call is
    not seen then, so that a throttle there would look just like this.
    """
    if not trace.gates_seen:
        return []
    throttled = {
        pid for finding in found if finding.rule == "serialized-connects" for pid in finding.pids()
    }
    highest = highest_demand(trace.columns, "process", trace.end_ns)
    begun, ended = start_ns(trace.columns), resolved_ns(trace.columns, trace.end_ns)
    slow = ended - begun >= _SLOW_NS
    pids = set(trace.columns["pid"][slow].tolist())
    alone = {pid for pid in pids if highest.get(pid) == 1 and pid not in throttled}
    processes = zip(*parts_by_key(trace.columns["pid"]), strict=True) if alone else ()
    of_alone = [(pid, rows) for pid, rows in processes if pid in alone]
    return [
        finding for pid, rows in of_alone for finding in _of_process(trace, pid, rows, begun, ended)
    ]


def _of_process(trace: Trace, pid: int, rows: Ints, begun: Ints, ended: Ints) -> list[Finding]:
    if len(rows) < _FEWEST or not (
        _differ(trace.columns["tid"][rows]) or _differ(_to(trace)[rows])
    ):
        return []
    turns = _turns(trace, rows, begun, ended)
    return [_finding(trace, pid, turns)] if len(turns.followed) else []


def _to(trace: Trace) -> Ints:
    return scope_keys(trace.columns, "destination")


def _differ(values: npt.NDArray[np.integer[Any]]) -> bool:
    return bool((values != values[:1]).any())


def _turns(trace: Trace, rows: Ints, begun: Ints, ended: Ints) -> _Turns:
    attempts = trace.columns
    rows = rows[np.argsort(begun[rows], kind="stable")]
    begin, end, tid = begun[rows], ended[rows], attempts["tid"][rows]
    to = _to(trace)[rows]
    other = (to[1:] != to[:-1]) | (tid[1:] != tid[:-1])
    over = np.maximum(end, attempts["return_ns"][rows] * (attempts["blocking"][rows] == 1))
    slow = end - begin >= _SLOW_NS
    followed = 1 + np.flatnonzero(slow[:-1] & other & (begin[1:] - over[:-1] <= _NEXT_NS))
    slept_ns = attempts["sleep_ns"][rows]
    slept = (slept_ns > 0) & (slept_ns < np.roll(end, 1))
    took = (end - begin)[followed - 1]
    longest = int(rows[followed[int(np.argmax(took))] - 1]) if len(followed) else 0
    return _Turns(rows, followed, int(np.count_nonzero(slept[followed])), int(took.sum()), longest)


def _finding(trace: Trace, pid: int, turns: _Turns) -> Finding:
    mine = take(trace.attempts, turns.rows)
    threads = len(set(mine["tid"].tolist()) - {0})  # 0: older than the trace, and not known whose
    how = (
        "its own code goes through them one after the other"
        if threads == 1
        else f"its {threads} threads take turns before they call"
    )
    number = len(turns.followed)
    to = names.destination(trace.attempts[turns.longest])
    hurts = number > 1 and turns.lost_ns >= _HURTS_NS
    return Finding(
        rule=RULE,
        severity="warning" if hurts else "info",
        confidence=0.6 if number == 1 else 0.75,
        subject={"pid": pid, "pids": [pid]},
        summary=(
            f"{names.process(trace, pid)} connects one at a time: {how}."
            f" After {names.count(number, 'slow attempt')} ({names.duration(turns.lost_ns)} in all"
            f"{'' if number == 1 else ', the longest'} to {to}) the next one began at once."
            " Nothing on this host was seen to hold it back."
        ),
        scope="process",
        place="user",
        evidence={
            "attempts": len(mine),
            "threads": threads,
            "followed_slow": number,
            "slept": turns.slept,
            "lost_s": turns.lost_ns / 1e9,
        },
        hypotheses=_hypotheses(trace, pid),
        advice=(
            "Connect in parallel or without blocking, or give each attempt a short timeout:"
            " the order is the application's own.",
        ),
    )


def _hypotheses(trace: Trace, pid: int) -> tuple[Hypothesis, ...]:
    known = trace.processes.get(pid)
    why = "no attempt was made while another was open, so nothing was there to be held"
    gate = Hypothesis("throttle at the gate", "refuted", why)
    preloads = known.preloads if known else ()
    named = f"{', '.join(preloads)} defines connect and could be what makes threads take turns"
    library = Hypothesis(
        "preloaded library",
        "open" if preloads else "refuted",
        named if preloads else "no preloaded library that defines connect was found in it",
    )
    return gate, library
