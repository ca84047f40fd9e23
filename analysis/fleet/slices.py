"""One recording summed up: what leaves the machine that read it.

The findings are those of a single host's report, made by the same rules; here they are only
counted, and cut to what a fleet has use for.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from porttrace.analysis import names, summary, tables
from porttrace.analysis.concurrency import Ints, scope_keys
from porttrace.analysis.fleet.model import (
    MOST_FACTS,
    MOST_FINDINGS,
    MOST_LETTERS,
    MOST_WORDS,
    About,
    Found,
    Slice,
    Throttle,
)
from porttrace.analysis.fleet.sketch import sketch_of
from porttrace.analysis.fleet.tally import Entry, Tally, tally
from porttrace.analysis.holds import HELD_NS, HOLDS, ON_THE_WAY, waits
from porttrace.analysis.model import FAILED, Finding, Outcome, Process, Trace, start_ns
from porttrace.analysis.recording import Recording

THROTTLES = ("serialized-connects", "limited-connects", "paced-connects")
ON_THE_HOST = "on the host"
"""What stands for no container at all."""

_SUMMED = ("attempts", "failed", "held_ns", "total_ns")
_ALONE = re.compile(r"\b\d+\b")


def slice_of(recording: Recording, kind: str = "trace", size: int = 0, path: str = "") -> Slice:
    """Return the sum of one recording; `size` is that of its file, bytes, `path` where it lies."""
    trace, findings = recording.trace, recording.findings
    rows = _Rows(trace)
    taken, took = rows.answered()
    return Slice(
        _about(recording, kind, size, path or recording.path),
        len(trace.attempts),
        int(rows.sums["failed"].sum()),
        summary.by_outcome(trace.columns),
        int(rows.sums["held_ns"].sum()),
        int(rows.sums["total_ns"].sum()),
        sketch_of(rows.sums["held_ns"]),
        sketch_of(took[taken]),
        sketch_of(rows.sums["total_ns"]),
        rows.by_destination(),
        rows.by_process(_program),
        rows.by_process(_image),
        rows.by_place(),
        tuple(_found(each) for each in findings[:MOST_FINDINGS]),
        Counter((each.rule, each.severity) for each in findings),
        throttles_of(findings),
        facts_of(trace),
        bool(trace.suspects or trace.not_looked),
    )


def throttles_of(findings: Sequence[Finding]) -> frozenset[Throttle]:
    """Return the signatures of the throttles among `findings`."""
    return frozenset(
        Throttle(each.rule, each.place, each.scope, each.slots, each.mechanism)
        for each in findings
        if each.rule in THROTTLES
    )


def facts_of(trace: Trace) -> frozenset[tuple[str, str]]:
    """Return what is known of a host, so that hosts compare: the kernel, and each suspect.

    Numbers that stand alone (pids, counts) become N: they differ from host to host.
    """
    found = [("kernel", trace.host.kernel)] if trace.host.kernel else []
    for suspects in trace.suspects.values():
        found += [("suspect", each.kind) for each in suspects]
        found += [(each.kind, _ALONE.sub("N", each.what)) for each in suspects]
    plain = sorted({(kind, _short(what, MOST_LETTERS)) for kind, what in found})
    return frozenset(plain[:MOST_FACTS])


def _about(recording: Recording, kind: str, size: int, path: str) -> About:
    trace, trust = recording.trace, recording.trust
    began_ns = trace.start_ns + trace.wall_offset_ns if trace.wall_offset_ns else 0
    return About(
        path,
        _short(trace.host.name, MOST_LETTERS),
        _short(trace.host.kernel, MOST_LETTERS),
        trace.host.mode,
        trace.host.wire,
        trace.gates_seen,
        kind,
        began_ns / 1e9,
        summary.duration_s(trace),
        trust.events,
        trust.lost_events,
        trust.complete,
        size,
    )


def _found(each: Finding) -> Found:
    return Found(each.rule, each.severity, each.confidence, _short(each.summary, MOST_WORDS))


def _short(text: str, most: int) -> str:
    whole = tables.text(text)
    return whole if len(whole) <= most else f"{whole[: most - 1]}~"


def _program(process: Process) -> str:
    return process.exe or process.comm


def _image(process: Process) -> str:
    if not process.container:
        return ON_THE_HOST
    return process.image or process.container_name or process.container


class _Rows:
    # The attempts of a trace by column, and what is summed of them.
    def __init__(self, trace: Trace) -> None:
        self._trace, columns = trace, trace.columns
        ended = np.where(columns["end_ns"] > 0, columns["end_ns"], trace.end_ns)
        self._waits = waits(columns, trace.end_ns)
        self._outcome = columns["outcome"]
        self.sums: dict[str, Ints] = {
            "attempts": np.ones(len(columns), np.int64),
            "failed": np.isin(self._outcome, FAILED).astype(np.int64),
            "held_ns": np.sum([self._waits[place] for place in HOLDS], axis=0, dtype=np.int64),
            "total_ns": np.maximum(ended - start_ns(columns), 0),
        }

    def answered(self) -> tuple[np.ndarray, Ints]:
        # Which were established, and how long each took from the SYN to its outcome.
        marked = self._trace.columns["syn_ns"] > 0
        return (self._outcome == Outcome.established) & marked, self._waits["beyond"]

    def by_destination(self) -> Tally:
        keys = scope_keys(self._trace.columns, "destination")
        _, first = np.unique(keys, return_index=True)
        called = [names.destination(self._trace.attempts[row]) for row in first.tolist()]
        return self._tally(keys, called)

    def by_process(self, name: Callable[[Process], str]) -> Tally:
        rows = self._trace.columns
        pids, first, keys = np.unique(rows["pid"], return_index=True, return_inverse=True)
        known = self._trace.processes
        called = [
            name(known.get(pid, Process(pid))) or names.comm(self._trace.attempts[row])
            for pid, row in zip(pids.tolist(), first.tolist(), strict=True)
        ]
        return self._tally(keys, called)

    def by_place(self) -> Tally:
        # Where the wire was watched, the way is told in parts, and else as one.
        watched = self._trace.columns["watched"]
        counted = []
        for place, length in self._waits.items():
            if place == "user":  # a sleep before the call: the program's own, for all that is known
                continue
            if place == "beyond":
                length = np.where(watched, 0, length)
            elif place in ON_THE_WAY:
                length = np.where(watched, length, 0)
            total = int(length.sum())
            stood = length >= HELD_NS
            failed = int(self.sums["failed"][stood].sum())
            held = total if place in HOLDS else 0
            if total:
                counted.append((place, Entry(int(stood.sum()), failed, held, total)))
        return tally(counted)

    def _tally(self, keys: Ints, called: Sequence[str]) -> Tally:
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=-1)) if len(keys) else order
        sums = [np.add.reduceat(self.sums[name][order], starts).tolist() if len(keys) else []
                for name in _SUMMED]  # fmt: skip
        return tally(
            (_short(name, MOST_LETTERS), Entry(*each))
            for name, *each in zip(called, *sums, strict=True)
        )
