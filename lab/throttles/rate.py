"""The throttles `rate` and `rate-hold`: so many SYNs a second leave, whatever becomes of them.

`rate` is nftables' own `limit rate`: what is beyond is dropped, and comes again with the
retransmission, which counts anew. `rate-hold` is a reader of the packet queue that lets the SYNs go
at a fixed pace, in their order, and drops none. Slots say how many may leave at once (burst) under
`rate`; `rate-hold` has none.
"""

from __future__ import annotations

from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles import child, rules
from porttrace.lab.throttles.lines import Pace
from porttrace.lab.throttles.reader import Beyond, Plan
from porttrace.lab.throttles.supervise import run_queued

# By scope: the keys of a set whose elements have a limit of their own, IPv4 and IPv6 apart.
_KEYS = {
    "user": {"users": "meta skuid"},
    "destination": {
        "destinations4": "ip daddr . tcp dport",
        "destinations6": "ip6 daddr . tcp dport",
    },
}


def run(throttle: Throttle, command: list[str]) -> int:
    """Run `command` with nftables dropping its SYNs beyond the rate; return its exit status."""
    sets, lines = _limit(throttle)
    with rules.filtered("", "output", *lines, sets=sets):
        process = child.start(command)
        with child.signals_to(process):
            return child.exit_status(process.wait())


def run_holding(throttle: Throttle, command: list[str]) -> int:
    """Run `command` with its SYNs let go at a fixed pace; return its exit status."""
    plan = Plan(Pace(round(1e9 / throttle.rate_per_s)), Beyond.HOLD_SYN)
    return run_queued(throttle, command, plan)


# nftables takes whole numbers only, so the rate is told by the minute.
def _limit(throttle: Throttle) -> tuple[tuple[str, ...], tuple[str, ...]]:
    per_minute = max(1, round(throttle.rate_per_s * 60))
    over = f"limit rate over {per_minute}/minute burst {max(1, throttle.slots)} packets"
    keys = _KEYS.get(throttle.scope)
    if keys is None:
        return (), (f"{rules.SYN_ONLY} {over} counter drop",)
    sets = tuple(
        f"set {name} {{ typeof {key}; size 65535; flags dynamic; }}" for name, key in keys.items()
    )
    lines = tuple(
        f"{rules.SYN_ONLY} add @{name} {{ {key} {over} }} counter drop"
        for name, key in keys.items()
    )
    return sets, lines
