"""The test for a throttle that drops: SYNs pass while a slot is free, and are lost while none is.

Nobody is let go when a slot becomes free: the attempt goes on with its next SYN, a rung of the
ladder later. So not the time from an end to a release is tested, but every SYN by itself: how many
attempts were past the throttle at that moment, and did it pass? Were SYNs lost for another reason,
the lost ones would not be just those that met all slots taken.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from porttrace.analysis.backlog import ends_of
from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.holds import Queue
from porttrace.analysis.ladder import Ladder
from porttrace.analysis.throttle import MIN_EXPLAINED, Verdict

LATE_NS = 60_000_000
"""A throttle may notice an end so late: SYNs lost so soon after one decide nothing."""

_EARLY_NS = 2_000_000  # slots are taken before the SYN is on the wire, and free before the END
_SAME_NS = 5_000_000  # the kernel's word of a SYN, and the SYN on the wire
NEVER_SENT = 2**62
_FEW = {0: 1.0, 1: 1e-2, 2: 1e-3}  # by the number of such ends: no chance is believed below it


@dataclass(frozen=True)
class _Tries:
    # Every SYN, as far as the ladder tells when it was sent.
    row: Ints
    time: Ints
    passed: Bools


def examine_dropped(queue: Queue, ladder: Ladder, sent: Ints | None = None) -> Verdict | None:
    """Return what the test says of a group, None when no SYN of it was lost.

    `sent` are the times (ns) of all SYNs, a row for each attempt of the queue, NEVER_SENT behind
    the last one. Without them they are reckoned by `ladder`, that of the host.
    """
    assumed = bool((~queue.hold.closed & (queue.service.lengths() > 0)).any())
    tries = _tries(queue, ladder, sent)
    if (
        tries.passed.all()
        or not len(tries.row)
        or not (sent is not None or _on_rungs(queue, ladder))
    ):
        return None
    taken, last_end = _taken(queue, tries)
    clear = tries.passed | (tries.time - last_end > LATE_NS)
    slots = _slots(taken, tries.passed, clear)
    full = taken >= slots
    later = _later(queue, tries) if sent is None else taken
    handed = _handed(queue, tries, full | (later >= slots), clear)
    went = tries.passed & handed[tries.row]
    chance = _chance(full[clear], ~tries.passed[clear], slots)
    episodes = len(np.unique(_freed_by(queue, tries, handed)))
    lost = clear & ~tries.passed
    share = float(full[lost].mean()) if lost.any() else 0.0
    held = np.unique(tries.row[~tries.passed])
    closed = queue.hold.closed[held]
    return Verdict(
        epsilon_ns=LATE_NS,
        held=len(held),
        waiting=int(np.count_nonzero(~closed)),
        testable=int(np.count_nonzero(closed)),
        handoffs=int(np.count_nonzero(handed)),
        p_value=max(chance, _FEW.get(episodes, 0.0)),
        slots=slots,
        busy=share,
        occupied=share,
        peak=int(taken.max(initial=0)),
        cap_exceeded=_exceeded(full & tries.passed, tries.passed, assumed),
        lag_ns=int(np.median((tries.time - last_end)[went])) if went.any() else 0,
        paced=False,
        common_cause=False,
        held_ns=int(queue.hold.lengths()[held].sum()),
        handed=handed,
        mechanism="drop",
    )


# Who had a slot without an answer is reckoned: a slip among many passes refutes nothing.
def _exceeded(against: Bools, passed: Bools, assumed: bool) -> int:
    excused = int(np.count_nonzero(passed)) // 50 if assumed else 0
    return max(0, int(np.count_nonzero(against)) - excused)


def _tries(queue: Queue, ladder: Ladder, sent: Ints | None) -> _Tries:
    rows, times, passed = [], [], []
    rungs = [0, *(int(rung * 1e9) for rung in ladder.rungs_s)]
    there = queue.hold.closed | (queue.hold.lengths() > 0)
    for row in np.flatnonzero(there).tolist():
        start, stop = int(queue.hold.start[row]), int(queue.hold.stop[row])
        goes = bool(queue.hold.closed[row])
        if sent is not None:
            tried = [time for time in sent[row].tolist() if start <= time <= stop + _SAME_NS]
            lost = tried[:-1] if goes else tried  # the last of them went on
        else:
            # timers are late by a few percent; the SYN that passed is none of those that were lost
            lost = [start + rung for rung in rungs if start + rung < stop - _slack(rung)]
        times += [*lost, stop] if goes else lost
        rows += [row] * (len(lost) + goes)
        passed += [False] * len(lost) + [True] * goes
    return _Tries(np.array(rows, np.int64), np.array(times, np.int64), np.array(passed, np.bool_))


# Who was lost at first goes on with a SYN that is sent again, and with nothing else.
def _on_rungs(queue: Queue, ladder: Ladder) -> bool:
    held = queue.hold.closed & (queue.hold.lengths() > LATE_NS)
    rungs = np.array([0.0, *ladder.rungs_s]) * 1e9
    off = queue.hold.lengths()[held, None] - rungs[None, :]
    near = ((off > -LATE_NS) & (off < _slack(rungs))).any(axis=1)
    return bool(near.mean() >= MIN_EXPLAINED) if len(near) else True


def _slack(rung_ns: Any) -> Any:
    return rung_ns // 16 + 100_000_000


# The same for lost SYNs at the latest that the timer may have sent them.
def _later(queue: Queue, tries: _Tries) -> Ints:
    since = tries.time - queue.hold.start[tries.row]
    late = np.where(tries.passed, 0, since // 25)
    return _taken(queue, _Tries(tries.row, tries.time + late, tries.passed))[0]


# How many others were past the throttle at each SYN, and when the latest of them had ended.
def _taken(queue: Queue, tries: _Tries) -> tuple[Ints, Ints]:
    begun, over = np.sort(queue.service.start[queue.service.lengths() > 0]), ends_of(queue.service)
    # Who is not over yet never ends within the trace.
    number = np.searchsorted(begun, tries.time + np.where(tries.passed, 0, _EARLY_NS), "left")
    until = tries.time + np.where(tries.passed, _EARLY_NS, 0)
    at = np.searchsorted(over, until, "right")
    last_end = np.concatenate([np.full(1, -(2**62), np.int64), over])[at]
    return number - at + _after(queue, tries, until), last_end


# Of the ends that count as before a SYN, those of attempts that went past the throttle with it or
# after it: its own among them, if it is answered at once. They were never in its way.
def _after(queue: Queue, tries: _Tries, until: Ints) -> Ints:
    length = queue.service.lengths()
    short = queue.service.closed & (length > 0) & (length <= _EARLY_NS)
    begun, over = np.sort(queue.service.start[short]), np.sort(queue.service.stop[short])
    ended = np.searchsorted(over, until, "right")
    before = np.searchsorted(begun, tries.time, "left")
    return np.where(tries.passed, ended - before, 0)


# For each handed attempt the first end after its last lost SYN: that one freed the slot.
def _freed_by(queue: Queue, tries: _Tries, handed: Bools) -> Ints:
    latest = np.full(len(handed), -(2**62), np.int64)
    np.maximum.at(latest, tries.row[~tries.passed], tries.time[~tries.passed])
    over = ends_of(queue.service)
    at = np.searchsorted(over, latest[handed], "right")
    return over[at[at < len(over)]]


# The number of slots with the fewest SYNs that speak against it.
def _slots(taken: Ints, passed: Bools, clear: Bools) -> int:
    most = int(taken.max(initial=0)) + 1
    against = [
        int(np.count_nonzero(passed & (taken >= slots)))
        + int(np.count_nonzero(clear & ~passed & (taken < slots)))
        for slots in range(1, most + 1)
    ]
    return 1 + int(np.argmin(against))


# The attempts whose SYNs were lost just as long as all slots were taken.
def _handed(queue: Queue, tries: _Tries, full: Bools, clear: Bools) -> Bools:
    size = len(queue.hold.start)
    lost = np.bincount(tries.row[~tries.passed], minlength=size)
    wrong = np.bincount(tries.row[clear & (full == tries.passed)], minlength=size)
    right: Bools = queue.hold.closed & (lost > 0) & (wrong == 0)
    return right


# Fisher's exact test, one-sided: were losses independent of the slots, how likely is it that so
# many of them meet all slots taken? Corrected for the numbers of slots that were tried.
def _chance(full: Bools, lost: Bools, slots: int) -> float:
    total, marked, drawn = len(full), int(full.sum()), int(lost.sum())
    found = int(np.count_nonzero(full & lost))
    tail = 0.0
    for hits in range(found, min(marked, drawn) + 1):
        if drawn - hits <= total - marked:
            tail += math.exp(
                _log_choose(marked, hits)
                + _log_choose(total - marked, drawn - hits)
                - _log_choose(total, drawn)
            )
    return min(1.0, tail * (slots + 1))


def _log_choose(of: int, take: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(take + 1) - math.lgamma(of - take + 1)
