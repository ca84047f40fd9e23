"""The sentences of a `serialized-connects` finding, for a person on call at night."""

from collections.abc import Sequence

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.findings import counted
from porttrace.analysis.findings.alternatives import Case
from porttrace.analysis.model import Outcome, Party, Suspect
from porttrace.analysis.place import ruleset
from porttrace.analysis.scope import ScopeResult

STOPPED = {
    "gate": "stopped before the kernel started them (gate)",
    "connect": "stopped inside the kernel's connect (connect)",
    "user": "kept asleep in user space before the call (user)",
    "egress": "kept on this host, the SYN not let out (egress)",
    "network": "held up behind this host, the SYN sent and nobody answering (network)",
    "ingress": "kept waiting although the answer was on this host already (ingress)",
}
"""What happened to those that were held, by place."""
_IN_VAIN = {"cancelled": "and was given up", "timed_out": "and timed out"}
_NO_ANSWER = ("pending", "timed_out", "cancelled", "unreachable")


def destination_of(case: Case) -> str:
    """Return the destination of the first attempt of the case."""
    return names.destination(case.attempts()[0])


def summary(
    case: Case, sure: float, victims: tuple[Party, ...], blockers: tuple[Party, ...]
) -> str:
    """Return who is throttled, behind what, and what the worst of it was."""
    slots = case.group.verdict.slots
    if not case.group.verdict.testable:
        return _not_released(case, victims, blockers)
    can = "can only have" if sure >= 0.8 else "can, it seems, only have"
    rule = f"{_who(case)} {can} {names.count(slots, 'TCP connect attempt')} open at a time."
    return f"{rule} {_blocker(case, blockers)} {_others(case, victims, blockers)}"


# Nobody has gone on yet: what was seen, and what it will mean if it ends as expected. No verdict.
def _not_released(case: Case, victims: tuple[Party, ...], blockers: tuple[Party, ...]) -> str:
    held, slots = case.group.verdict.held, case.group.verdict.slots
    waited = names.duration(victims[0].wait_s * 1e9)
    are = "connect is" if held == 1 else "connects are"
    stand = f"{_who(case)}: {held} {are} {STOPPED[case.place]}, for {waited} so far"
    first = blockers[0].destination if blockers else "another destination"
    behind = f"while {names.count(slots, 'other attempt')} ({first}) got no answer"
    they = "it goes" if held == 1 else "they go"
    limit = f"only {names.count(slots, 'attempt')} at a time may be open"
    return f"{stand}, {behind}. If {they} on as soon as that ends, {limit} here."


def _who(case: Case) -> str:
    return counted.who(case.trace, case.group.scope, case.group.key, case.attempts())


def _blocker(case: Case, blockers: tuple[Party, ...]) -> str:
    if not blockers:
        return "What held the slot is not in this trace;"
    first = blockers[0]
    row = _row(case, first)
    served = names.duration(int(case.group.queue.service.lengths()[row]))
    whose = "Its" if case.group.scope in ("thread", "process") else _whose(case, first)
    if len(blockers) > 1:
        whose += " longest blocking"
    attempt = f"{whose} attempt to {first.destination} (thread {first.comm})"
    return f"{attempt} {_ended(first.outcome, served)};"


def _row(case: Case, party: Party) -> int:
    return int(np.flatnonzero(case.attempts()["attempt_id"] == party.attempt_id)[0])


def _whose(case: Case, party: Party) -> str:
    return f"{names.process(case.trace, party.pid)}'s"


def _ended(outcome: str, served: str) -> str:
    if outcome in _NO_ANSWER:
        return f"got no answer for {served}"
    if outcome == Outcome.established.name:
        return f"took {served} to connect"
    return f"ended after {served} ({outcome})"


def _others(case: Case, victims: tuple[Party, ...], blockers: tuple[Party, ...]) -> str:
    number = case.group.verdict.held
    were = "connect was" if number == 1 else "connects were"
    which = f"meanwhile {number} other" if _all_behind(case, blockers) else f"in all {number}"
    worst = victims[0]
    one = "it" if number == 1 else "the worst"
    head = f"{which} {were} {STOPPED[case.place]}: {one}, to {worst.destination},"
    return f"{head} {_fate(case, worst)}."


# Whether all that were held stood there while the first of the blockers was open.
def _all_behind(case: Case, blockers: tuple[Party, ...]) -> bool:
    if not blockers:
        return False
    hold, served = case.group.queue.hold, case.group.queue.service
    row = _row(case, blockers[0])
    beside = (hold.start < served.stop[row]) & (hold.stop > served.start[row])
    return bool(beside[case.group.queue.held()].all())


def _fate(case: Case, worst: Party) -> str:
    row = _row(case, worst)
    waited = names.duration(worst.wait_s * 1e9)
    if not case.group.queue.hold.closed[row]:
        if worst.outcome == Outcome.pending.name:
            return f"has waited {waited} so far"
        return f"waited {waited} {_IN_VAIN.get(worst.outcome, '')}".rstrip()
    served = int(case.group.queue.service.lengths()[row])
    took = names.duration(served)
    took = "under 1 ms" if served < 995_000 else took
    if worst.outcome == Outcome.established.name:
        return f"waited {waited} and then connected in {took}"
    return f"waited {waited} and then {_ended(worst.outcome, took)}"


def advice(
    case: Case,
    victims: tuple[Party, ...],
    blockers: tuple[Party, ...],
    scopes: Sequence[ScopeResult],
    best: Suspect | None,
) -> tuple[str, ...]:
    """Return what to do: first what helps at once, then the cure.

    `best` is the suspect that could well be the one, None where there is none.
    """
    slots = case.group.verdict.slots
    others = rivals(case, scopes)
    dead = [each for each in blockers if each.outcome != Outcome.established.name]
    lines = []
    if dead:
        there = counted.around(case.group.scope, others, case.place)
        lines.append(
            f"Keep the slot free of {dead[0].destination}: stop that client (thread"
            f" {dead[0].comm}) or shorten its connect timeout; or test the port first {there}, and"
            f" connect only when it answers.{_ask(case.place)}"
        )
    limit = f"(now {slots} at a time {counted.per(case.group.scope, others)})"
    lines.append(_cure(case, limit, best))
    lines.append(
        f"Pool the connections to {victims[0].destination}: an open connection needs no slot."
    )
    lines.append(
        "Mind restarts: every pool then reconnects through the same"
        f" {names.count(slots, 'slot')}, one after the other."
    )
    return tuple(lines)


def rivals(case: Case, scopes: Sequence[ScopeResult]) -> tuple[str, ...]:
    """Return the scopes that fit the holds as well as the one that was chosen."""
    return counted.rivals(case.group.scope, (result.row() for result in scopes))


# Whom to call, where it is not somebody who works on this very process.
def _ask(place: str) -> str:
    return {
        "egress": " What holds the SYNs is the packet filter of this host: call who runs that.",
        "network": " The limit is not on this host: call who runs the firewall, gateway or load"
        " balancer on the way.",
        "ingress": " The answers wait in the packet filter of this host: call who runs that.",
    }.get(place, "")


def _cure(case: Case, limit: str, best: Suspect | None) -> str:
    rules = ruleset(case.trace, int(case.attempts()["pid"][0]))
    raised = f"raise its limit of connect attempts {limit}"
    known = f", likely that of pid {best.pid}," if best and best.pid else ""
    return {
        "user": f"For good: {raised}, of the library that is preloaded{known} or start this"
        " program without it.",
        "gate": f"For good: find the product of the supervisor that answers its system calls{known}"
        f" and {raised}, or have this program exempted.",
        "connect": "For good: find out whose function, BPF program or module the stack above runs"
        f" through{known} and {raised}, or have this program exempted.",
        "egress": f"For good: look for queue, limit and 'ct count' in '{rules}', find"
        f" who put it there or reads the queue{known} and {raised}, or have this program exempted.",
        "network": "For good: the SYNs leave this host, so the limit lies behind it. Ask for a"
        f" limit of half-open connections per source, and {raised}. Processes it cannot see: it"
        " counts addresses.",
        "ingress": f"For good: look for queue and limit in '{rules}', find who put it"
        f" there or reads the queue{known} and {raised}, or have this program exempted.",
    }[case.place]


def settle(case: Case, sure: float, scopes: tuple[ScopeResult, ...]) -> str:
    """Return what one more run would settle."""
    others = rivals(case, scopes)
    if not case.group.verdict.testable:
        return "Trace on until the first held attempt goes on: right after another ends, or not?"
    if sure < 0.8:
        return (
            "It becomes firm when it happens again: while one attempt to a dead port waits, open"
            " several to a healthy one, twice or more."
        )
    return counted.settle(case.group.scope, others, case.place) or counted.SETTLED
