"""What else could explain the holds of a `serialized-connects` finding, tested one by one.

Each function takes the case and returns a `Hypothesis`: refuted, open or supported, and why,
with the numbers that decided it.
"""

import math
from dataclasses import dataclass

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Ints, scope_keys
from porttrace.analysis.findings.parties import blocking_ns
from porttrace.analysis.groups import Group, Place
from porttrace.analysis.model import Attempts, Hypothesis, Outcome, Trace
from porttrace.analysis.rows import take
from porttrace.analysis.scope import FIRM_P
from porttrace.analysis.throttle import Verdict

_AFTER_THE_CALL = {
    "gate": "after the system call was made, before the kernel's connect began",
    "connect": "inside the kernel's connect, before SYN_SENT",
    "egress": "after the kernel had made the SYN, before it left this host",
    "network": "after the SYN had left this host, before an answer came",
    "ingress": "after the answer had come in, before the socket had it",
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
        return take(self.trace.attempts, self.group.rows)

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
    others = "another attempt was" if verdict.slots == 1 else f"{verdict.slots} others were"
    why = (
        f"{names.count(threads, 'thread')} had called connect already while {others} still open"
        f" ({names.count(verdict.held, 'held attempt')})"
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
    served = queue.service.lengths()[victims & queue.service.closed]
    numbers = f"typically held {_typical(queue.hold.lengths()[victims])}"
    numbers += f", then over in {_typical(served)}" if len(served) else ""
    if set(keys[victims].tolist()) - set(keys[blocking].tolist()):
        why = f"some went elsewhere than those in front of them: {numbers}"
        return Hypothesis(name, "refuted", why)
    if case.place in ("gate", "connect", "egress"):
        why = f"no packet had been sent yet while they were held: {numbers}"
        return Hypothesis(name, "refuted", why)
    if case.place == "ingress":
        why = f"the destination had answered already while they were held: {numbers}"
        return Hypothesis(name, "refuted", why)
    free = _quick_when_free(case, keys)
    several = len(np.unique(keys[victims]))
    if several > 1 and free:
        why = (
            f"{several} destinations were held together, each of which answers in {free} when free"
        )
        return Hypothesis(name, "refuted", f"{why}: {numbers}")
    return Hypothesis(name, "open", f"all went where those in front of them went: {numbers}")


# How long at most the destinations of the victims take for those that nobody held, "" where one is
# not known to be quick.
def _quick_when_free(case: Case, keys: Ints) -> str:
    queue = case.group.queue
    held, served = queue.held(), queue.service.lengths()
    answered = np.isin(case.attempts()["outcome"], (Outcome.established, Outcome.refused))
    free = ~held & answered & queue.service.closed
    free &= served * 5 <= float(np.median(queue.hold.lengths()[held]))
    if not np.isin(keys[held], keys[free]).all():
        return ""
    return names.duration(float(served[free].max()))


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
    decided = verdict.handoffs >= 3 and case.group.p_value() < FIRM_P
    why = f"{_taken(verdict)} while somebody waited, and {_released(verdict)}"
    if verdict.testable:
        why += ", not at a pace of their own" if decided else ": too few to tell from a steady pace"
    return Hypothesis("slow supervisor", "refuted" if decided else "open", why)


def _taken(verdict: Verdict) -> str:
    number = verdict.slots
    slots = {1: "the slot was", 2: "both slots were"}.get(number, f"all {number} slots were")
    # Cut, not rounded: what was not taken all the time must not read so.
    percent = math.floor(verdict.busy * 1000) / 10
    return f"{slots} taken {'all' if percent >= 100 else f'{percent:g}% of'} the time"


def _released(verdict: Verdict) -> str:
    if not verdict.testable:
        return "nobody who waited has gone on yet"
    within_ms = math.ceil(verdict.epsilon_ns / 1e6)
    number = names.count(verdict.testable, "wait")
    return (
        f"{verdict.handoffs} of {number} ended within {within_ms} ms after another connect was over"
    )


def _scheduler(case: Case) -> Hypothesis:
    return _by_chance(case, "late scheduling", "a busy CPU does not wait for connects to end")


def _by_chance(case: Case, name: str, because: str) -> Hypothesis:
    chance = case.group.p_value()
    verdict = "refuted" if chance < FIRM_P else "open"
    if not case.group.verdict.testable:
        return Hypothesis(name, verdict, f"{because}; nobody who waited has gone on yet")
    meet = "that waits ended so close after other connects"
    return Hypothesis(name, verdict, f"{because}; {meet} {by_chance(chance)}")


def by_chance(p_value: float) -> str:
    """Return how often chance alone does it, as `happens about 1 in 50,000 times by chance`."""
    if p_value > 0.5:
        return "may well be chance"
    if p_value < 1e-9:
        return "happens less than once in a billion times by chance"
    times = 1 / p_value
    # Two digits tell enough.
    times = round(times, 1 - math.floor(math.log10(times)))
    return f"happens about 1 in {times:,.0f} times by chance"


def _loss(case: Case) -> Hypothesis:
    lost = sum(loss.count for loss in case.trace.losses)
    if not lost:
        return Hypothesis("lost events", "refuted", "no event was lost")
    if case.loss_overlaps():
        why = f"{names.count(lost, 'event')} lost, some of them while attempts were held"
        return Hypothesis("lost events", "open", why)
    why = f"{names.count(lost, 'event')} lost, none while attempts were held"
    return Hypothesis("lost events", "refuted", why)


def _typical(lengths: Ints) -> str:
    return names.duration(float(np.median(lengths)))
