"""Rule `paced-connects`: connects go on at a rate, whatever else ends.

Held ones are let go one `gap` after another (`pace`), or SYNs beyond the rate are dropped and pass
when they are sent again (`bucket`). A program that paces its own calls holds nothing, and has no
part in this.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis import bucket as buckets
from porttrace.analysis import names
from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.findings import counted
from porttrace.analysis.findings import paced_wording as wording
from porttrace.analysis.findings.paced_wording import Dropped
from porttrace.analysis.findings.parties import NAMED, party, suspects
from porttrace.analysis.groups import Place, counts_are_off, kernel_places, stand_at
from porttrace.analysis.model import Attempts, Finding, Outcome, Party, Trace
from porttrace.analysis.pace import Pace, paces
from porttrace.analysis.pairs import parts_by_key
from porttrace.analysis.place import ruleset
from porttrace.analysis.rows import take
from porttrace.analysis.scope import FIRM_P, LIKELY_P, WIDE
from porttrace.analysis.wire import wire_mark, wire_seen

RULE = "paced-connects"
_CRITICAL_S = 10.0  # so much waiting in all is no trifle
_QUICK_NS = 200_000_000  # slower ones answer between the rungs and on them alike
_NEWS = 1.1  # times the drops that narrower groups explain: a wider one that explains more is it
_MOST_GROUPS = 20  # of a scope, whose drops are looked at
_ANSWERED = (Outcome.established, Outcome.refused)


def paced_connects(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find rates: one finding per place and group whose held attempts keep one, or whose SYNs do.

    Attempts that a queue with slots explains are left to `serialized-connects`.
    """
    explained = {
        (finding.place, pid)
        for finding in found
        if finding.rule == "serialized-connects"
        for pid in finding.pids()
    }
    held = [
        _of_held(trace, at, pace)
        for at in (stand_at(trace, place) for place in kernel_places(trace))
        for pace in _held_groups(at)
        if not any((at.name, pid) in explained for pid in _pids_of(trace, pace.rows))
    ]
    if counts_are_off(trace):
        return held  # slots may have dropped them as well
    queued_up = _queued_up(trace, found)
    return held + [_of_dropped(trace, dropped) for dropped in _dropped_groups(trace, queued_up)]


# Attempts to servers of this host whose accept queue ran over: a server that accepts steadily drops
# SYNs at a rate, and nobody in between does.
def _queued_up(trace: Trace, found: Sequence[Finding]) -> Bools:
    full = (finding for finding in found if finding.rule == "accept-queue")
    victims = [each.attempt_id for finding in full for each in finding.victims]
    if not victims:
        return np.zeros(len(trace.attempts), np.bool_)
    keys = scope_keys(trace.columns, "destination", trace.processes)
    return np.isin(keys, keys[np.isin(trace.columns["attempt_id"], victims)])


def _pids_of(trace: Trace, rows: Ints) -> list[int]:
    return [int(pid) for pid in np.unique(trace.columns["pid"][rows])]


# The process is the answer unless it does not fit; then the narrowest wide scope that does. Threads
# that take turns all keep a pace: of them no rate is told. A destination's own is told only where
# nothing wider fits.
def _scopes(trace: Trace, *narrow: str) -> Iterator[tuple[int, str]]:
    one = len(np.unique(scope_keys(trace.columns, "netns", trace.processes))) < 2
    wide = [scope for scope in WIDE if scope != "netns" or not one]
    return enumerate(("process", *wide, *narrow), 1)


def _held_groups(at: Place) -> list[Pace]:
    chosen: list[Pace] = []
    covered = np.zeros(len(at.trace.attempts), np.bool_)
    for rank, scope in _scopes(at.trace, "destination"):
        for pace in paces(at, scope) if len(at.held_rows) else ():
            rows = pace.rows[pace.held]
            if covered[rows].any() or not pace.fits() or pace.p_value * rank > LIKELY_P:
                continue
            if scope == "destination" and not _is_of_the_destination(at, pace):
                continue
            chosen.append(pace)
            covered[pace.rows] = True
    return chosen


# Who connects to one place again and again, each time after the same delay, keeps a pace as well.
# Several that wait in line at once do not all wait equally long.
def _is_of_the_destination(at: Place, pace: Pace) -> bool:
    waits = at.hold.lengths()[pace.rows[pace.held]]
    low, high = np.quantile(waits, (0.1, 0.9))
    return pace.p_value <= FIRM_P**2 and bool(high >= 1.5 * low)


def _of_held(trace: Trace, at: Place, pace: Pace) -> Finding:
    rows = pace.rows[pace.held]
    waits = at.hold.lengths()[rows]
    sure = _confidence(trace, pace.rows, pace.p_value)
    # A supervisor that takes its time for each call keeps a pace too; only a lone call tells.
    lone = pace.idle_passed >= 2
    sure = sure if lone else min(sure, 0.7)
    total_s = float(waits.sum()) / 1e9
    pids = _pids_of(trace, rows)
    scopes = counted.alike(trace, pace.scope, rows)
    others = counted.rivals(pace.scope, scopes)
    rules = ruleset(trace, pids[0])
    return Finding(
        rule=RULE,
        severity="critical" if total_s >= _CRITICAL_S else "warning",
        confidence=sure,
        subject=_subject(trace, pace.scope, pace.key, rows),
        summary=wording.held_summary(trace, pace, at.name, sure, waits),
        scope=pace.scope,
        place=at.name,
        mechanism="queue",
        evidence={
            "held": len(rows),
            "rate_per_s": 1e9 / pace.gap_ns,
            "gap_ms": pace.gap_ns / 1e6,
            "burst": pace.burst,
            "gaps": pace.steps,
            "gaps_kept": pace.kept,
            "broken": pace.broken,
            "idle_passed": pace.idle_passed,
            "p_value": pace.p_value,
            "total_held_s": total_s,
            "scopes": scopes,
            "settle": wording.settle_held(lone, at.name, pace.scope, others),
        },
        hypotheses=wording.held_hypotheses(trace, pace, lone),
        victims=_victims(trace, rows, waits),
        suspects=suspects(trace, pids, at.name),
        advice=wording.held_advice(pace, at.name, most_to(trace, rows), others, rules),
    )


def most_to(trace: Trace, rows: Ints) -> str:
    """Return the destination that most of these attempts went to."""
    keys = scope_keys(take(trace.attempts, rows), "destination")
    _, first, number = np.unique(keys, return_index=True, return_counts=True)
    return names.destination(trace.attempts[rows[first[np.argmax(number)]]])


def _subject(trace: Trace, scope: str, key: int, rows: Ints) -> dict[str, object]:
    pids = _pids_of(trace, rows)
    subject: dict[str, object] = {"scope": scope, "key": key, "pids": pids}
    if scope == "destination":
        subject["key"] = most_to(trace, rows)
    if len(pids) == 1:
        subject["pid"] = pids[0]
    return subject


def _confidence(trace: Trace, rows: Ints, chance: float) -> float:
    sure = 0.6 if chance > LIKELY_P / 10 else 0.7
    if chance <= FIRM_P:
        sure = 0.8 + 0.15 * min(1.0, (-math.log10(max(chance, 1e-300)) - 4) / 8)
    return round(min(sure, 0.75) if _lossy(trace, rows) else sure, 2)


def _lossy(trace: Trace, rows: Ints) -> bool:
    return bool(trace.losses) or not trace.columns["complete"][rows].all()


def _victims(trace: Trace, rows: Ints, waits: Ints) -> tuple[Party, ...]:
    order = np.lexsort((rows, -waits))[:NAMED]
    return tuple(party(trace, int(rows[i]), int(waits[i])) for i in order if waits[i] > 0)


# -- drops -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sent:
    # Attempts of which it is known when a SYN of theirs passed, one value each; times in ns.
    rows: Ints  # of the trace's attempts
    answered: Bools
    usual_ns: Ints  # of the answered ones: how long their destination takes to answer a SYN
    passed_ns: Ints  # 0: none did
    later_ns: Ints  # another one passed after that; 0: none
    dropped: Bools  # the first one did not

    def of(self, part: Ints) -> "_Sent":
        return _Sent(*(getattr(self, name)[part] for name in _Sent.__dataclass_fields__))


def _dropped_groups(trace: Trace, queued_up: Bools) -> list[Dropped]:
    # Only a SYN that was sent again and answered tells that the first one was dropped.
    answered = np.isin(trace.columns["outcome"], _ANSWERED)
    if not (answered & (trace.columns["retransmits"] > 0)).any():
        return []
    sent = _sent(trace, queued_up)
    if sent.dropped.sum() < buckets.MIN_DROPS:
        return []
    chosen: list[tuple[_Sent, Dropped]] = []
    for rank, scope, key, part in _with_drops(trace, sent):
        mine = sent.of(part)
        inside = [each for each, _ in chosen if np.isin(each.rows, mine.rows).any()]
        known = sum(int(each.dropped.sum()) for each in inside)
        news = known == 0 or (scope in WIDE and mine.dropped.sum() >= _NEWS * known)
        if not news or not (mine.dropped & mine.answered).any():
            continue
        made = buckets.bucket(_syns(trace, mine))
        if made and made.fits() and made.p_value * rank <= LIKELY_P:
            told = mine.answered
            found = Dropped(scope, key, mine.rows[told], mine.usual_ns[told], made)
            chosen = [each for each in chosen if not any(each[0] is part for part in inside)]
            chosen.append((mine, found))
    return [found for _, found in chosen]


def _syns(trace: Trace, mine: _Sent) -> buckets.Syns:
    also = mine.later_ns[mine.later_ns > 0]
    return buckets.syns(take(trace.attempts, mine.rows), mine.passed_ns, also)


# Who was answered passed a little before. Of the others only the wire tells, and only where it is
# on this host that SYNs are dropped: behind it nobody knows what became of one.
def _sent(trace: Trace, queued_up: Bools) -> _Sent:
    mine = trace.columns
    over = (mine["syn_ns"] > 0) & (mine["end_ns"] > 0) & ~queued_up
    answered = np.isin(mine["outcome"], _ANSWERED)
    rows, usual = _told_apart(trace, np.flatnonzero(over & answered))
    again = rows[mine["retransmits"][rows] > 0]
    on_wire = len(again) > 0 and _place(trace, take(trace.attempts, again)) == "egress"
    silent = np.flatnonzero(over & ~answered & mine["watched"] & on_wire)
    rows, usual = np.concatenate([rows, silent]), np.concatenate([usual, 0 * silent])
    syn, end, wire, last = (
        mine[mark][rows].astype(np.int64)
        for mark in ("syn_ns", "end_ns", "wire_ns", "wire_last_ns")
    )
    told = np.isin(rows, silent, invert=True)
    passed = np.maximum(end - usual, syn)
    # A late answer to the first SYN is the server's affair.
    first = mine["retransmits"][rows] == 0
    passed = np.where(first, np.minimum(passed, syn + buckets.RESENT_NS), passed)
    passed = np.where(told & ~(on_wire & (wire > 0)), passed, wire)
    later = np.where(~told & (mine["wire_count"][rows] > 1), last, 0)
    dropped = (passed == 0) | (passed - syn > buckets.RESENT_NS)
    return _Sent(rows, told, usual, passed, later, dropped)


# The groups of each scope with enough drops, those with the most first; a group that has the very
# same attempts as one before is none of its own.
def _with_drops(trace: Trace, sent: _Sent) -> Iterator[tuple[int, str, int, Ints]]:
    known: set[bytes] = set()
    for rank, scope in _scopes(trace, "destination"):
        keys = scope_keys(trace.columns, scope, trace.processes)[sent.rows]
        parts = [(int(sent.dropped[part].sum()), key, part)
                 for key, part in zip(*parts_by_key(keys), strict=True)]  # fmt: skip
        parts.sort(key=lambda part: -part[0])
        for drops, key, part in parts[:_MOST_GROUPS]:
            if drops >= buckets.MIN_DROPS and part.tobytes() not in known:
                known.add(part.tobytes())
                yield rank, scope, key, part


# The attempts of which it is known which SYN was answered, and how long their destination takes to
# answer one. A destination that never answered a first SYN at once may do so for any reason.
def _told_apart(trace: Trace, rows: Ints) -> tuple[Ints, Ints]:
    usual = _usual_ns(trace, rows)
    mine = trace.columns
    late = mine["end_ns"][rows].astype(np.int64) - mine["syn_ns"][rows].astype(np.int64) - usual
    known = (usual > 0) & (usual < _QUICK_NS)
    known &= (mine["retransmits"][rows] == 0) | (late >= buckets.RESENT_NS)
    return rows[known], usual[known]


# How long each attempt's destination takes to answer the first SYN; 0 if it never did.
def _usual_ns(trace: Trace, rows: Ints) -> Ints:
    mine = trace.columns
    took, sent_once = (mine["end_ns"] - mine["syn_ns"])[rows], mine["retransmits"][rows] == 0
    usual = np.zeros(len(rows), np.int64)
    for part in parts_by_key(scope_keys(mine, "destination")[rows])[1]:
        first = part[sent_once[part]]
        usual[part] = int(np.median(took[first])) if len(first) else 0
    return usual


def _of_dropped(trace: Trace, dropped: Dropped) -> Finding:
    mine = take(trace.attempts, dropped.rows)
    again = mine["retransmits"] > 0
    rows = dropped.rows[again]
    took = mine["end_ns"].astype(np.int64) - mine["syn_ns"].astype(np.int64)
    waits = (took - dropped.usual_ns)[again]
    several = len(np.unique(scope_keys(mine[again], "destination"))) > 1
    sure = _confidence(trace, dropped.rows, dropped.found.p_value)
    sure = sure if several else min(sure, 0.75)
    total_s, place = float(waits.sum()) / 1e9, _place(trace, mine[again])
    pids = _pids_of(trace, rows)
    scopes = counted.alike(trace, dropped.scope, dropped.rows)
    others = counted.rivals(dropped.scope, scopes)
    rules = ruleset(trace, pids[0])
    return Finding(
        rule=RULE,
        severity="critical" if total_s >= _CRITICAL_S else "warning",
        confidence=sure,
        subject=_subject(trace, dropped.scope, dropped.key, rows),
        summary=wording.dropped_summary(trace, dropped, rows, waits, sure),
        scope=dropped.scope,
        place=place,
        mechanism="drop",
        evidence={
            "delayed": len(rows),
            "rate_per_s": dropped.found.rate,
            "burst": dropped.found.burst,
            "syns_dropped": dropped.found.drops,
            "syns_passed": dropped.found.passes,
            "dropped_while_empty": dropped.found.dropped_fit,
            "passed_while_not": dropped.found.passed_fit,
            "open_fit": dropped.found.open_fit,
            "p_value": dropped.found.p_value,
            "total_late_s": total_s,
            "scopes": scopes,
            "settle": wording.settle_dropped(place, dropped.scope, others),
        },
        hypotheses=wording.dropped_hypotheses(trace, dropped.found, several),
        victims=_victims(trace, rows, waits),
        suspects=suspects(trace, pids, place or "egress"),
        advice=wording.dropped_advice(dropped, place, most_to(trace, rows), others, rules),
    )


# A SYN that left this host late was dropped before the wire; without the wire nobody knows.
def _place(trace: Trace, late: Attempts) -> str:
    if not wire_seen(trace):
        return ""
    wire, syn = wire_mark(late, "wire_ns"), late["syn_ns"].astype(np.int64)
    # All of these were answered, so all left: those not seen on the wire were not watched there.
    if not (wire > 0).all():
        return ""
    held_back = wire - syn > 500_000_000
    return "egress" if float(np.mean(held_back)) >= 0.9 else "network"
