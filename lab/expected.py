"""What a trace of each throttle must say: rule, place, mechanism, and its own scope and slots."""

from __future__ import annotations

from dataclasses import dataclass

from porttrace.lab.throttle import Throttle

THROTTLE_RULES = frozenset({"serialized-connects", "limited-connects", "paced-connects"})

_SERIALIZED, _LIMITED, _PACED = "serialized-connects", "limited-connects", "paced-connects"
_OF_KIND = {
    "gate": (_SERIALIZED, "gate", "queue"),
    "preload": (_SERIALIZED, "user", "queue"),
    "egress-hold": (_SERIALIZED, "egress", "queue"),
    "egress-drop": (_SERIALIZED, "egress", "drop"),
    "rate": (_PACED, "egress", "drop"),
    "rate-hold": (_PACED, "egress", "queue"),
    "deny": (_LIMITED, "egress", "deny"),
    "deny-cgroup": (_LIMITED, "connect", "deny"),
    "gateway": (_SERIALIZED, "network", "queue"),
    "gateway-drop": (_SERIALIZED, "network", "drop"),
    "ingress-hold": (_SERIALIZED, "ingress", "queue"),
}


@dataclass(frozen=True)
class Expected:
    """The fields of the finding that a throttle must lead to; 0 slots where it has none."""

    rule: str
    place: str
    mechanism: str
    scope: str
    slots: int


def expected_of(throttle: Throttle) -> Expected | None:
    """Return what a trace of the throttle must say, None where it holds nobody (0 slots)."""
    if throttle.slots == 0:
        return None
    rule, place, mechanism = _OF_KIND[throttle.kind]
    slots = 0 if rule == _PACED else throttle.slots
    return Expected(rule, place, mechanism, throttle.scope, slots)
