"""The statistical test: are SYNs dropped because they exceed a rate?

The SYNs of a group are let through or dropped as a bucket of tokens
would: `rate` a second, at most `burst` kept. Which bucket it is, is found by trying many; a bucket
that explains nearly every drop and nearly every pass is no accident, where both alternate.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from porttrace.analysis.concurrency import Bools, Ints
from porttrace.analysis.denials import hypergeometric_tail
from porttrace.analysis.model import Attempts

MIN_DROPS = 8
MIN_FIT = 0.95  # share of the drops, and of the passes, that the bucket explains
MIN_TURNS = 6  # times that drops and passes take turns
MIN_SETTLED = 0.7  # share of the SYNs that come neither just before nor just after a token
_NONE, _THERE, _UNSURE = 0, 1, 2  # tokens
_MOST_SYNS = 4000  # the first of them; more change nothing
_BURSTS = np.array([1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 30, 50], np.float64)
_RATES = np.geomspace(0.2, 500, 90)
RESENT_NS = 500_000_000
"""No SYN is sent again sooner."""
_STARTS = 4  # coarse rates from which a better one is looked for
_SLACK_S = 0.015  # so much earlier a token may be there than the times of SYNs say
_SLACK = 0.1  # of a token
_IN_FLIGHT_FIT = 0.9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Syns:
    """SYNs in order of time, ns: which were dropped, and how many attempts were open then."""

    time: Ints
    dropped: Bools
    open: Ints  # attempts whose SYN had passed and that were not answered yet


@dataclass(frozen=True)
class Bucket:
    """The bucket that explains the drops best; shares are 0..1, of the SYNs it says anything of."""

    rate: float  # tokens a second
    burst: int
    drops: int
    passes: int
    dropped_fit: float  # share of the drops at which it was empty
    passed_fit: float  # share of the passes at which it was not
    settled: float  # share of the drops, and of the passes, of which it says anything
    turns: int
    open_fit: float  # how well a number of open attempts would explain the same drops
    p_value: float

    def fits(self) -> bool:
        """Tell whether a rate explains the drops, and open attempts do not, chance left aside."""
        return (
            self.drops >= MIN_DROPS
            and self.passes >= MIN_DROPS
            and self.settled >= MIN_SETTLED
            and self.turns >= MIN_TURNS
            and min(self.dropped_fit, self.passed_fit) >= MIN_FIT
            and self.open_fit < _IN_FLIGHT_FIT
        )


def syns(attempts: Attempts, passed_ns: Ints, also_ns: Ints) -> Syns:
    """Return the SYNs of these attempts: each first one, and those that passed.

    `passed_ns`: when the first SYN of each passed, 0 if none did; one that did so with its first
    SYN passed at `syn_ns` or a little later. `also_ns`: when further ones did. Dropped ones between
    are left out: timers are late by as much as a token or two, and what is dropped takes no token,
    so that nothing depends on them.
    """
    syn, end = attempts["syn_ns"].astype(np.int64), attempts["end_ns"].astype(np.int64)
    went = passed_ns > 0
    dropped = syn[~went | (passed_ns - syn > RESENT_NS)]
    passed = np.concatenate([passed_ns[went], also_ns])
    time = np.concatenate([passed, dropped])
    order = np.argsort(time, kind="stable")[:_MOST_SYNS]
    time = time[order]
    begun, over = np.sort(passed_ns[went]), np.sort(end[went])
    flying = np.searchsorted(begun, time, "left") - np.searchsorted(over, time)
    return Syns(time, order >= len(passed), np.maximum(flying, 0))


def bucket(found: Syns) -> Bucket | None:
    """Return the bucket that explains `found` best, None where there are too few drops."""
    drops = int(np.count_nonzero(found.dropped))
    if drops < MIN_DROPS or len(found.dropped) - drops < MIN_DROPS:
        return None
    rate, burst = _best(found)
    had = _tokens(found, np.array([rate]), np.array([burst]))[:, 0]
    counts, had = had != _UNSURE, had == _THERE
    met = int((~had & found.dropped & counts).sum())
    passed = int((had & ~found.dropped & counts).sum())
    empty, filled = int((~had & counts).sum()), int((had & counts).sum())
    chance = hypergeometric_tail(met, empty, passed, filled) * len(_BURSTS) * len(_RATES)
    return Bucket(
        rate=rate, burst=round(burst), drops=drops, passes=len(found.dropped) - drops,
        dropped_fit=met / max(1, int((found.dropped & counts).sum())),
        passed_fit=passed / max(1, int((~found.dropped & counts).sum())),
        settled=min(float(counts[found.dropped].mean()), float(counts[~found.dropped].mean())),
        turns=int(np.count_nonzero(np.diff(found.dropped.astype(np.int8)))),
        open_fit=_open_fit(found), p_value=min(1.0, chance),
    )  # fmt: skip


# Under a load that never lets the bucket fill, a rate that is a hundredth off is soon whole tokens
# off: what is best on the coarse grid need not be near the best of all, so several are refined.
def _best(found: Syns) -> tuple[float, float]:
    rates, bursts = (grid.reshape(-1) for grid in np.meshgrid(_RATES, _BURSTS))
    right = _right(found, rates, bursts)
    most = [np.argmax(np.where(rates == rate, right, -1)) for rate in _RATES]
    most.sort(key=lambda at: -right[at])
    starts = [(float(rates[at]), float(bursts[at])) for at in most[:_STARTS]]
    if steady := _steady(found):
        starts += [(steady, burst) for burst in (2.0, 6.0, 12.0)]
    return max(_near(found, *start) for start in starts)[1:]


# What passed in the time from the first to the last drop: of a bucket that stays empty its rate.
def _steady(found: Syns) -> float:
    first, last = np.flatnonzero(found.dropped)[[0, -1]]
    span_ns = int(found.time[last] - found.time[first])
    passed = int(np.count_nonzero(~found.dropped[first:last]))
    return passed * 1e9 / span_ns if span_ns > 0 else 0.0


# The best near a rate and burst, and how well it does.
def _near(found: Syns, rate: float, burst: float) -> tuple[float, float, float]:
    near = np.linspace(0.9, 1.1, 41) * rate
    whole = np.arange(max(1, round(burst) - 4), round(burst) + 5, dtype=np.float64)
    rates, bursts = (grid.reshape(-1) for grid in np.meshgrid(near, whole))
    right = _right(found, rates, bursts)
    # Of equally good ones the middle: the rate lies between the least and the greatest.
    best = np.flatnonzero(right >= right.max() - 1e-9)
    burst = float(np.median(bursts[best]))
    own = best[np.abs(bursts[best] - burst) == np.abs(bursts[best] - burst).min()]
    return float(right.max()), float(np.median(rates[own])), float(bursts[own[0]])


def _right(found: Syns, rates: Floats, bursts: Floats) -> Floats:
    had, dropped = _tokens(found, rates, bursts), found.dropped
    return np.minimum(_share(had[dropped], _NONE), _share(had[~dropped], _THERE))


# The share of what is settled at all that is `right`; half of what is not counts against it, or a
# bucket that is always about to have a token would explain everything.
def _share(had: npt.NDArray[np.int8], right: int) -> Floats:
    wrong = (had != right).sum(axis=0) - 0.5 * (had == _UNSURE).sum(axis=0)
    return np.asarray(1 - wrong / len(had))


# Whether each bucket has a token at each SYN, if it let through what was let through so far.
def _tokens(found: Syns, rates: Floats, bursts: Floats) -> npt.NDArray[np.int8]:
    had = np.empty((len(found.time), len(rates)), np.int8)
    tokens, slack = bursts.copy(), np.minimum(rates * _SLACK_S, _SLACK)
    since = np.diff(found.time, prepend=found.time[:1]) / 1e9
    for number, (gone_s, dropped) in enumerate(zip(since, found.dropped, strict=True)):
        tokens += rates * gone_s
        # A token that is nearly there, or came only just, settles nothing. One that would have come
        # long ago, had the bucket not been full, is surely there.
        had[number] = np.where(np.abs(tokens - 1) <= slack, _UNSURE, tokens >= 1)
        np.minimum(tokens, bursts, out=tokens)
        if not dropped:
            np.maximum(tokens - 1, 0, out=tokens)
    return had


# The same drops by slots: none passes while so many are open, all do otherwise.
def _open_fit(found: Syns) -> float:
    most = int(found.open.max(initial=0))
    fits = [
        min(
            float((found.open[found.dropped] >= slots).mean()),
            float((found.open[~found.dropped] < slots).mean()),
        )
        for slots in range(1, min(most, 64) + 1)
    ]
    return max(fits, default=0.0)
