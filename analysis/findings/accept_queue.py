"""Rule `accept-queue`: a server takes its connections too late, and its queue overflows.

Told from what was sampled of the listening sockets and the kernel's counters, from the time between
ESTABLISHED and accept(2) where the hook mode has it, and from the SYNs that clients on the same
host had to send again meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.accepts import SLOW_NS
from porttrace.analysis.concurrency import Ints
from porttrace.analysis.findings.accept_wording import advice, hypotheses, summary
from porttrace.analysis.findings.parties import NAMED, party
from porttrace.analysis.findings.queueing import Queue
from porttrace.analysis.model import Accepted, Finding, Party, Sample, Trace
from porttrace.analysis.place import within
from porttrace.analysis.samples import by_netns, grown

RULE = "accept-queue"

MIN_OVERFLOWS = 3
"""Without a client that suffered: one or two are a burst."""
_STANDING = 3  # samples in which a queue stood full, without any overflow
_SLOW_SHARE, _MIN_SLOW = 0.1, 5  # of what was accepted, to be called slow
_MOST_LOST = 20_000  # attempts that are looked at for having been dropped here
_WILDCARDS = ("0.0.0.0", "[::]")


@dataclass
class _Seen:
    # A listener in the samples of its namespace.
    netns: int
    address: str
    port: int
    samples: list[Sample] = field(default_factory=list)
    queues: list[tuple[int, int]] = field(default_factory=list)  # length and limit
    owner: tuple[int, str] = (0, "")


def accept_queue(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find listening sockets whose accept queue overflows or is served late: one finding each."""
    spaces = by_netns(trace)
    lost = np.flatnonzero(trace.columns["retransmits"] > 0)[-_MOST_LOST:]
    queues = [
        _queue(trace, seen, samples, lost)
        for netns, samples in spaces.items()
        for seen in _listeners(netns, samples)
    ]
    overflowing = [queue for queue in queues if _is_full(queue)]
    told = {(queue.pid, queue.port) for queue in overflowing}
    late = [
        Queue(trace, 0, "", each.port, pid=each.pid, accepted=each)
        for key, each in trace.accepted.items()
        if key not in told and _is_late(each)
    ]
    return [_finding(queue) for queue in (*overflowing, *late)]


def _listeners(netns: int, samples: Sequence[Sample]) -> list[_Seen]:
    found: dict[tuple[str, int], _Seen] = {}
    for sample in samples:
        for each in sample.listeners or ():
            key = each.address, each.port
            seen = found.setdefault(key, _Seen(netns, *key))
            seen.samples.append(sample)
            seen.queues.append((each.queue, each.limit))
            if each.pid:
                seen.owner = each.pid, each.comm
    return list(found.values())


def _queue(trace: Trace, seen: _Seen, samples: Sequence[Sample], lost: Ints) -> Queue:
    # The kernel drops when there are more than the limit; with each accept(2) there is one less.
    full = [
        sample
        for sample, (length, limit) in zip(seen.samples, seen.queues, strict=True)
        if length >= limit
    ]
    longest, limit = max(seen.queues)
    return Queue(
        trace,
        seen.netns,
        seen.address,
        seen.port,
        pid=seen.owner[0],
        comm=seen.owner[1],
        longest=longest,
        limit=limit,
        seen=len(seen.samples),
        full=tuple(each.time_ns for each in full),
        overflows=grown(samples, "ListenOverflows"),
        drops=grown(samples, "ListenDrops"),
        backlog_drops=grown(samples, "TCPReqQFullDrop"),
        settings=dict(samples[-1].settings or {}),
        victims=_victims(trace, seen, samples, lost),
        enter=within(trace, seen.netns, [seen.owner[0]]),
        others=_others(seen, samples),
        accepted=trace.accepted.get((seen.owner[0], seen.port)),
    )


def _others(mine: _Seen, samples: Sequence[Sample]) -> int:
    # Listeners of the namespace that were full as well: the counters are of all of them.
    full = {
        (each.address, each.port)
        for sample in samples
        for each in sample.listeners or ()
        if each.queue >= each.limit
    }
    return len(full - {(mine.address, mine.port)})


# The attempts to this listener whose SYN was sent again: the destination is in its namespace.
def _victims(trace: Trace, mine: _Seen, samples: Sequence[Sample], lost: Ints) -> tuple[Party, ...]:
    here = {to for sample in samples for to in sample.serves or ()}
    wanted = {to for to in here if _fits(mine, to)}
    if not wanted:
        return ()
    rows = [row for row in lost if names.destination(trace.attempts[row]) in wanted]
    mine_ = trace.attempts[np.array(rows, np.int64)]
    ends = np.where(mine_["end_ns"] > 0, mine_["end_ns"], trace.end_ns)
    waits = ends.astype(np.int64) - mine_["syn_ns"].astype(np.int64)
    order = np.argsort(-waits, kind="stable")
    return tuple(party(trace, rows[i], int(waits[i])) for i in order[:NAMED])


def _fits(mine: _Seen, destination: str) -> bool:
    address, _, port = destination.rpartition(":")
    return int(port) == mine.port and (mine.address in _WILDCARDS or mine.address == address)


def _is_full(queue: Queue) -> bool:
    if not queue.full:
        return False
    if queue.overflows and (queue.victims or queue.overflows >= MIN_OVERFLOWS):
        return len(queue.full) > 1 or bool(queue.victims)
    return len(queue.full) >= _STANDING


def _is_late(each: Accepted) -> bool:
    return each.slow >= _MIN_SLOW and each.slow >= _SLOW_SHARE * each.number


def _finding(queue: Queue) -> Finding:
    return Finding(
        rule=RULE,
        severity="warning" if queue.overflows else "info",
        confidence=_confidence(queue),
        subject={
            "listener": queue.name(),
            "netns": queue.netns,
            "pid": queue.pid,
            "pids": sorted({queue.pid, *(each.pid for each in queue.victims)} - {0}),
        },
        summary=summary(queue),
        mechanism="drop" if queue.overflows else "",
        evidence=_evidence(queue),
        hypotheses=hypotheses(queue),
        victims=queue.victims,
        advice=advice(queue),
    )


def _confidence(queue: Queue) -> float:
    if not queue.seen:
        return 0.85  # the connections themselves told
    if not queue.overflows:
        return 0.6
    sure = 0.95 if len(queue.full) > 1 else 0.8
    return sure if not queue.others else min(sure, 0.75)


def _evidence(queue: Queue) -> dict[str, object]:
    found: dict[str, object] = {
        "longest": queue.longest,
        "limit": queue.limit,
        "owner": queue.comm,
        "samples_full": len(queue.full),
        "overflows": queue.overflows,
        "drops": queue.drops,
        "backlog_drops": queue.backlog_drops,
        "somaxconn": queue.settings.get("somaxconn", ""),
        "victims": len(queue.victims),
    }
    if queue.accepted:
        found |= {
            "accepted": queue.accepted.number,
            "accepted_late": queue.accepted.slow,
            "late_s": SLOW_NS / 1e9,
            "mean_queued_s": queue.mean_s(),
            "longest_queued_s": queue.accepted.longest_ns / 1e9,
        }
    return found
