"""The throttle `ingress-hold`: answers wait on the client's way in until a slot is free.

Every SYN goes out at once; the SYN-ACK of an attempt without a slot has crossed the wire already
and waits in the packet filter, where the socket does not see it. Attempts take the slots in the
order of their SYNs; the copies that both sides send again meanwhile are dropped.
"""

from __future__ import annotations

from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles.reader import Beyond
from porttrace.lab.throttles.supervise import plan_of, run_queued


def run(throttle: Throttle, command: list[str]) -> int:
    """Run `command` with the answers to its SYNs held; return its exit status."""
    plan = plan_of(throttle, Beyond.HOLD_ANSWER)
    return run_queued(throttle, command, plan, answers_in="INPUT")
