"""The sentences of a `serialized-connects` finding, for a person on call at night."""

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.findings.alternatives import Case
from porttrace.analysis.model import Outcome, Party
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
    return f"{rule} {_blocker(case, blockers)} {_meanwhile(case, victims)}"


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
    group, trace = case.group, case.trace
    first = case.attempts()[0]
    pids = len(np.unique(case.attempts()["pid"]))
    if group.scope in ("thread", "process"):
        process = names.process(trace, int(first["pid"]))
        if group.scope == "process":
            return f"Process {process}"
        return f"Thread {names.comm(first)} (tid {group.key}) of {process}"
    known = trace.processes.get(int(first["pid"]))
    what = {
        "user": f"User {(known and known.user) or ''} (uid {group.key})".replace("  ", " "),
        "cgroup": f"Control group {(known and known.cgroup) or group.key}",
        "netns": f"Network namespace {group.key}",
        "host": "This host",
    }
    if group.scope == "destination":
        return f"Towards {destination_of(case)} this host, with {_processes(pids)} here,"
    return f"{what[group.scope]}, with {_processes(pids)} here,"


def _processes(number: int) -> str:
    return names.count(number, "process")


def _blocker(case: Case, blockers: tuple[Party, ...]) -> str:
    if not blockers:
        return "What held the slot is not in this trace;"
    first = blockers[0]
    row = int(np.flatnonzero(case.attempts()["attempt_id"] == first.attempt_id)[0])
    served = names.duration(int(case.group.queue.service.lengths()[row]))
    whose = "Its" if case.group.scope in ("thread", "process") else _whose(case, first)
    if len(blockers) > 1:
        whose += " longest blocking"
    attempt = f"{whose} attempt to {first.destination} (thread {first.comm})"
    return f"{attempt} {_ended(first.outcome, served)};"


def _whose(case: Case, party: Party) -> str:
    return f"{names.process(case.trace, party.pid)}'s"


def _ended(outcome: str, served: str) -> str:
    if outcome in _NO_ANSWER:
        return f"got no answer for {served}"
    if outcome == Outcome.established.name:
        return f"took {served} to connect"
    return f"ended after {served} ({outcome})"


def _meanwhile(case: Case, victims: tuple[Party, ...]) -> str:
    number = case.group.verdict.held
    were = "other connect was" if number == 1 else "other connects were"
    worst = victims[0]
    one = "it" if number == 1 else "the worst"
    head = f"meanwhile {number} {were} {STOPPED[case.place]}: {one}, to {worst.destination},"
    return f"{head} {_fate(case, worst)}."


def _fate(case: Case, worst: Party) -> str:
    row = int(np.flatnonzero(case.attempts()["attempt_id"] == worst.attempt_id)[0])
    waited = names.duration(worst.wait_s * 1e9)
    if not case.group.queue.hold.closed[row]:
        return f"has waited {waited} so far" if worst.outcome == "pending" else f"waited {waited}"
    served = int(case.group.queue.service.lengths()[row])
    took = names.duration(served)
    took = "under 1 ms" if served < 995_000 else took
    if worst.outcome == Outcome.established.name:
        return f"waited {waited} and then connected in {took}"
    return f"waited {waited} and then {_ended(worst.outcome, took)}"


def advice(case: Case, victims: tuple[Party, ...], blockers: tuple[Party, ...]) -> tuple[str, ...]:
    """Return what to do: first what helps at once, then the cure."""
    slots = case.group.verdict.slots
    dead = [b.destination for b in blockers if b.outcome != Outcome.established.name]
    lines = []
    if dead:
        lines.append(
            f"Keep the slot free of {dead[0]}: stop that client or shorten its connect timeout, or"
            " let it probe the port from outside the throttle before it connects."
        )
    lines.append(_cure(case, slots))
    lines.append(
        f"Pool the connections to {victims[0].destination}: an open connection needs no slot."
    )
    lines.append(
        "Mind restarts: every pool then reconnects through the same"
        f" {names.count(slots, 'slot')}, one after the other."
    )
    return tuple(lines)


def _cure(case: Case, slots: int) -> str:
    limit = f"(now {slots} at a time per {case.group.scope})"
    if case.place == "network":
        return (
            "For good: the SYNs leave this host, so the limit lies behind it. Ask who runs the"
            " firewall, the gateway or the load balancer on the way for a limit of half-open"
            f" connections per source {limit}."
        )
    return (
        "For good: find the tool among the suspects and raise its limit of connect attempts"
        f" {limit}, or have this program exempted."
    )


def settle(case: Case, sure: float, scopes: tuple[ScopeResult, ...]) -> str:
    """Return what one more run would settle."""
    rivals = [s.scope for s in scopes if s.verdict in ("same", "explains")]
    rivals = [scope for scope in rivals if scope != case.group.scope]
    if not case.group.verdict.testable:
        return "Trace on until the first held attempt goes on: right after another ends, or not?"
    if sure < 0.8:
        return (
            "Three or more handoffs make it firm: while one attempt to a dead port waits, open"
            " several to a healthy one, and repeat."
        )
    if rivals:
        return (
            f"Whether it counts per {case.group.scope} or per {', '.join(rivals)}: trace all of"
            " the host while a second process of the same user connects too."
        )
    return "Nothing: slots, place and scope are settled by this trace."
