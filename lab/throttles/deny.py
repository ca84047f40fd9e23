"""The throttle `deny`: nftables rejects the SYNs of attempts beyond C in flight; they fail at once.

The attempt fails with ECONNREFUSED (`reset`, `port`) or EHOSTUNREACH (`prohibited`), by what the
rule answers. What is counted is the same as in `egress-drop`: sockets of the scope in SYN_SENT.
"""

from __future__ import annotations

from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles import rules
from porttrace.lab.throttles.reader import Beyond
from porttrace.lab.throttles.supervise import plan_of, run_queued

_REJECT = {
    "reset": "reject with tcp reset",
    "port": "reject with icmpx type port-unreachable",
    "prohibited": "reject with icmpx type admin-prohibited",
}


def run(throttle: Throttle, command: list[str]) -> int:
    """Run `command` with its attempts beyond the limit rejected; return its exit status."""
    plan = plan_of(throttle, Beyond.MARK, rules.DENY_MARK)
    reject = _REJECT[throttle.answer]
    # A TCP reset is valid only behind a match for TCP.
    rule = f"meta l4proto tcp meta mark {rules.DENY_MARK:#x} counter {reject}"
    with rules.filtered("", "output", rule):
        return run_queued(throttle, command, plan)
