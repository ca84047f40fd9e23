"""What a throttle is: its kind, its number of slots, and whom it counts.

A value only. `porttrace.lab.run` puts it around a command; `argv` says how a shell would do that.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from porttrace.lab.errors import LabError

SCOPES_OF_KIND = {
    "gate": ("thread", "process", "user", "destination", "host"),
    "preload": ("thread", "process"),
}


@dataclass(frozen=True)
class Throttle:
    """`slots` attempts of one `scope` pass at once; the gate takes 0 as "watched, never held"."""

    kind: str
    slots: int = 1
    scope: str = "process"

    def __post_init__(self) -> None:
        if self.kind not in SCOPES_OF_KIND:
            raise LabError(
                f"there is no throttle named {self.kind!r}",
                f"the lab has: {', '.join(SCOPES_OF_KIND)}",
            )
        if self.scope not in SCOPES_OF_KIND[self.kind]:
            raise LabError(
                f"the throttle {self.kind} cannot count by {self.scope!r}",
                f"it counts by: {', '.join(SCOPES_OF_KIND[self.kind])}",
            )
        if self.slots < 0:
            raise LabError(
                f"a throttle cannot have {self.slots} slots",
                "give 1 or more, or 0 for a control without any limit",
            )

    def argv(self, command: list[str]) -> list[str]:
        """Return the command line that runs `command` under this throttle."""
        return [
            *(sys.executable, "-m", "porttrace.lab.run", self.kind),
            *("--slots", str(self.slots), "--scope", self.scope, "--", *command),
        ]
