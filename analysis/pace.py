"""The statistical test: are held attempts let go at a rate, whatever else ends?

A bucket of tokens, as limits per time are made: a token comes every `gap`, at most `burst` are
kept, and who finds none waits for the next. So two that were held go on exactly one gap apart,
nobody goes on sooner after a held one, and nobody is held for longer than a gap if nobody was held
before.
"""

from dataclasses import dataclass, replace

import numpy as np

from porttrace.analysis.binomial import upper_tail
from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.groups import Place
from porttrace.analysis.holds import Queue, Spans
from porttrace.analysis.pairs import parts_by_key
from porttrace.analysis.throttle import examine

MIN_STEPS = 5  # gaps between held ones; fewer tell nothing
TOLERANCE, TOLERANCE_NS = 0.1, 3_000_000  # schedulers and timers are late by as much
MIN_KEPT = 0.9  # share of the gaps that keep the pace
MOST_BROKEN = 0.05  # share of the releases that a rate cannot explain
_BY_CHANCE = 0.25  # that a gap lies so near the median of any gaps that come in one broad heap
_SHORTEST_NS = 10_000_000  # what handles each call by itself may well take as long
_AT_ONCE = 0.25  # of a gap: who waited longer did not find a token
_FOLLOWS, _FOLLOWS_P = 0.8, 0.01  # releases that follow ends so are no matter of pace


@dataclass(frozen=True)
class Pace:
    """A group whose held attempts may be let go at a rate."""

    scope: str
    key: int
    rows: Ints  # of the trace's attempts that went on, in order of release
    held: Bools  # of `rows`
    gap_ns: int  # median, from one held one to the next
    steps: int  # such gaps
    kept: int  # of these, near the median
    broken: int  # releases that came too soon after a held one, or too late after a free one
    checked: int
    idle_passed: int  # let through at once after a rest of more than a gap
    idle_held: int  # and not let through at once, though a token must have been there
    burst: int
    follows_ends: bool
    p_value: float  # of so many gaps alike by chance, corrected for the groups tried

    def fits(self) -> bool:
        """Tell whether a rate explains all of it, chance left aside."""
        return (
            self.steps >= MIN_STEPS
            and self.gap_ns >= _SHORTEST_NS
            and self.kept >= MIN_KEPT * self.steps
            and self.broken <= MOST_BROKEN * self.checked
            and self.idle_held <= MOST_BROKEN * (self.idle_passed + self.idle_held)
            and not self.follows_ends
        )


def paces(place: Place, scope: str) -> list[Pace]:
    """Return the groups of `scope` that are held at `place` often enough to have a pace."""
    keys = place.keys(scope)
    found, counts = np.unique(keys[place.held_rows], return_counts=True)
    wanted = found[counts > MIN_STEPS]
    rows = np.flatnonzero(np.isin(keys, wanted))
    parts = zip(*parts_by_key(keys[rows]), strict=True) if len(rows) else ()
    return [_pace(place, scope, key, rows[part], len(wanted)) for key, part in parts]


def _pace(place: Place, scope: str, key: int, rows: Ints, tried: int) -> Pace:
    rows, release, waited = _released(place, rows)
    held, gaps = np.isin(rows, place.held_rows), np.diff(release)
    steps = gaps[held[1:] & held[:-1]]
    gap = int(np.median(steps)) if len(steps) else 0
    slack = TOLERANCE * gap + TOLERANCE_NS
    kept = int(np.count_nonzero(np.abs(steps - gap) <= slack))
    broken = (held[:-1] & (gaps < gap - slack)) | (held[1:] & (gaps > gap + slack))
    rested, at_once = gaps - waited[1:] > gap + slack, waited[1:] <= _AT_ONCE * gap
    chance = upper_tail(np.full(max(len(steps) - 1, 0), _BY_CHANCE), max(kept - 1, 0)) * tried
    made = Pace(
        scope=scope, key=key, rows=rows, held=held, gap_ns=gap, steps=len(steps), kept=kept,
        broken=int(np.count_nonzero(broken)), checked=int(np.count_nonzero(held[1:] | held[:-1])),
        idle_passed=int(np.count_nonzero(rested & at_once)),
        idle_held=int(np.count_nonzero(rested & ~at_once)),
        burst=_burst(release, gap), follows_ends=False, p_value=min(1.0, chance),
    )  # fmt: skip
    return replace(made, follows_ends=_follows_ends(place, rows)) if made.fits() else made


# Those that went on, in the order in which they did: rows, when, and after how long a wait.
def _released(place: Place, rows: Ints) -> tuple[Ints, Ints, Ints]:
    hold, service = place.hold, place.service
    waited = hold.stop[rows] - hold.start[rows]
    release = np.where(waited > 0, hold.stop[rows], service.start[rows])
    on = np.where(waited > 0, hold.closed[rows], service.start[rows] > 0)
    order = np.flatnonzero(on)[np.argsort(release[on], kind="stable")]
    return rows[order], release[order], waited[order]


# The most that ever went on beyond what the rate alone gives: the tokens that were kept.
def _burst(release: Ints, gap: int) -> int:
    if not gap or not len(release):
        return 1
    ahead = np.arange(len(release)) - (release - release[0]) / gap
    return max(1, round(1 + float((ahead - np.minimum.accumulate(ahead)).max())))


# In a queue with slots, releases come right after ends; where services are all alike, they keep a
# pace by that.
def _follows_ends(place: Place, rows: Ints) -> bool:
    def of(spans: Spans) -> Spans:
        return Spans(spans.start[rows], spans.stop[rows], spans.closed[rows])

    verdict = examine(Queue(of(place.hold), of(place.service)))
    if verdict is None:
        return False
    follows = verdict.explained() >= _FOLLOWS and verdict.p_value <= _FOLLOWS_P
    return verdict.throttled() or (follows and not verdict.paced)
