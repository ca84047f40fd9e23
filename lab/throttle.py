"""What a throttle is: its kind, its number of slots, and whom it counts.

A value only. `porttrace.lab.run` puts it around a command; `argv` says how a shell would do that.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from porttrace.lab.errors import WrongUsageError

# A packet tells its socket, and the socket its user, cgroup and process; but no thread.
_SOCKET_SCOPES = ("process", "user", "cgroup", "destination", "host")

SCOPES_OF_KIND = {
    "gate": ("thread", "process", "user", "destination", "host"),
    "preload": ("thread", "process"),
    "egress-hold": _SOCKET_SCOPES,
    "egress-drop": _SOCKET_SCOPES,
    "rate": ("user", "destination", "host"),
    "rate-hold": _SOCKET_SCOPES,
    "deny": _SOCKET_SCOPES,
    "deny-cgroup": ("cgroup",),
    "gateway": _SOCKET_SCOPES,
    "gateway-drop": _SOCKET_SCOPES,
    "ingress-hold": _SOCKET_SCOPES,
}
DESCRIPTION_OF_KIND = {
    "gate": "a seccomp supervisor holds connect(2) at the entry of the call",
    "preload": "a preloaded library holds connect() in user space",
    "egress-hold": "a program behind the packet filter (NFQUEUE) holds SYNs on their way out",
    "egress-drop": "the packet filter drops SYNs beyond the slots; they come again later",
    "rate": "the packet filter drops SYNs beyond a rate (nftables limit)",
    "rate-hold": "a program behind the packet filter lets SYNs go at a fixed pace",
    "deny": "the packet filter rejects SYNs beyond the slots; attempts fail at once",
    "deny-cgroup": "a BPF program at a cgroup's connect hook denies with EPERM",
    "gateway": "a router between client and servers holds SYNs",
    "gateway-drop": "a router between client and servers drops SYNs beyond the slots",
    "ingress-hold": "the packet filter holds the answers on their way in",
}
# These change the packet filter of a whole network namespace, so they need one of their own.
PACKET_KINDS = frozenset(SCOPES_OF_KIND) - {"gate", "preload", "deny-cgroup"}
TIMED_KINDS = ("rate", "rate-hold")  # they count by time, and have no slots
ROUTED_KINDS = frozenset({"gateway", "gateway-drop"})
ANSWERS = ("reset", "port", "prohibited")


def default_scope(kind: str) -> str:
    """Return the scope of a throttle where none is asked for: the process where it can."""
    scopes = SCOPES_OF_KIND.get(kind, ("process",))
    return "process" if "process" in scopes else scopes[0]


@dataclass(frozen=True)
class Throttle:
    """`slots` attempts of one `scope` pass at once; 0 is "watched, never held" where that works.

    `rate_per_s` is for the kinds that count by time, `answer` for `deny`.
    """

    kind: str
    slots: int = 1
    scope: str = "process"
    rate_per_s: float = 2.0
    answer: str = "reset"

    def __post_init__(self) -> None:
        if self.kind not in SCOPES_OF_KIND:
            raise WrongUsageError(
                f"there is no throttle named {self.kind!r}",
                f"the lab has: {', '.join(SCOPES_OF_KIND)}",
            )
        if self.scope not in SCOPES_OF_KIND[self.kind]:
            raise WrongUsageError(
                f"the throttle {self.kind} cannot count by {self.scope!r}",
                f"it counts by: {', '.join(SCOPES_OF_KIND[self.kind])}",
            )
        if self.slots < 0:
            raise WrongUsageError(
                f"a throttle cannot have {self.slots} slots",
                "give 1 or more, or 0 for a control without any limit",
            )
        self._check_options()

    def _check_options(self) -> None:
        if self.rate_per_s <= 0:
            raise WrongUsageError(
                f"a throttle cannot let {self.rate_per_s} attempts go in a second",
                "give a rate above 0, such as --rate 2",
            )
        if self.answer not in ANSWERS:
            raise WrongUsageError(
                f"the throttle {self.kind} cannot answer by {self.answer!r}",
                f"it answers by: {', '.join(ANSWERS)}",
            )

    def argv(self, command: list[str]) -> list[str]:
        """Return the command line that runs `command` under this throttle."""
        return [
            *(sys.executable, "-m", "porttrace.lab.run", self.kind),
            *("--slots", str(self.slots), "--scope", self.scope),
            *("--rate", str(self.rate_per_s), "--answer", self.answer, "--", *command),
        ]
