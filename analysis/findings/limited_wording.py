"""The sentences of a `limited-connects` finding, for a person on call at night."""

import errno as numbers
from collections.abc import Sequence

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.denials import Denial
from porttrace.analysis.findings import counted
from porttrace.analysis.findings.alternatives import by_chance
from porttrace.analysis.model import Attempts, Hypothesis, Outcome, Party, Trace

_WHERE = {
    "gate": "before the kernel's connect began (gate)",
    "connect": "inside the kernel's connect, before a packet was sent (connect)",
    "egress": "on the way out of this host (egress)",
    "network": "by an answer from the network (network)",
    "": "after the SYN was made, by this host's packet filter or by somebody on the way",
}
_FROM_FAR = (Outcome.refused, Outcome.reset, Outcome.unreachable)


def error_name(number: int) -> str:
    """Return the name of an errno, such as EPERM."""
    return numbers.errorcode.get(number, f"errno {number}")


def destination_of(attempt: np.void) -> str:
    """Return the destination of an attempt."""
    return names.destination(attempt)


def per_time(found: Denial) -> bool:
    """Tell whether a limit per time explains the denials about as well as slots do."""
    return found.window_fit >= min(found.denied_fit, found.passed_fit) - 0.02


def server_may_limit(place: str, destinations: int, denied: Attempts) -> bool:
    """Tell whether the destination itself may be what denies: it is the only one, and far."""
    return (
        place in ("", "network")
        and destinations == 1
        and bool(np.isin(denied["outcome"], _FROM_FAR).all())
    )


def summary(
    trace: Trace, found: Denial, denied: Attempts, place: str, sure: float,
    blockers: tuple[Party, ...],
) -> str:  # fmt: skip
    """Return who is limited, what fails while what is open, and that it passes otherwise."""
    may = "may have" if sure >= 0.8 else "may, it seems, have"
    slots = names.count(found.slots, "TCP connect attempt")
    who = counted.who(trace, found.scope, found.key, denied)
    head = f"{who} {may} only {slots} open at a time; more are denied."
    number = names.count(len(denied), "attempt")
    failed = (
        f"{number} ({names.destination(denied[-1])} last) failed at once with"
        f" {error_name(found.errno)}, {_WHERE[place]}, while {_full(found.slots)}"
    )
    if blockers:
        failed += f", most often by {blockers[0].destination} (thread {blockers[0].comm})"
    return f"{head} {failed}; the same destinations were let through when fewer were open."


def _full(slots: int) -> str:
    return "another one was open" if slots == 1 else f"{slots} others were open"


def advice(
    found: Denial,
    denied: Attempts,
    place: str,
    others: Sequence[str],
    blockers: tuple[Party, ...],
    ruleset: str,
) -> tuple[str, ...]:
    """Return what to do: first what helps at once, then the cure.

    `others` are the scopes that fit as well as that of `found`; `ruleset` is the command that shows
    the packet filter.
    """
    limit = f"(now {found.slots} {counted.per(found.scope, others)})"
    rules = f"'{ruleset}' shows 'ct count'"
    whose = {
        "gate": "Find the product of the seccomp supervisor or filter among what can interpose",
        "connect": "Find whose BPF program at the control group, security module or kernel module"
        " it is, among what can interpose",
        "egress": f"Look for a packet filter rule that counts connections: {rules}",
        "network": "Ask who runs the firewall or gateway on the way, or the server",
    }.get(place, f"Look for a packet filter rule that counts connections, here ({rules}) or beyond")
    return (
        _free_the_slot(found, blockers),
        f"For good: {whose[0].lower()}{whose[1:]}, and have its limit raised {limit}.",
        f"Pool the connections to {names.destination(denied[-1])}: an open connection needs no"
        " permission.",
    )


def _free_the_slot(found: Denial, blockers: tuple[Party, ...]) -> str:
    error = error_name(found.errno)
    retry = (
        f"Retry {error} after a moment instead of failing, and connect at most {found.slots} at a"
        " time: what is denied now passes when another attempt is over."
    )
    dead = [each for each in blockers if each.outcome != Outcome.established.name]
    if not dead:
        return retry
    return (
        f"Keep the {'slot' if found.slots == 1 else 'slots'} free of {dead[0].destination}: stop"
        f" that client (thread {dead[0].comm}) or shorten its connect timeout. {retry}"
    )


def settle(place: str, found: Denial, others: Sequence[str]) -> str:
    """Return what one more run would settle."""
    if not place:
        return (
            "Who denies: trace once more with the wire probe. A SYN that never leaves is denied on"
            " this host, one that is answered is denied beyond it."
        )
    if per_time(found):
        return (
            "Whether slots or a rate: keep one attempt to a dead address open and try others"
            " slowly, one every few seconds. A limit per time lets them pass."
        )
    return counted.settle(found.scope, others, place) or counted.SETTLED


def hypotheses(
    trace: Trace, found: Denial, denied: Attempts, place: str, destinations: int
) -> tuple[Hypothesis, ...]:
    """Return every other explanation that was tested."""
    return (
        _destination(found),
        _outage(found),
        _rate(found),
        _server(place, destinations, denied),
        _loss(trace),
    )


def _destination(found: Denial) -> Hypothesis:
    why = (
        "only destinations count that were let through as well: in"
        f" {found.free_passed} of {found.free} stretches with a free slot nobody was denied"
    )
    return Hypothesis("destination that refuses anyway", "refuted", why)


def _outage(found: Denial) -> Hypothesis:
    why = (
        f"in {found.busy_denied} of {found.busy} stretches with all slots taken everybody was"
        f" denied, and let through between them; that this meets so well"
        f" {by_chance(found.p_value)}"
    )
    verdict = "refuted" if found.p_value <= 1e-4 else "open"
    return Hypothesis("outage at the same time", verdict, why)


def _rate(found: Denial) -> Hypothesis:
    name, fit = "limit per time", round(100 * found.window_fit)
    if per_time(found):
        why = f"so many in any stretch of time explains {fit} % of the denials and passes as well"
        return Hypothesis(name, "open", why)
    why = f"so many in any stretch of time explains at best {fit} % of the denials or passes"
    return Hypothesis(name, "refuted", why)


def _server(place: str, destinations: int, denied: Attempts) -> Hypothesis:
    name = "server that takes no more"
    if server_may_limit(place, destinations, denied):
        why = "all denied attempts went to one destination, which may refuse what is too much"
        return Hypothesis(name, "open", why)
    if place in ("gate", "connect", "egress"):
        return Hypothesis(name, "refuted", "the denials came from this very host")
    why = f"{names.count(destinations, 'destination')} denied in the same way, together"
    return Hypothesis(name, "refuted", why)


def _loss(trace: Trace) -> Hypothesis:
    lost = sum(loss.count for loss in trace.losses)
    if not lost:
        return Hypothesis("lost events", "refuted", "no event was lost")
    return Hypothesis("lost events", "open", f"{names.count(lost, 'event')} lost")
