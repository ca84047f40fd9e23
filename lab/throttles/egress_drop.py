"""The throttle `egress-drop`: nftables drops the SYNs of attempts that find no slot free.

What is counted: half-open attempts of the scope, that is sockets in SYN_SENT whose SYN was let out.
nftables alone cannot count those (`ct count` counts established connections too, and knows no
process), so a reader of the packet queue in front marks the SYNs beyond the limit, and the rule
drops what is marked. Nobody stands in line: a slot that becomes free goes to whoever sends a SYN
next, so a held attempt goes on with a retransmission, one, two, four ... seconds after its start.
"""

from __future__ import annotations

from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles import rules
from porttrace.lab.throttles.reader import Beyond
from porttrace.lab.throttles.supervise import plan_of, run_queued


def run(throttle: Throttle, command: list[str]) -> int:
    """Run `command` with its SYNs beyond the limit dropped; return its exit status."""
    plan = plan_of(throttle, Beyond.MARK, rules.DROP_MARK)
    with rules.filtered("", "output", f"meta mark {rules.DROP_MARK:#x} counter drop"):
        return run_queued(throttle, command, plan)
