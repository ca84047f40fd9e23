"""Whom does a throttle count? The narrowest scope that explains all handoffs, wider ones refuted.

A process is the answer unless handoffs cross processes (then user, cgroup, netns or host), or the
process itself refutes it by having more open at once than the slots (then thread, destination).
"""

from dataclasses import dataclass, replace

import numpy as np

from porttrace.analysis.binomial import together
from porttrace.analysis.concurrency import SCOPES, Ints
from porttrace.analysis.groups import LONG_NS, Group, Place, groups
from porttrace.analysis.throttle import MIN_EXPLAINED

WIDE = ("user", "cgroup", "netns", "host")
NARROW = ("thread", "destination")

LIKELY_P = 0.02  # of one coincidence in the seed case: a release 1 ms after an end, 0.5 s held
WIDE_P = 1e-3
FIRM_P = 1e-4
_NEW_SHARE = 0.02  # of its handoffs must be news for a wider scope to replace narrower ones
_MOST_PARTS = 0.7  # of the groups side by side must look throttled each by itself
_COMPARED = 200  # groups of another scope that are examined to tell how it fares


@dataclass(frozen=True)
class ScopeResult:
    """How one scope fares with the holds of one finding."""

    scope: str
    held: int
    handoffs: int
    verdict: str  # explains, contradicted, fails, same
    why: str

    def row(self) -> dict[str, object]:
        """Return it as plain values for a finding's evidence."""
        return dict(vars(self))


def throttled_groups(place: Place) -> list[Group]:
    """Return the groups that a throttle at `place` holds, each in the scope that fits best."""
    if not len(place.held_rows):
        return []
    processes = _agreed(groups(place, "process"))
    chosen = [g for g in processes if _believable(g, LIKELY_P)]
    for scope in _wide_scopes(place):
        for group in _agreed(groups(place, scope)):
            if _believable(group, WIDE_P):
                chosen = _widen(place, chosen, group)
    covered = np.zeros(len(place.trace.attempts), np.bool_)
    covered[_rows(chosen)] = True
    contradicted = [g for g in processes if not covered[g.rows].any()]
    split = [(group, _split(place, group)) for group in chosen]
    kept = [finding for group, parts in split for finding in parts or [group]]
    return kept + _narrow(place, contradicted)


# Where a throttle counts several groups, each by itself, all of them have as many slots: what one
# of them leaves to chance, all together may not. Those that no throttle explains count as well.
def _agreed(found: list[Group]) -> list[Group]:
    passed = [g.verdict.throttled() and g.verdict.testable > 0 for g in found]
    both = list(zip(found, passed, strict=True))
    kinds = {(g.verdict.slots, g.verdict.mechanism) for g, one in both if one}
    if sum(passed) < 2 or len(kinds) > 1:
        return found
    joint = together([g.verdict.p_value if one else 1.0 for g, one in both])
    return [replace(g, joint_p=joint) if one else g for g, one in both]


# With one network namespace in the trace, or none known, "netns" would only say "host" in a way
# that suggests a contrast which was never seen.
def _wide_scopes(place: Place) -> list[str]:
    one = len(np.unique(place.keys("netns"))) < 2
    return [scope for scope in WIDE if scope != "netns" or not one]


# Several saturated throttles side by side look like one with the sum of their slots. But there the
# ends hand over to their own side only: two or more narrow groups that explain it all decide it.
def _split(place: Place, group: Group) -> list[Group]:
    if group.verdict.slots < 2 or not group.verdict.testable:
        return []
    parts = _narrow(place, [group])
    return parts if len(parts) > 1 else _side_by_side(place, group)


# The same of processes, users and control groups: each is full all the time and never more than
# that, and together they have as many slots as seemed to be shared.
def _side_by_side(place: Place, group: Group) -> list[Group]:
    held = group.rows[group.queue.held()]
    for scope in ("process", *_wide_scopes(place)):
        if scope == group.scope:
            return []
        parts = groups(place, scope, among=held)
        passed = [g for g in parts if g.verdict.throttled()]
        slots = [g.verdict.slots for g in parts]
        handed = sum(g.verdict.handoffs for g in parts)
        if (
            len(passed) >= max(2, _MOST_PARTS * len(parts))
            and len(set(slots)) == 1
            and sum(slots) == group.verdict.slots
            and all(g.verdict.peak == g.verdict.slots for g in parts)
            and handed >= MIN_EXPLAINED * group.verdict.handoffs
        ):
            return [replace(g, joint_p=group.p_value()) for g in passed]
    return []


def _believable(group: Group, chance: float) -> bool:
    verdict = group.verdict
    if not verdict.throttled():
        return False
    return group.p_value() <= chance if verdict.testable else still_held(group)


def still_held(group: Group) -> bool:
    """Tell whether nobody was released yet, but slots were taken all the time of a long wait."""
    verdict = group.verdict
    waits = group.queue.hold.lengths()[~group.queue.hold.closed]
    released = verdict.held > verdict.waiting
    return not released and int(waits.max(initial=0)) >= LONG_NS and verdict.busy >= 0.98


# A wider group replaces the narrower ones inside it if it explains holds that they do not: only
# handoffs that cross their borders show that the border is not the throttle's.
def _widen(place: Place, chosen: list[Group], wide: Group) -> list[Group]:
    if len(np.unique(place.keys("process")[wide.rows])) < 2 or not wide.verdict.handoffs:
        return chosen
    within = np.zeros(len(place.trace.attempts), np.bool_)
    within[wide.rows] = True
    inside = [g for g in chosen if within[g.rows].any()]
    known = np.concatenate([g.handed_rows() for g in inside]) if inside else _rows([])
    news = np.setdiff1d(wide.handed_rows(), known)
    if len(news) < max(1.0, _NEW_SHARE * wide.verdict.handoffs):
        return chosen
    return [g for g in chosen if not within[g.rows].any()] + [wide]


def _rows(found: list[Group]) -> Ints:
    return np.concatenate([g.rows for g in found]) if found else np.empty(0, np.int64)


# The narrower the scope, the more groups are tried and the fewer handoffs each has: they must
# explain nearly all holds of the processes that refute the wider answer, beyond doubt.
def _narrow(place: Place, contradicted: list[Group]) -> list[Group]:
    held = np.unique(np.concatenate([_rows([]), *(g.rows[g.queue.held()] for g in contradicted)]))
    # By time: a busy machine holds many of them for a moment.
    lengths = place.hold.lengths()[held]
    best: tuple[float, list[Group]] = (0.0, [])
    for scope in NARROW if len(held) else ():
        passed = [g for g in groups(place, scope, among=held) if g.verdict.throttled()]
        handed = np.concatenate([_rows([]), *(g.handed_rows() for g in passed)])
        share = float(lengths[np.isin(held, handed)].sum() / lengths.sum())
        firm = [g for g in _agreed(passed) if g.verdict.handoffs >= 3 and g.p_value() <= FIRM_P]
        firm = _overrun(place, contradicted, firm)
        if share >= MIN_EXPLAINED and share > best[0]:
            best = (share, firm)
    return best[1]


# A narrow group stands only against processes that had more open at once than it has slots; one
# that several processes share, against all of the host together.
def _overrun(place: Place, processes: list[Group], narrow: list[Group]) -> list[Group]:
    peak = np.zeros(len(place.trace.attempts), np.int64)
    for process in processes:
        peak[process.rows] = process.verdict.peak
    pids = place.keys("process")
    shared = [g for g in narrow if len(np.unique(pids[g.rows])) > 1]
    for host in groups(place, "host") if shared else ():
        for group in shared:
            peak[group.rows] = np.maximum(peak[group.rows], host.verdict.peak)
    return [g for g in narrow if int(peak[g.rows].max()) > g.verdict.slots]


def compare(place: Place, group: Group) -> tuple[ScopeResult, ...]:
    """Return how each scope fares with the holds of `group`."""
    held = group.rows[group.queue.held()]
    return tuple(_fare(place, group, held, scope) for scope in SCOPES)


def _fare(place: Place, group: Group, held: Ints, scope: str) -> ScopeResult:
    if scope == group.scope:
        return ScopeResult(scope, len(held), group.verdict.handoffs, "explains", "fits best")
    others = groups(place, scope, among=held, most=_COMPARED)
    handed = sum(int(np.isin(g.handed_rows(), held).sum()) for g in others)
    over = [g for g in others if g.verdict.peak > group.verdict.slots]
    if len(others) == 1 and np.array_equal(others[0].rows, group.rows):
        why = "its attempts are the very same ones: this trace cannot tell the two apart"
        return ScopeResult(scope, len(held), handed, "same", why)
    if over:
        peak = max(g.verdict.peak for g in over)
        why = f"{peak} attempts of one {scope} were in service at once"
        return ScopeResult(scope, len(held), handed, "contradicted", why)
    if handed < group.verdict.handoffs:
        why = f"only {handed} of {group.verdict.handoffs} handoffs stay within one {scope}"
        return ScopeResult(scope, len(held), handed, "fails", why)
    why = "it explains the holds too; nothing in this trace contradicts it"
    return ScopeResult(scope, len(held), handed, "explains", why)
