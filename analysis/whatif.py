"""What would waits be with more slots, with a connect timeout, with a probe before, at a restart?

A throttle that queues is a queue with c servers for each key of its scope. Its attempts are
replayed, first come, first served: when each asked is its demand, how long it was past the
throttle its service. A thread that waits less asks again sooner. Only where this model, with the
slots of the trace, gives the waits of the trace is it worth believing for any other case.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from porttrace.analysis import names
from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.findings import serialized
from porttrace.analysis.findings.alternatives import Case
from porttrace.analysis.holds import HELD_NS
from porttrace.analysis.model import Outcome, Trace
from porttrace.analysis.replay import Demand, Names, calibrated, replay
from porttrace.analysis.rows import take
from porttrace.tracer.errors import PorttraceError

NEAR, NEAR_NS = 0.1, 50_000_000
"""A predicted wait fits the measured one within this share of it, or within this time."""
MIN_FIT = 0.8
"""Where fewer of the waits fit, nothing is predicted."""
PROBE_S = 0.2
"""So long a cheap probe of a dead port takes, unless told otherwise."""

Floats = npt.NDArray[np.float64] | Ints


class WhatIfError(PorttraceError):
    """There is nothing that could be replayed, or the model does not fit it."""


@dataclass(frozen=True)
class Throttle:
    """The throttle that a trace shows, and the demand behind it."""

    place: str
    scope: str
    slots: int
    confidence: float
    who: str  # of one group, or how many groups there are
    unserved: int  # attempts still held when the trace ended; they are left out
    others: int  # groups of other throttles, left out
    demand: Demand


@dataclass(frozen=True)
class Off:
    """A destination whose waits the model does not give: seconds, all attempts there together."""

    destination: str
    measured_s: float
    predicted_s: float


@dataclass(frozen=True)
class Fit:
    """How well the unchanged model gives the waits of the trace: who waited, or should have."""

    waits: int
    near: int
    median_error_s: float
    measured_s: float  # all waits together
    predicted_s: float
    passed: int  # of the waits: those that went straight on, where the model would hold them
    off: tuple[Off, ...]  # destinations whose waits come out otherwise, the worst first

    def share(self) -> float:
        """Return the share of the waits that it gives to within 10 % or 50 ms."""
        return self.near / self.waits if self.waits else 1.0

    def good(self) -> bool:
        """Tell whether predictions are worth anything: attempt by attempt, and in sum."""
        sum_ns, all_ns = self.predicted_s * 1e9, self.measured_s * 1e9
        fits = bool(_near(np.array([sum_ns]), np.array([all_ns]), np.array([self.waits]))[0])
        return self.waits > 0 and self.share() >= MIN_FIT and fits


@dataclass(frozen=True)
class Line:
    """The waits of the attempts to one destination, in seconds."""

    destination: str
    attempts: int
    p50_s: float
    p95_s: float
    worst_s: float
    total_s: float


@dataclass(frozen=True)
class Prediction:
    """What one variant would make of the waits."""

    name: str
    assumptions: tuple[str, ...]
    lines: tuple[Line, ...]  # per destination, the most waiting first

    def total_s(self) -> float:
        """Return all waits together, in seconds."""
        return sum(line.total_s for line in self.lines)


def throttle_of(trace: Trace) -> Throttle:
    """Return the surest throttle that queues in `trace`, with all groups that are like it.

    Raises WhatIfError where there is none.
    """
    cases = serialized.throttled_cases(trace)
    if not cases:
        raise WhatIfError(
            "no throttle that queues attempts was found in this trace: there is no queue to replay",
            "'porttrace report FILE' says what was found, and what holds are left unexplained",
        )
    sure = [(serialized.confidence(case), case.group.verdict.held) for case in cases]
    best = cases[max(range(len(cases)), key=lambda i: sure[i])]
    alike = [case for case in cases if _like(case) == _like(best)]
    demands = [_demand(case, key) for key, case in enumerate(alike)]
    return Throttle(
        place=best.place,
        scope=best.group.scope,
        slots=best.group.verdict.slots,
        confidence=max(sure)[0],
        who=_who(trace, alike),
        unserved=sum(left for _, left in demands),
        others=len(cases) - len(alike),
        demand=calibrated(_together([d for d, _ in demands], best.group.verdict.slots)),
    )


def _like(case: Case) -> tuple[str, str, int]:
    return case.place, case.group.scope, case.group.verdict.slots


def _who(trace: Trace, cases: list[Case]) -> str:
    if len(cases) > 1:
        return f"{len(cases)} groups, each for itself"
    pids = np.unique(cases[0].attempts()["pid"])
    return (
        names.process(trace, int(pids[0])) if len(pids) == 1 else names.count(len(pids), "process")
    )


# One that never got past the throttle has no service that could be replayed.
def _demand(case: Case, key: int) -> tuple[Demand, int]:
    queue, rows = case.group.queue, case.attempts()
    held, length = queue.hold.lengths(), queue.service.lengths()
    there = (length > 0) & (queue.service.start > 0)
    asked = np.where(held > 0, queue.hold.start, queue.service.start)
    demand = Demand(
        key=np.full(int(there.sum()), key, np.int64),
        asked=asked[there],
        service=length[there],
        waited=held[there],
        good=(rows["outcome"] == Outcome.established)[there],
        to=np.array([names.destination(row) for row in take(rows, np.flatnonzero(there))], np.str_),
        over=(asked + held + length)[there],
        thread=scope_keys(rows, "thread")[there],
        lag_ns=_mean_lag_ns(case),
    )
    return demand, int(np.count_nonzero(~there & (held > 0)))


# The mean, not the median: in a long queue each handoff's delay adds to the waits of all behind it.
def _mean_lag_ns(case: Case) -> int:
    queue, handed = case.group.queue, case.group.verdict.handed
    ends = np.sort(queue.service.stop[queue.service.closed & (queue.service.lengths() > 0)])
    release = queue.hold.stop[handed]
    if not len(release):
        return 0
    return int((release - ends[np.searchsorted(ends, release, "right") - 1]).mean())


_COLUMNS = ("key", "asked", "service", "waited", "good", "to", "over", "thread")


def _together(parts: list[Demand], slots: int) -> Demand:
    def column(name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([getattr(part, name) for part in parts])

    whole = {name: column(name) for name in _COLUMNS}
    order = np.argsort(whole["asked"], kind="stable")
    lag = int(np.mean([part.lag_ns for part in parts]))
    return Demand(**{n: c[order] for n, c in whole.items()}, slots=slots, lag_ns=lag)  # type: ignore[arg-type]


def fit(demand: Demand) -> Fit:
    """Return how well the unchanged model gives the waits that were measured."""
    predicted, measured = replay(demand), demand.waited
    passed = np.zeros(len(measured), np.bool_) if demand.passed is None else demand.passed
    counted = (np.maximum(predicted, measured) >= HELD_NS) | passed
    near = _near(predicted, measured, np.ones(len(measured))) & ~passed
    error = np.abs(predicted - measured)[counted & ~passed]
    return Fit(
        waits=int(counted.sum()),
        near=int((near & counted).sum()),
        median_error_s=float(np.median(error)) / 1e9 if len(error) else 0.0,
        measured_s=float(measured.sum()) / 1e9,
        predicted_s=float(predicted.sum()) / 1e9,
        passed=int(passed.sum()),
        off=tuple(_off(demand, predicted, counted)),
    )


def _near(predicted: Floats, measured: Floats, attempts: Floats) -> Bools:
    allowed = np.maximum(NEAR * measured, NEAR_NS * np.maximum(1, attempts))
    near: Bools = np.abs(predicted - measured) <= allowed
    return near


def _off(demand: Demand, predicted: Ints, counted: Bools) -> list[Off]:
    names_of, at = np.unique(demand.to, return_inverse=True)
    sums = [np.bincount(at, each) for each in (predicted, demand.waited, counted)]
    wrong = np.flatnonzero(~_near(*sums)).tolist()
    off = [Off(str(names_of[i]), sums[1][i] / 1e9, sums[0][i] / 1e9) for i in wrong]
    return sorted(off, key=lambda each: -abs(each.predicted_s - each.measured_s))


def believable(throttle: Throttle) -> Fit:
    """Return the fit of the model to the trace.

    Raises WhatIfError where it is too poor to predict anything.
    """
    found = fit(throttle.demand)
    if found.good():
        return found
    if not found.waits:
        raise WhatIfError(
            "nobody behind this throttle has gone on yet: there is no wait to check the model with",
            "trace for longer, until some of the held attempts have gone on",
        )
    raise WhatIfError(
        "the model does not fit this trace, so its predictions would be worth nothing:"
        f" {_misfit(found)}",
        "a throttle that does not serve in the order of asking, lost events, or other processes"
        " behind the same throttle make it so: trace all of them, for longer",
    )


def _misfit(found: Fit) -> str:
    typical = names.duration(found.median_error_s * 1e9)
    said = (
        "with the slots of the trace only"
        f" {found.near} of {names.count(found.waits, 'wait')} come out within"
        f" {NEAR:.0%} or {NEAR_NS // 1_000_000} ms, the typical one is {typical} off, all together"
        f" {found.predicted_s:.1f} s instead of {found.measured_s:.1f} s"
    )
    worst = [
        f"{each.destination} {each.predicted_s:.1f} s instead of {each.measured_s:.1f} s"
        for each in found.off[:3]
    ]
    return f"{said} ({'; '.join(worst)})" if worst else said


def as_traced(demand: Demand) -> Prediction:
    """Return the waits as they were measured."""
    return Prediction("as traced", (), _lines(demand.to, demand.waited))


def unchanged(demand: Demand) -> Prediction:
    """Return the waits that the model gives where nothing is changed."""
    return Prediction("model, unchanged", (), _lines(demand.to, replay(demand)))


_SAME_DEMAND = "a thread asks again as long after its attempt was over as it did in the trace"


def with_slots(demand: Demand, slots: int) -> Prediction:
    """Return the waits with another number of slots."""
    waits = replay(replace(demand, slots=slots))
    return Prediction(f"{names.count(slots, 'slot')}", (_SAME_DEMAND,), _lines(demand.to, waits))


def with_timeout(demand: Demand, timeout_s: float) -> Prediction:
    """Return the waits if the programs gave up each attempt after `timeout_s`."""
    service = np.minimum(demand.service, round(timeout_s * 1e9))
    lost = int(np.count_nonzero(demand.good & (service < demand.service)))
    said = [_SAME_DEMAND]
    if lost:
        took = "took longer and would fail"
        said.append(f"{names.count(lost, 'attempt')} that did connect {took}")
    waits = replay(replace(demand, service=service))
    return Prediction(
        f"connect timeout {_seconds(timeout_s)}", tuple(said), _lines(demand.to, waits)
    )


def with_probe(
    demand: Demand, destinations: tuple[str, ...], probe_s: float = PROBE_S
) -> Prediction:
    """Return the waits if a cheap probe came before each connect to these destinations.

    Raises WhatIfError for a destination that is not behind the throttle.
    """
    known = np.unique(demand.to).tolist()
    unknown = [to for to in destinations if to not in known]
    if unknown:
        raise WhatIfError(
            f"no attempt to {unknown[0]} stands behind this throttle",
            f"these do: {', '.join(known[:8])}{' ...' if len(known) > 8 else ''}",
        )
    spared = np.isin(demand.to, destinations) & ~demand.good
    probe = np.minimum(demand.service, round(probe_s * 1e9))
    waits = replay(replace(demand, service=np.where(spared, probe, demand.service)))
    number = names.count(int(spared.sum()), "attempt")
    said = (
        _SAME_DEMAND,
        f"{number} there got no connection; each is replaced by a probe of {_seconds(probe_s)}"
        " that holds the slot so long",
    )
    return Prediction(f"probe {', '.join(destinations)} first", said, _lines(demand.to, waits))


def restart(demand: Demand, pool: int = 1) -> Prediction:
    """Return the waits if all processes restarted and each destination were connected at once.

    Every key opens `pool` connections to each of its destinations in one instant; each takes as
    long as they usually take. The slowest come first, which is the worst order.
    """
    pairs = [
        (key, to, int(np.median(demand.service[(demand.key == key) & (demand.to == to)])))
        for key in np.unique(demand.key).tolist()
        for to in np.unique(demand.to[demand.key == key]).tolist()
        for _ in range(pool)
    ]
    pairs.sort(key=lambda pair: -pair[2])
    keys, to, service = zip(*pairs, strict=True)
    none = np.zeros(len(pairs), np.int64)
    opened = Demand(
        key=np.array(keys, np.int64), asked=none, service=np.array(service, np.int64), waited=none,
        good=none == 0, to=np.array(to, np.str_), over=none, thread=none - 1,
        slots=demand.slots, lag_ns=demand.lag_ns,
    )  # fmt: skip
    each = names.count(pool, "connection")
    said = (
        f"{each} to every destination seen, all opened in one instant, the slowest first",
        "each takes as long as attempts there usually took",
    )
    return Prediction("restart now", said, _lines(opened.to, replay(opened)))


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


def _lines(to: Names, waits: Ints) -> tuple[Line, ...]:
    made = [_line(name, waits[to == name] / 1e9) for name in np.unique(to).tolist()]
    return tuple(sorted(made, key=lambda line: (-line.total_s, line.destination)))


def _line(name: str, waits_s: npt.NDArray[np.float64]) -> Line:
    half, most = (float(value) for value in np.percentile(waits_s, (50, 95)))
    return Line(name, len(waits_s), half, most, float(waits_s.max()), float(waits_s.sum()))
