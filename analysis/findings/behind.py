"""Who stood in a throttle's queue while attempts to one destination were open, and how long.

Those that waited are named by the `serialized-connects` findings; here they are only counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis.findings.parties import NAMED
from porttrace.analysis.holds import HELD_NS, Spans
from porttrace.analysis.model import Finding, Party
from porttrace.analysis.timeline import measure, union


@dataclass(frozen=True)
class Behind:
    """How many waited, and the longest time that one of them did meanwhile."""

    number: int = 0
    longest_s: float = 0.0
    at_least: bool = False  # the findings do not name all that waited


def behind(to: str, served: Spans, found: Sequence[Finding]) -> Behind:
    """Return who waited, as these findings tell, while attempts to `to` were open (`served`)."""
    throttles = [
        finding
        for finding in found
        if finding.rule == "serialized-connects"
        and any(blocker.destination == to for blocker in finding.blockers)
    ]
    victims = {v.attempt_id: v for finding in throttles for v in finding.victims}
    # An attempt to this very destination may be held itself: that is no harm done by it.
    others = [victim for victim in victims.values() if victim.destination != to]
    waited = _meanwhile(others, served)
    waited = waited[waited >= HELD_NS]
    more = any(len(finding.victims) >= NAMED for finding in throttles)
    return Behind(len(waited), float(waited.max(initial=0)) / 1e9, more)


def _meanwhile(victims: list[Party], served: Spans) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    start = np.array([victim.start_ns for victim in victims], np.int64)
    length = np.array([round(victim.wait_s * 1e9) for victim in victims], np.int64)
    return measure(union(served.start, served.stop), start, start + length)
