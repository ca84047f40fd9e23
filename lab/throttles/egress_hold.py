"""The throttle `egress-hold`: SYNs wait in the client's own packet filter until a slot is free.

As firewalls do that ask a program about each connection: the socket is in SYN_SENT, and nothing has
left the host yet. With 0 slots the program sees every SYN and lets it go at once.
The kernel sends no SYN again while the first waits in the queue (tcp_retransmit_skb answers EBUSY
where skb_still_in_host_queue, Linux 6.1), so a release falls right on the end of another attempt.
"""

from __future__ import annotations

from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles.reader import Beyond
from porttrace.lab.throttles.supervise import plan_of, run_queued


def run(throttle: Throttle, command: list[str]) -> int:
    """Run `command` with its SYNs held on the way out; return its exit status."""
    return run_queued(throttle, command, plan_of(throttle, Beyond.HOLD_SYN))
