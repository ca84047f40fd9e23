"""Rule `broken-family`: attempts over IPv6 die first, and IPv4 saves them.

A program that has both addresses of a service tries IPv6 first, and IPv4 when that fails (one
after the other) or takes long (side by side, "happy eyeballs"). Where IPv6 never works, each
connection costs that wait, and nobody sees an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.binomial import upper_tail
from porttrace.analysis.concurrency import Ints, resolved_ns
from porttrace.analysis.findings.alternatives import by_chance
from porttrace.analysis.findings.parties import NAMED, party
from porttrace.analysis.holds import HELD_NS
from porttrace.analysis.model import Finding, Hypothesis, Outcome, Party, Trace, start_ns
from porttrace.analysis.pairs import parts_by_key
from porttrace.analysis.rows import take
from porttrace.analysis.timeline import measure, union

RULE = "broken-family"

MIN_RESCUES = 3
"""Fewer may be chance: one restart of a server is enough for one."""
NEXT_NS = 100_000_000
"""So soon after an IPv6 attempt failed the program turns to the next address."""
RACE_NS = (150_000_000, 3_000_000_000)
"""Between these times after IPv6 a program starts IPv4 beside it: 250 ms is usual (RFC 8305), some
libraries wait for 1 to 2 s. IPv6 that loses sooner is only the slower one."""
CHANCE = 1e-3
_TRIED = (0.5, 0.7, 0.9, 1.0)  # shares of the pairs that may be the true ones
_TIMERS = 20  # head starts that programs might have
_MOST = 2000  # dead attempts that are looked at: more change nothing
_WORTH_NS = 250_000_000  # a pause that a person feels
_AF_INET, _AF_INET6 = 2, 10
_DEAD = (Outcome.timed_out, Outcome.unreachable, Outcome.refused, Outcome.denied, Outcome.reset,
         Outcome.failed)  # fmt: skip


@dataclass(frozen=True)
class Rescues:
    """IPv6 attempts of one process to one port that died, each with the IPv4 one that saved it."""

    dead: Ints  # of the trace's attempts
    savers: Ints
    lost_ns: Ints  # from the IPv6 attempt to the IPv4 one
    raced: bool  # both were open at once
    unsaved: int  # IPv6 attempts that died without
    p_value: float  # that IPv4 attempts follow so many of them by chance


def broken_family(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find processes and ports whose IPv6 attempts all die while IPv4 is established instead."""
    attempts = trace.columns
    six = attempts["family"] == _AF_INET6
    if not six.any():
        return []
    pairs = attempts["pid"].astype(np.int64) << 16 | attempts["dport"].astype(np.int64)
    wanted = np.flatnonzero(np.isin(pairs, np.unique(pairs[six])))
    parts = parts_by_key(pairs[wanted])[1]
    cases = (_rescues(trace, wanted[part], len(parts)) for part in parts)
    return [_finding(trace, case) for case in cases if case]


def _rescues(trace: Trace, rows: Ints, tried: int) -> Rescues | None:
    mine = take(trace.attempts, rows)
    six, good = mine["family"] == _AF_INET6, mine["outcome"] == Outcome.established
    # One answer over IPv6 shows that it works, however seldom.
    if (six & good).any():
        return None
    begun, over = start_ns(mine), resolved_ns(mine, trace.end_ns)
    given_up = (mine["outcome"] == Outcome.cancelled) & (over - begun >= RACE_NS[0])
    dead = np.flatnonzero(six & (np.isin(mine["outcome"], _DEAD) | given_up))
    savers = np.flatnonzero(~six & good)
    if len(dead) < MIN_RESCUES or len(savers) < MIN_RESCUES:
        return None
    dead = dead[np.argsort(begun[dead], kind="stable")][:_MOST]
    savers = savers[np.argsort(begun[savers], kind="stable")]
    saved = _paired(mine["tid"], begun, over, dead, savers)
    hit = saved >= 0
    raced = np.zeros(len(dead), np.bool_)
    raced[hit] = over[dead[hit]] > begun[savers[saved[hit]]]
    # A program does it in one way; what fits the other one is more likely its next connect.
    hit &= raced == (2 * np.count_nonzero(raced) > np.count_nonzero(hit))
    if np.count_nonzero(hit) < max(MIN_RESCUES, 0.5 * len(dead)):
        return None
    first, second = dead[hit], savers[saved[hit]]
    chance = _chance(begun, over, first, second, savers, len(dead)) * tried
    case = Rescues(
        dead=rows[first],
        savers=rows[second],
        lost_ns=begun[second] - begun[first],
        raced=bool(raced.any() and raced[hit].all()),
        unsaved=len(dead) - len(first),
        p_value=min(1.0, chance),
    )
    # Where IPv4 does not follow, IPv6 is simply the only way that is tried.
    return case if case.p_value <= CHANCE else None


# For each dead attempt the first IPv4 one, not taken yet, that began right after its end or beside
# it; of the same thread if any thread does so, since one's own next attempt is the likelier rescue.
def _paired(tid: Ints, begun: Ints, over: Ints, dead: Ints, savers: Ints) -> Ints:
    found = np.full(len(dead), -1, np.int64)
    taken: set[int] = set()
    for number, row in enumerate(dead.tolist()):
        first = int(np.searchsorted(begun[savers], begun[row], "right"))
        last = int(np.searchsorted(begun[savers], over[row] + NEXT_NS, "right"))
        free = (i for i in range(first, last) if i not in taken)
        near = [i for i in free if _follows(begun, over, row, int(savers[i]))]
        own = [i for i in near if tid[savers[i]] == tid[row]]
        if near:
            found[number] = (own or near)[0]
            taken.add(int(found[number]))
    return found


def _follows(begun: Ints, over: Ints, dead: int, saver: int) -> bool:
    head = int(begun[saver] - begun[dead])
    beside = begun[saver] < over[dead] and RACE_NS[0] <= head <= RACE_NS[1]
    after = 0 <= begun[saver] - over[dead] <= NEXT_NS
    return bool(beside or after)


# Were IPv4 attempts independent of IPv6, one would begin so close to the time of a rescue as often
# as the share of all times that lie so close before one says. How close is tried a few times, and
# corrected for: a stray pair must not hide that all others meet to the millisecond.
def _chance(begun: Ints, over: Ints, dead: Ints, saved: Ints, savers: Ints, number: int) -> float:
    raced = bool((over[dead] > begun[saved]).all())
    lag = begun[saved] - (begun if raced else over)[dead]
    # Side by side it is a timer's length that they keep; one after the other, nothing at all.
    usual = int(np.median(lag)) if raced else 0
    distance = np.sort(np.abs(lag - usual))
    low, high = int(begun.min()), int(begun.max()) + 1
    best = 1.0
    for share in _TRIED:
        hits = max(MIN_RESCUES, round(share * len(dead)))
        reach = int(distance[hits - 1]) + 1
        due = begun[savers] - usual
        knots = union(due - reach, due + (reach if raced else 1))
        covered = measure(knots, np.array([low - usual]), np.array([high - usual]))[0]
        chance = np.full(number, min(1.0, float(covered) / (high - low)))
        best = min(best, upper_tail(chance, hits))
    return best * len(_TRIED) * (_TIMERS if raced else 1)


def _finding(trace: Trace, case: Rescues) -> Finding:
    first = trace.attempts[case.dead[0]]
    pid, port = int(first["pid"]), int(first["dport"])
    worst = int(case.lost_ns.max())
    return Finding(
        rule=RULE,
        severity="warning" if worst >= _WORTH_NS else "info",
        confidence=_confidence(trace, case),
        subject={
            "pid": pid, "pids": [pid], "port": port, "family": 6,
            "destinations": sorted(_to(trace, case.dead)),
        },
        summary=_summary(trace, case, pid, port),
        evidence=_evidence(trace, case),
        hypotheses=_hypotheses(case),
        victims=_victims(trace, case),
        advice=_advice(trace, case),
    )  # fmt: skip


def _to(trace: Trace, rows: Ints) -> set[str]:
    return {names.destination(row) for row in take(trace.attempts, rows[:1000])}


def _confidence(trace: Trace, case: Rescues) -> float:
    number = len(case.dead)
    sure = 0.7 if number < 5 else 0.85 if number < 10 else 0.95
    rows = np.concatenate([case.dead, case.savers])
    lossy = trace.losses or not trace.columns["complete"][rows].all()
    return min(sure, 0.75) if lossy else sure


def _victims(trace: Trace, case: Rescues) -> tuple[Party, ...]:
    order = np.argsort(-case.lost_ns, kind="stable")[:NAMED]
    lost = case.lost_ns
    return tuple(
        party(trace, int(case.savers[i]), int(lost[i])) for i in order if lost[i] >= HELD_NS
    )


def _kinds(trace: Trace, case: Rescues) -> dict[str, int]:
    kinds, counts = np.unique(trace.columns["outcome"][case.dead], return_counts=True)
    return {Outcome(int(k)).name: int(n) for k, n in zip(kinds, counts, strict=True)}


_SAID = {"timed_out": "timed out", "cancelled": "given up"}


def _summary(trace: Trace, case: Rescues, pid: int, port: int) -> str:
    kinds = ", ".join(f"{n} {_SAID.get(kind, kind)}" for kind, n in _kinds(trace, case).items())
    to = sorted(_to(trace, case.dead))
    where = to[0] if len(to) == 1 else f"{len(to)} addresses, port {port}"
    lost, worst = float(np.median(case.lost_ns)), float(case.lost_ns.max())
    each, most = names.duration(lost), names.duration(worst)
    each += f", at worst {most}" if worst > 1.2 * lost and most != each else ""
    return (
        f"{names.process(trace, pid)} tries IPv6 first and never gets through ({where}):"
        f" {names.count(len(case.dead), 'attempt')} died ({kinds}), and IPv4 saved each of them"
        f" {each} later."
    )


def _evidence(trace: Trace, case: Rescues) -> dict[str, object]:
    return {
        "rescued": len(case.dead),
        "not_rescued": case.unsaved,
        "by_outcome": _kinds(trace, case),
        "side_by_side": case.raced,
        "lost_median_s": float(np.median(case.lost_ns)) / 1e9,
        "lost_worst_s": int(case.lost_ns.max()) / 1e9,
        "lost_total_s": int(case.lost_ns.sum()) / 1e9,
        "p_value": case.p_value,
        "ipv4": sorted(_to(trace, case.savers)),
    }


def _hypotheses(case: Rescues) -> tuple[Hypothesis, ...]:
    works = "no attempt over IPv6 to this port was ever established here"
    chance = (
        f"IPv4 follows {len(case.dead)} of {len(case.dead) + case.unsaved} dead attempts, which"
        f" {by_chance(case.p_value)}"
    )
    return (
        Hypothesis("IPv6 works and is slower", "refuted", works),
        Hypothesis("unrelated IPv4 attempts", "refuted", chance),
    )


def _advice(trace: Trace, case: Rescues) -> tuple[str, ...]:
    to = sorted(_to(trace, case.dead))[0]
    kinds = _kinds(trace, case)
    if set(kinds) == {Outcome.refused.name}:
        cure = f"let the service listen on IPv6 too ({to} refuses), or name its IPv4 address"
    elif set(kinds) == {Outcome.unreachable.name}:
        cure = f"give this host a route to {to} (ip -6 route), or take the AAAA record away"
    else:
        cure = f"find out who drops IPv6 to {to} (ip -6 route, the firewalls), or take the AAAA"
        cure += " record away"
    return (
        f"For good: {cure}.",
        "Until then prefer IPv4 here: 'precedence ::ffff:0:0/96 100' in /etc/gai.conf, or an IPv4"
        " address in the program's settings.",
    )
