"""The throttle `gateway`: the router between client and servers lets C half-open attempts through.

From the client's socket this looks like `egress-hold`; on the client's wire it does not, since each
SYN leaves the host at once. `gateway` holds the SYNs beyond the limit, `gateway-drop` drops them.
The router looks at the client's sockets to learn that an attempt has ended, as one does that has an
agent on the host: on the wire nobody hears of an attempt that was given up.
"""

from __future__ import annotations

from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles import netns, rules
from porttrace.lab.throttles.reader import Beyond
from porttrace.lab.throttles.supervise import plan_of, run_queued


def run(throttle: Throttle, command: list[str]) -> int:
    """Run `command` with its SYNs held on the router; return its exit status."""
    plan = plan_of(throttle, Beyond.HOLD_SYN)
    where = netns.router_name()
    return run_queued(throttle, command, plan, syns_in="FORWARD", where=where)


def run_dropping(throttle: Throttle, command: list[str]) -> int:
    """Run `command` with its SYNs beyond the limit dropped by the router; return its status."""
    plan = plan_of(throttle, Beyond.MARK, rules.DROP_MARK)
    where = netns.router_name()
    rule = f"meta mark {rules.DROP_MARK:#x} counter drop"
    with rules.filtered(where, "forward", rule):
        return run_queued(throttle, command, plan, syns_in="FORWARD", where=where)
