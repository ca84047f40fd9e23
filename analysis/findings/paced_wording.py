"""The sentences of a `paced-connects` finding, for a person on call at night."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.bucket import Bucket
from porttrace.analysis.concurrency import Ints
from porttrace.analysis.findings import counted
from porttrace.analysis.findings.alternatives import by_chance
from porttrace.analysis.findings.wording import STOPPED
from porttrace.analysis.model import Hypothesis, Trace
from porttrace.analysis.pace import Pace
from porttrace.analysis.rows import take

_SETTLED = "Nothing: rate, place and scope are settled by this trace."


@dataclass(frozen=True)
class Dropped:
    """A group of attempts whose SYNs a rate drops."""

    scope: str
    key: int
    rows: Ints  # of the trace's attempts: answered ones
    usual_ns: Ints  # of each: how long its destination takes otherwise
    found: Bucket


def destination_of(attempt: np.void) -> str:
    """Return the destination of an attempt."""
    return names.destination(attempt)


def _rate(per_s: float) -> str:
    if per_s >= 1:
        return f"{per_s:.2g} connects a second" if per_s < 100 else f"{per_s:.0f} connects a second"
    return f"one connect every {1 / per_s:.1f} s"


def held_summary(trace: Trace, pace: Pace, place: str, sure: float, waits: Ints) -> str:
    """Return who is held to which rate, and what the worst of it was."""
    rows = pace.rows[pace.held]
    worst = trace.attempts[rows[int(np.argmax(waits))]]
    get = "gets" if sure >= 0.8 else "gets, it seems,"
    who = counted.who(trace, pace.scope, pace.key, take(trace.attempts, rows))
    return (
        f"{who} {get} at most {_rate(1e9 / pace.gap_ns)}"
        f"{_burst(pace.burst)}, whatever else ends: {names.count(len(rows), 'connect')}"
        f" {'was' if len(rows) == 1 else 'were'} {STOPPED[place]} and let go"
        f" {names.duration(pace.gap_ns)} apart; the worst, to {names.destination(worst)}, waited"
        f" {names.duration(int(waits.max()))}."
    )


def _burst(burst: int) -> str:
    return f" after a burst of {burst}" if burst > 1 else ""


def held_hypotheses(trace: Trace, pace: Pace, lone: bool) -> tuple[Hypothesis, ...]:
    """Return every other explanation of holds at a pace that was tested."""
    slots = "releases come at their own times, not right after another connect is over"
    timer = "the calls had been made: a program that paces itself calls later and holds nothing"
    if lone:
        alone = names.count(pace.idle_passed, "call")
        why = f"{alone} after a rest went through at once: none takes that long by itself"
        supervisor = Hypothesis("slow supervisor", "refuted", why)
    else:
        why = "one that handles a call after the other, each as long, looks the same under load"
        supervisor = Hypothesis("slow supervisor", "open", why)
    lucky = by_chance(pace.p_value)
    chance = f"{pace.kept} of {pace.steps} gaps are alike within 10 %, which {lucky}"
    return (
        Hypothesis("queue with slots", "refuted", slots),
        Hypothesis("timer of the application", "refuted", timer),
        supervisor,
        Hypothesis("late scheduling", "refuted", chance),
        _loss(trace),
    )


def _loss(trace: Trace) -> Hypothesis:
    lost = sum(loss.count for loss in trace.losses)
    if not lost:
        return Hypothesis("lost events", "refuted", "no event was lost")
    return Hypothesis("lost events", "open", f"{names.count(lost, 'event')} lost")


def settle_held(lone: bool, place: str, scope: str, others: Sequence[str]) -> str:
    """Return what one more run would settle; `others` are the scopes that fit as well."""
    if lone:
        return counted.settle(scope, others, place) or _SETTLED
    return "A rate or a slow supervisor: trace single connects with rests between them, too."


def held_advice(
    pace: Pace, place: str, to: str, others: Sequence[str], ruleset: str
) -> tuple[str, ...]:
    """Return what to do: first what helps at once, then the cure. `to`: where most of them went."""
    limit = f"(now {_rate(1e9 / pace.gap_ns)} {counted.per(pace.scope, others)})"
    queue = f"look for queue and limit in '{ruleset}' and find who reads the queue"
    whose = {
        "gate": "find the product of the supervisor that answers its system calls",
        "egress": queue,
        "ingress": queue,
        "network": "ask who runs the firewall or gateway on the way",
    }.get(place, "find whose function, BPF program or module it is, among what can interpose")
    return (
        f"Connect less often: pool the connections to {to}, so that most requests open none.",
        f"For good: {whose}, and have its rate raised {limit}, or this program exempted.",
        "Mind restarts: every pool then reconnects at this rate.",
    )


def dropped_summary(trace: Trace, dropped: Dropped, rows: Ints, waits: Ints, sure: float) -> str:
    """Return who is held to which rate by dropped SYNs, and what the worst of it was."""
    worst = trace.attempts[rows[int(np.argmax(waits))]]
    get = "gets" if sure >= 0.8 else "gets, it seems,"
    found = dropped.found
    who = counted.who(trace, dropped.scope, dropped.key, take(trace.attempts, rows))
    return (
        f"{who} {get} at most {_rate(found.rate)}"
        f"{_burst(found.burst)}; SYNs beyond that are dropped and pass when they are sent again:"
        f" {names.count(len(rows), 'connect')} answered late, the worst, to"
        f" {names.destination(worst)}, by {names.duration(int(waits.max()))}."
    )


def dropped_hypotheses(trace: Trace, found: Bucket, several: bool) -> tuple[Hypothesis, ...]:
    """Return every other explanation of dropped SYNs that was tested."""
    loss = (
        f"{found.dropped_fit:.0%} of the drops came when the rate was used up,"
        f" {found.passed_fit:.0%} of the passes when it was not, which {by_chance(found.p_value)}"
    )
    slots = f"the number of open attempts explains at best {found.open_fit:.0%} of the same"
    queue = "several destinations lost SYNs by one and the same rate"
    one = "all went to one destination, whose listener may accept no faster (ss -ltn there)"
    full = ("refuted", queue) if several else ("open", one)
    return (
        Hypothesis("loss by chance", "refuted", loss),
        Hypothesis("slots that drop", "refuted", slots),
        Hypothesis("full accept queue", *full),
        _loss(trace),
    )


def settle_dropped(place: str, scope: str, others: Sequence[str]) -> str:
    """Return what one more run would settle; `others` are the scopes that fit as well."""
    if place:
        return counted.settle(scope, others) or _SETTLED
    return "Whether the SYNs leave this host: trace once more with the wire probe."


def dropped_advice(
    dropped: Dropped, place: str, to: str, others: Sequence[str], ruleset: str
) -> tuple[str, ...]:
    """Return what to do: first what helps at once, then the cure. `to`: where most of them went."""
    here = f"a rule of this host ('{ruleset}' shows 'limit rate')"
    there = "a firewall on the way, or at the other end"
    where = {"egress": here, "network": there}.get(place, f"{here}, or {there}")
    limit = f"(now {_rate(dropped.found.rate)} {counted.per(dropped.scope, others)})"
    return (
        f"Connect less often: pool the connections to {to}; spread what comes in bursts of more"
        f" than {dropped.found.burst}.",
        f"For good: look for a limit per time in {where}, and have it raised {limit}.",
    )
