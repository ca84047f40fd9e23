"""Whose timer it was that ended waits in SYN_SENT, as a name, a confidence and a reason.

Each function takes what is known of equal waits and returns a `Source`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from porttrace.analysis import names
from porttrace.analysis.concurrency import Ints
from porttrace.analysis.findings.timers import is_windows, middle, round_s, tight
from porttrace.analysis.ladder import given_up, is_near, of_host
from porttrace.analysis.model import Outcome

_NEIGHBOUR_S = 3.0  # three unanswered ARP or neighbour requests, one a second (mcast_solicit)


@dataclass(frozen=True)
class Source:
    """Whose timer it was: a short name, how sure, and the reason as a sentence."""

    name: str
    confidence: float
    why: str


def kernel_source(sysctls: Mapping[str, int], waited_s: float, outcome: Outcome) -> Source:
    """Return whose timer ended an attempt whose end the kernel reported, after so long a wait."""
    if outcome == Outcome.unreachable and is_near(waited_s, _NEIGHBOUR_S):
        why = "three requests for its link address went unanswered, so the kernel gave up"
        return Source("neighbour", 0.7, why)
    step, own = given_up(waited_s, sysctls), of_host(sysctls)
    if step is None:
        if outcome == Outcome.unreachable:
            return Source("network", 0.7, "a router or the host itself said it is unreachable")
        why = "the kernel reported a timeout off its own ladder: TCP_USER_TIMEOUT does that"
        return Source("tcp-user-timeout", 0.8, why)
    if step.retries == own.retries:
        why = (
            f"the kernel's own ladder ends there: tcp_syn_retries = {own.retries}, that is"
            f" {len(own.rungs_s)} SYNs sent again, then {own.give_up_s:.0f} s are over"
        )
        return Source("kernel-ladder", 0.9 if sysctls else 0.7, why)
    why = (
        f"that is where the ladder ends with TCP_SYNCNT = {step.retries} on the socket, or"
        f" tcp_syn_retries = {step.retries} in its network namespace; a TCP_USER_TIMEOUT of"
        f" {step.give_up_s:.0f} s would look the same"
    )
    return Source("tcp-syncnt", 0.7, why)


def program_source(waits: Ints) -> Source:
    """Return the timer of the program that ended these waits (ns), equal ones or one alone."""
    typical_s = middle(waits) / 1e9
    if is_windows(typical_s):
        why = (
            "21 s is no rung of Linux: Windows gives up after 3 + 6 + 12 s, but here the"
            " application closed the socket, by a timer of its own (or of a proxy)"
        )
        return Source("application", _sure(waits, True), why)
    known_s = round_s(typical_s)
    length = f"{known_s:g} s" if known_s else names.duration(typical_s * 1e9)
    why = f"the application closed the socket: a timer of {length} in the program"
    return Source("application", _sure(waits, known_s > 0), why)


def no_timer(number: int) -> Source:
    """Return why so many attempts, closed by their program, tell of no timer."""
    if number == 1:
        return Source("application", 0.55, "the application closed the socket, after no round time")
    why = "the application closed the sockets, and no one timer explains these waits"
    return Source("application", 0.55, why)


def sndtimeo_source(in_call: Ints) -> Source:
    """Return the SO_SNDTIMEO that ended calls of these equal lengths (ns)."""
    after_s = round_s(middle(in_call) / 1e9)
    why = f"connect itself returned after {after_s:g} s, by SO_SNDTIMEO; no answer yet"
    return Source("so-sndtimeo", _sure(in_call, True), why)


# One wait at a round number may be chance, and so may two that are nearly equal.
def _sure(waits: Ints, known: bool) -> float:
    same = tight(waits)
    if len(waits) == 1 or not (known or same) or (len(waits) == 2 and not same):
        return 0.65
    return 0.8 if len(waits) < 5 else 0.9
