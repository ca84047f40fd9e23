"""The statistical test: did a throttle with c slots deny what came while all slots were taken?

A throttle that denies shows in two ways at once: whoever comes while c are in flight fails at
once, and whoever comes while fewer are is let through. One failing network does neither: what
counts as evidence is how often the answers change together with the number in flight.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from porttrace.analysis.concurrency import Bools, Ints, resolved_ns, scope_keys
from porttrace.analysis.model import Outcome, Table, Trace, start_ns
from porttrace.analysis.pairs import as_numbers
from porttrace.analysis.rows import take

AT_ONCE_NS = 900_000_000
"""A denial comes before the SYN would be sent again (1 s), however far away who denies is."""

LAGS_NS = (2_000_000, 20_000_000)
"""How late a throttle may notice that a slot is free."""

MIN_DENIED = 3  # fewer denials of one group are not looked at
MIN_FIT = 0.95  # share of the denials with all slots taken, and of the others with one free
LOSSY_FIT = 0.9  # the same where events were lost
_ERRORS = (
    Outcome.refused,
    Outcome.unreachable,
    Outcome.denied,
    Outcome.reset,
    Outcome.failed,
)


@dataclass(frozen=True)
class Denial:
    """A group of attempts that a throttle with `slots` slots may deny; shares are 0..1."""

    scope: str
    key: int
    errno: int
    rows: Ints  # of the trace's attempts, in order of time
    denied: Bools  # of `rows`
    slots: int
    lag_ns: int
    denied_fit: float  # share of the denials that met all slots taken
    passed_fit: float  # share of the others that met a free slot
    # From here on worked out only for groups that fit.
    busy_denied: int  # stretches of time with all slots taken in which all were denied
    busy: int  # such stretches with anybody asking
    free_passed: int  # stretches with a free slot in which nobody was denied
    free: int
    p_value: float  # of so many by chance, corrected for groups and lags tried
    window_fit: float  # how well a limit per time would explain the same denials

    def fits(self, enough: float = MIN_FIT) -> bool:
        """Tell whether the slots explain nearly all, chance left aside."""
        return self.slots > 0 and min(self.denied_fit, self.passed_fit) >= enough


@dataclass(frozen=True)
class Decisions:
    """When each attempt asked and was answered by whatever may deny; for one errno."""

    asked: Ints
    decided: Ints  # at the latest
    begun: Ints  # surely in flight from here
    over: Ints
    denied: Bools

    @cached_property
    def met_at_all(self) -> Ints:
        """How many others of all attempts each denial met: of one user, all of his are the same."""
        return _met(np.zeros(len(self.asked), np.int64), self)

    def met(self, keys: Ints) -> Ints:
        """Return how many others of its key each denial met, in the order of the attempts."""
        one = len(keys) > 0 and int(keys.min()) == int(keys.max())
        return self.met_at_all if one else _met(keys, self)


def denied_at_once(attempts: Table) -> Bools:
    """Tell which attempts failed at once with an errno, whoever it was that denied them."""
    end = attempts["end_ns"].astype(np.int64)
    quick = (end > 0) & (end - _asked(attempts) <= AT_ONCE_NS) & (attempts["retransmits"] == 0)
    failed = np.isin(attempts["outcome"], _ERRORS) & (attempts["errno"] > 0)
    return np.asarray(failed & quick)


def denials(
    trace: Trace, scope: str, errno: int, decisions: Decisions | None = None
) -> list[Denial]:
    """Return the groups of `scope` whose attempts `errno` may have been denied by a throttle.

    `decisions` are `decisions_of` this errno, for whoever asks for several scopes.
    """
    keys = scope_keys(trace.columns, scope, trace.processes)
    at = decisions or decisions_of(trace, errno)
    found = []
    groups, tried = _worth_testing(keys, at.denied, at.met(keys))
    for key in groups:
        rows = np.flatnonzero(keys == key)
        rows = rows[np.argsort(at.asked[rows], kind="stable")]
        tests = [_examined(trace, scope, key, errno, rows, at, lag, tried) for lag in LAGS_NS]
        found.append(min(tests, key=lambda d: (-min(d.denied_fit, d.passed_fit), d.lag_ns)))
    return found


def _asked(attempts: Table) -> Ints:
    call = attempts["call_ns"].astype(np.int64)
    return np.where(call > 0, call, start_ns(attempts))


def decisions_of(trace: Trace, errno: int) -> Decisions:
    """Return when each attempt asked, and was answered by whatever may deny with `errno`."""
    attempts = trace.columns
    denied = denied_at_once(attempts) & (attempts["errno"] == errno)
    asked, syn = _asked(attempts), attempts["syn_ns"].astype(np.int64)
    over = resolved_ns(attempts, trace.end_ns)
    sent = np.where(syn > 0, syn, asked)
    # Behind the SYN somebody on the way decides, about as late as the denials come back.
    late = denied & (syn > 0)
    way_ns = int(np.median(over[late] - syn[late])) if late.any() else 0
    decided = np.where(denied, over, np.minimum(sent + way_ns, over))
    return Decisions(asked, decided, np.minimum(sent + way_ns, over), over, denied)


# How many of the same key were in flight: begun by one time, and not over until another. Denied
# ones never were, and nobody counts himself.
def _span(keys: Ints, at: Decisions, begun: Ints, by: Ints, over: Ints, until: Ints) -> Ints:
    there = ~at.denied & (over > begun)
    before = _number(keys[there], begun[there], keys, by)
    gone = _number(keys[there], over[there], keys, until)
    own = there & (begun <= by) & (over > until)
    return np.asarray(np.maximum(before - gone - own, 0))


# The same at the denials alone, in the order of asking: which are few.
def _met(keys: Ints, at: Decisions) -> Ints:
    there, asked, key = ~at.denied, at.asked[at.denied], keys[at.denied]
    before = _number(keys[there], at.asked[there], key, asked)
    return np.asarray(before - _number(keys[there], at.over[there], key, asked))


def _number(keys: Ints, times: Ints, of: Ints, until: Ints) -> Ints:
    asked, known = as_numbers((of, until), (keys, times))
    sorted_keys = np.sort(keys)
    before = np.searchsorted(sorted_keys, of, "left")
    found: Ints = np.searchsorted(np.sort(known), asked, "right") - before
    return found


# Only groups whose denials mostly met the same number of others, and not none; the rest, which is
# nearly everything that ever fails, costs nothing.
def _worth_testing(keys: Ints, denied: Bools, met: Ints) -> tuple[list[int], int]:
    found, back = np.unique(keys[denied], return_inverse=True)
    width = int(met.max(initial=0)) + 1
    table = np.bincount(back * width + met, minlength=len(found) * width).reshape(-1, width)
    total, most = table.sum(axis=1), table.argmax(axis=1)
    enough = total >= MIN_DENIED
    worth = enough & (most > 0) & (table.max(axis=1, initial=0) >= 0.5 * total)
    return found[worth].tolist(), max(1, int(np.count_nonzero(enough)))


def _examined(
    trace: Trace, scope: str, key: int, errno: int, rows: Ints, at: Decisions, lag: int, tried: int
) -> Denial:
    here = Decisions(*(getattr(at, name)[rows] for name in Decisions.__dataclass_fields__))
    same = np.zeros(len(rows), np.int64)
    # In the order of asking; and the least and the most that there can have been at the decision.
    strict = _span(same, here, here.asked, here.asked, here.over, here.asked)
    fewest = _span(same, here, here.begun, here.asked, here.over, here.decided)
    most = _span(same, here, here.asked, here.decided, here.over + lag, here.asked - 1)
    denied = here.denied
    # Nobody passes while c are in flight, so there are never more: denials meet exactly c.
    slots = int(np.bincount(strict[denied]).argmax())
    met = (fewest[denied] <= slots) & (most[denied] >= slots)
    passed = ~denied & (trace.columns["outcome"][rows] != Outcome.unknown)
    free = fewest[passed] < slots
    fit = float(met.mean()), float(free.mean()) if len(free) else 0.0
    if not slots or min(fit) < LOSSY_FIT:
        return Denial(scope, key, errno, rows, denied, slots, lag, *fit, 0, 0, 0, 0, 1.0, 1.0)
    units = _units(trace, rows, denied, fewest >= slots, most < slots)
    chance = min(1.0, hypergeometric_tail(*units) * len(LAGS_NS) * tried)
    window = _window_fit(here)
    return Denial(scope, key, errno, rows, denied, slots, lag, *fit, *units, chance, window)


# Destinations that refuse anyway, or never, tell nothing: only those that did both. Attempts that
# came in one stretch of busy or free time share one cause, and count once: an outage of the net
# that happens to overlap one long attempt is one coincidence, however many it fails.
def _units(
    trace: Trace, rows: Ints, denied: Bools, busy: Bools, free: Bools
) -> tuple[int, int, int, int]:
    to = scope_keys(take(trace.attempts, rows), "destination")
    both = np.intersect1d(to[denied], to[~denied & (free | busy)])
    counts = np.isin(to, both) & (busy ^ free)
    state, bad = busy[counts], denied[counts]
    if not len(state):
        return 0, 0, 0, 0
    unit = np.concatenate([[0], np.cumsum(state[1:] != state[:-1])])
    size, failed = np.bincount(unit), np.bincount(unit, weights=bad)
    is_busy = np.zeros(len(size), np.bool_)
    is_busy[unit] = state
    all_bad, none_bad = failed == size, failed == 0
    return (
        int(np.count_nonzero(is_busy & all_bad)),
        int(np.count_nonzero(is_busy)),
        int(np.count_nonzero(~is_busy & none_bad)),
        int(np.count_nonzero(~is_busy)),
    )


def hypergeometric_tail(busy_denied: int, busy: int, free_passed: int, free: int) -> float:
    """Return the chance that failures fall upon busy stretches so often if they know nothing of it.

    Fisher's exact test, one-sided: of `busy + free` stretches, those denied are shuffled.
    """
    total, failed = busy + free, busy_denied + free - free_passed
    if not busy or not free or not failed:
        return 1.0
    ways = sum(
        math.comb(busy, k) * math.comb(free, failed - k)
        for k in range(busy_denied, min(busy, failed) + 1)
    )
    return ways / math.comb(total, failed)


# A limit of b in any stretch of time: denials come within that time of the b-th last that passed,
# the others later. The best such limit, by the share that it explains of the worse explained side.
def _window_fit(here: Decisions) -> float:
    passed = np.sort(here.asked[~here.denied])
    best = 0.0
    for burst in range(1, min(len(passed), 64) + 1):
        before = np.searchsorted(passed, here.asked, "left") - burst
        known = before >= 0
        age = here.asked - passed[np.maximum(before, 0)]
        bad, good = np.sort(age[known & here.denied]), np.sort(age[known & ~here.denied])
        # With fewer than b before it, a denial refutes the limit, and a pass fits it.
        never = int(np.count_nonzero(~known & here.denied))
        always = int(np.count_nonzero(~known & ~here.denied))
        explained = np.searchsorted(bad, bad, "right") / max(1, len(bad) + never)
        let = (len(good) - np.searchsorted(good, bad, "right") + always) / max(
            1, len(good) + always
        )
        best = max(best, float(np.minimum(explained, let).max(initial=0.0)))
    return best
