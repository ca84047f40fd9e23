"""What else could explain the holds of a `serialized-connects` finding, tested one by one.

Each function takes the case and returns a `Hypothesis`: refuted, open or supported, and why,
with the numbers that decided it.
"""

from dataclasses import dataclass

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Ints, scope_keys
from porttrace.analysis.findings.parties import blocking_ns
from porttrace.analysis.groups import Group, Place
from porttrace.analysis.model import Attempts, Hypothesis, Outcome, Trace
from porttrace.analysis.scope import FIRM_P

_AFTER_THE_CALL = {
    "gate": "after the system call was made, before the kernel's connect began",
    "connect": "inside the kernel's connect, before SYN_SENT",
}


@dataclass(frozen=True)
class Case:
    """A throttled group at one place, with the attempts it is about."""

    trace: Trace
    place: str
    group: Group
    at: Place  # all attempts at that place, for the scopes that were not chosen

    def attempts(self) -> Attempts:
        """Return the attempts of the group."""
        return self.trace.attempts[self.group.rows]

    def loss_overlaps(self) -> bool:
        """Tell whether events were lost while somebody was held."""
        held, hold = self.group.queue.held(), self.group.queue.hold
        if not held.any():
            return False
        return any(
            bool(np.any((hold.start[held] <= loss.last_ns) & (hold.stop[held] >= loss.first_ns)))
            for loss in self.trace.losses
        )


def alternatives(case: Case) -> tuple[Hypothesis, ...]:
    """Return every other explanation that was tested."""
    tests = (_sequential, _lock, _destination, _dns, _ports, _supervisor, _scheduler, _loss)
    return tuple(test(case) for test in tests)


def _sequential(case: Case) -> Hypothesis:
    name = "sequential code"
    if case.place == "user":
        why = (
            "threads that take turns in user space look the same; only the preloaded library"
            " speaks for a throttle"
        )
        return Hypothesis(name, "open", why)
    threads = len(np.unique(scope_keys(case.attempts()[case.group.queue.held()], "thread")))
    verdict = case.group.verdict
    why = (
        f"{names.count(verdict.held, 'held attempt')} of {names.count(threads, 'thread')}"
        f" had already been made while {names.count(verdict.slots, 'other')} had not ended"
    )
    return Hypothesis(name, "refuted", why)


def _lock(case: Case) -> Hypothesis:
    name = "user-space lock"
    if case.place == "user":
        why = "a lock of the application around its connects would look the same"
        return Hypothesis(name, "open", why)
    why = f"the waits lie {_AFTER_THE_CALL[case.place]}, where no lock of the application reaches"
    return Hypothesis(name, "refuted", why)


def _destination(case: Case) -> Hypothesis:
    name, queue = "same slow destination", case.group.queue
    keys = scope_keys(case.attempts(), "destination")
    victims, blocking = queue.held(), blocking_ns(case.group) > 0
    served = _typical(queue.service.lengths()[victims & queue.service.closed])
    held = _typical(queue.hold.lengths()[victims])
    numbers = f"held {names.duration(held)}, then over in {names.duration(served)} (medians)"
    if set(keys[victims].tolist()) - set(keys[blocking].tolist()):
        return Hypothesis(name, "refuted", f"victims went elsewhere than blockers: {numbers}")
    if case.place != "user":
        why = f"no packet had been sent yet while they were held: {numbers}"
        return Hypothesis(name, "refuted", why)
    return Hypothesis(name, "open", f"victims and blockers went to the same place: {numbers}")


def _dns(case: Case) -> Hypothesis:
    name = "DNS"
    if case.place != "user":
        why = "the address was in hand: it is an argument of the call that was held"
        return Hypothesis(name, "refuted", why)
    return _by_chance(case, name, "answers of a resolver do not wait for other connects to end")


def _ports(case: Case) -> Hypothesis:
    failed = int(np.count_nonzero(case.attempts()["outcome"] == Outcome.no_port))
    if failed:
        why = f"{names.count(failed, 'attempt')} failed for want of a local port (EADDRNOTAVAIL)"
        return Hypothesis("port shortage", "open", why)
    why = "no attempt failed with EADDRNOTAVAIL; a shortage fails at once, it never queues"
    return Hypothesis("port shortage", "refuted", why)


def _supervisor(case: Case) -> Hypothesis:
    verdict = case.group.verdict
    why = (
        f"while some were held, {verdict.slots} in service for {verdict.busy:.0%} of the time, and"
        f" {verdict.handoffs} of {verdict.testable} releases came within"
        f" {verdict.epsilon_ns / 1e6:.0f} ms of an end, not at a pace of their own"
    )
    decided = verdict.handoffs >= 3 and case.group.p_value() < FIRM_P
    return Hypothesis("slow supervisor", "refuted" if decided else "open", why)


def _scheduler(case: Case) -> Hypothesis:
    return _by_chance(case, "late scheduling", "a busy CPU does not wait for connects to end")


def _by_chance(case: Case, name: str, because: str) -> Hypothesis:
    chance = case.group.p_value()
    verdict = "refuted" if chance < FIRM_P else "open"
    return Hypothesis(name, verdict, f"{because}; by chance the handoffs have p = {chance:.2g}")


def _loss(case: Case) -> Hypothesis:
    lost = sum(loss.count for loss in case.trace.losses)
    if case.loss_overlaps():
        why = f"{names.count(lost, 'event')} lost, some of them while attempts were held"
        return Hypothesis("lost events", "open", why)
    why = f"{names.count(lost, 'event')} lost, none while attempts were held"
    return Hypothesis("lost events", "refuted", why)


def _typical(lengths: Ints) -> float:
    return float(np.median(lengths)) if len(lengths) else 0.0
