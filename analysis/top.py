"""What each process is waiting for right now: the rows of `porttrace top`, from tables alone."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis.holds import HELD_NS, HOLDS, spans
from porttrace.analysis.model import (
    FAILED,
    SEVERITIES,
    Answer,
    Attempts,
    Finding,
    Process,
    no_attempts,
    start_ns,
)
from porttrace.analysis.rows import joined, select

SENT = "sent"
"""Where an attempt in SYN_SENT stands of which the wire has not told anything (yet)."""


@dataclass(frozen=True)
class ProcessNow:
    """One process at one moment. Rates are of the time since the moment before."""

    process: Process
    in_flight: int  # sockets in SYN_SENT
    demand: int  # attempts that are called and not over
    held: int  # of these, those that have stood still on this host for 10 ms or more
    worst_ns: int  # how long the one that waits longest has waited, 0 where none waits
    worst_at: str  # where that one stands: gate, connect, egress, network, ingress, sent, or ""
    connects_per_s: float  # attempts that were over, whatever their outcome
    failures_per_s: float  # of these, those in `FAILED`
    findings: tuple[Finding, ...] = ()  # about it or its attempts, the worst first


@dataclass(frozen=True)
class Now:
    """All processes at one moment."""

    now_ns: int
    interval_s: float  # that the rates are of
    processes: tuple[ProcessNow, ...]
    findings: tuple[Finding, ...] = ()
    lost_events: int = 0  # since the beginning


class Tally:
    """Counts, by process, the attempts that were over since the last look."""

    def __init__(self) -> None:
        self._counts: dict[int, tuple[int, int]] = {}
        self._names: dict[int, str] = {}

    def add(self, rows: Attempts) -> None:
        """Count finished attempts."""
        if not len(rows):
            return
        failed = np.isin(rows["outcome"], FAILED)
        pids, first, where = np.unique(rows["pid"], return_index=True, return_inverse=True)
        bad = np.bincount(where[failed], minlength=len(pids)).tolist()
        number = np.bincount(where).tolist()
        for pid, at, *more in zip(pids.tolist(), first.tolist(), number, bad, strict=True):
            before = self._counts.get(pid, (0, 0))
            self._counts[pid] = (before[0] + more[0], before[1] + more[1])
            self._names[pid] = _comm(rows[at])

    @property
    def pids(self) -> Iterable[int]:
        """Those of which something was counted."""
        return self._counts.keys()

    def taken(self) -> tuple[dict[int, tuple[int, int]], dict[int, str]]:
        """Return by pid how many were over and how many failed, and a thread's name; begin anew."""
        counts, self._counts = self._counts, {}
        names, self._names = self._names, {}
        return counts, names


def look(
    waiting: Attempts,
    tally: Tally,
    known: Mapping[int, Process],
    pids: Iterable[int],
    findings: Sequence[Finding],
    now_ns: int,
    interval_s: float,
) -> tuple[ProcessNow, ...]:
    """Return a row for each process that waits, connected, is in a finding, or is in `pids`.

    `waiting` are the attempts that are not over at `now_ns`; what `tally` counted is taken from it,
    as of the last `interval_s` seconds.
    """
    counts, called = tally.taken()
    standing = Standing(waiting, now_ns)
    about = _by_process(findings)
    called |= {int(row["pid"]): _comm(row) for row in waiting}
    shown = {*standing.pids, *counts, *about, *pids}
    rows = []
    for pid in sorted(shown):
        over, failed = counts.get(pid, (0, 0))
        rows.append(
            ProcessNow(
                _named(known.get(pid), pid, called.get(pid, "")),
                *standing.of(pid),
                over / interval_s,
                failed / interval_s,
                tuple(about.get(pid, ())),
            )
        )
    return tuple(rows)


class Standing:
    """Where attempts that are not over at `now_ns` stand, by process."""

    def __init__(self, waiting: Attempts, now_ns: int) -> None:
        self._rows = waiting
        self._waited = np.maximum(now_ns - start_ns(waiting), 0)
        self._held = _held(waiting, now_ns)
        pid = waiting["pid"]
        self.pids: dict[int, list[int]] = {}
        for at, number in enumerate(pid.tolist()):
            self.pids.setdefault(number, []).append(at)

    def of(self, pid: int) -> tuple[int, int, int, int, str]:
        """Return in flight, demand, held, the longest wait (ns) of one process, and its place."""
        mine = self.pids.get(pid)
        if not mine:
            return 0, 0, 0, 0, ""
        worst = mine[int(np.argmax(self._waited[mine]))]
        in_flight = int((self._rows["syn_ns"][mine] > 0).sum())
        held = int(self._held[mine].sum())
        return in_flight, len(mine), held, int(self._waited[worst]), place(self._rows[worst])


def _held(waiting: Attempts, now_ns: int) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    # At this moment: one that was held at the gate and is in SYN_SENT by now goes on.
    held = np.zeros(len(waiting), np.bool_)
    for where in HOLDS:
        interval = spans(waiting, where, now_ns)
        held |= ~interval.closed & (interval.lengths() >= HELD_NS)
    return held


def place(row: np.void) -> str:
    """Return where an `ATTEMPT` row that is not over stands now."""
    if not row["syn_ns"]:
        return "connect" if row["call_ns"] else "gate"
    if row["answer_ns"] and row["answer"] != Answer.icmp:
        return "ingress"
    if row["wire_ns"]:
        return "network"
    # Of what is under way the wire tells when its SYN is sent again, after a second.
    return "egress" if row["watched"] and row["retransmits"] else SENT


def _by_process(findings: Sequence[Finding]) -> dict[int, list[Finding]]:
    about: dict[int, list[Finding]] = {}
    for finding in in_order(findings):
        pids = {*finding.pids(), *(party.pid for party in finding.victims)}
        if isinstance(one := finding.subject.get("pid"), int):
            pids.add(one)
        for pid in pids - {0}:
            about.setdefault(pid, []).append(finding)
    return about


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the worst first, of these the surest."""
    return sorted(findings, key=Finding.gravity)


def _named(known: Process | None, pid: int, thread: str) -> Process:
    if known and known.comm:
        return known
    return Process(pid, comm=thread)


def _comm(row: np.void) -> str:
    return os.fsdecode(bytes(row["comm"]))


# -- order ----------------------------------------------------------------------------------------


def _severity(row: ProcessNow) -> tuple[float, float]:
    if not row.findings:
        return 0, 0
    worst = row.findings[0]
    return len(SEVERITIES) - SEVERITIES.index(worst.severity), worst.confidence


# What each key sorts by; those of numbers have the largest first.
SORTS: Mapping[str, Callable[[ProcessNow], object]] = {
    "pid": lambda row: row.process.pid,
    "name": lambda row: row.process.comm,
    "in-flight": lambda row: row.in_flight,
    "demand": lambda row: row.demand,
    "held": lambda row: row.held,
    "worst": lambda row: row.worst_ns,
    "connects": lambda row: row.connects_per_s,
    "failures": lambda row: row.failures_per_s,
    "verdict": _severity,
}
_SMALLEST_FIRST = ("pid", "name")


def sorted_by(
    rows: Iterable[ProcessNow], name: str, reverse: bool = False
) -> tuple[ProcessNow, ...]:
    """Return the rows in the order of one of `SORTS`; equal ones by pid."""
    by_pid = sorted(rows, key=lambda row: row.process.pid)
    key: Callable[[ProcessNow], object] = SORTS[name]
    descending = (name not in _SMALLEST_FIRST) != reverse
    return tuple(sorted(by_pid, key=key, reverse=descending))  # type: ignore[arg-type]


# -- what is kept ---------------------------------------------------------------------------------


def newest(rows: Attempts, most: int) -> Attempts:
    """Return at most `most` attempts: of each process its latest, as many of each as fit.

    One that connects without end does not push out those of the others. `rows` keep their order.
    """
    if len(rows) <= most:
        return rows
    _, where, counts = np.unique(rows["pid"], return_inverse=True, return_counts=True)
    each = _share(counts.tolist(), most)
    # From the end, the how-manieth of its process is it?
    order = np.argsort(where, kind="stable")
    ends = np.cumsum(counts)
    from_end = np.empty(len(rows), np.int64)
    from_end[order] = np.repeat(ends, counts) - 1 - np.arange(len(rows))
    kept = select(rows, from_end < each)
    return kept if len(kept) <= most else kept[len(kept) - most :]


def _share(counts: Sequence[int], most: int) -> int:
    # As many of each as fit, when those that have fewer leave their part to the others.
    left, waiting = most, sorted(counts)
    for at, count in enumerate(waiting):
        share = left / (len(waiting) - at)
        if count > share:
            return max(1, math.floor(share))
        left -= count
    return max(counts, default=0)


def latest(parts: Sequence[Attempts], since_ns: int, most: int) -> Attempts:
    """Return of several tables what was over since `since_ns`, and of that `newest`."""
    rows = joined(parts, no_attempts().dtype)
    ended = np.maximum(rows["end_ns"], rows["return_ns"])
    return newest(select(rows, ended >= since_ns), most)
