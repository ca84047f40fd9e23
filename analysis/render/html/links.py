"""Who waited for whom: each victim of a finding with the blockers that had a slot meanwhile."""

from collections.abc import Iterator, Sequence

import numpy as np

from porttrace.analysis import holds
from porttrace.analysis.model import Finding, Party, Trace

_PER_VICTIM = 3
_PLACES = ("user", "gate", "connect")

Link = tuple[int, int, int]
"""Attempt id of the victim and of the blocker, and how long (ns) the two overlapped."""


def links(trace: Trace, findings: Sequence[Finding]) -> list[Link]:
    """Return the links of all findings; for each victim the blocker that stands for its wait first.

    That is the one with the longest overlap of those that had ended when the victim went on: with
    several slots, one that was still open then did not let it through.
    """
    found: dict[tuple[int, int], int] = {}
    for finding in findings:
        if finding.place in _PLACES and finding.victims and finding.blockers:
            for victim, blocker, overlap in _of_finding(trace, finding):
                found.setdefault((victim, blocker), overlap)
    return [(victim, blocker, overlap) for (victim, blocker), overlap in found.items()]


def _of_finding(trace: Trace, finding: Finding) -> Iterator[Link]:
    waiting, held = _rows_of(trace, finding.victims)
    blocking, busy = _rows_of(trace, finding.blockers)
    hold = holds.spans(waiting, finding.place, trace.end_ns)
    service = holds.service(blocking, finding.place, trace.end_ns)
    overlap = np.minimum(hold.stop[:, None], service.stop) - np.maximum(
        hold.start[:, None], service.start
    )
    ended = (service.stop <= hold.stop[:, None]) & service.closed
    for number, lengths, let_go in zip(held, overlap, ended, strict=True):
        first = np.lexsort((-lengths, ~let_go))
        best = [i for i in first.tolist() if lengths[i] > 0][:_PER_VICTIM]
        yield from ((number, busy[i], int(lengths[i])) for i in best)


def _rows_of(trace: Trace, parties: Sequence[Party]) -> tuple[np.ndarray, list[int]]:
    ids = [party.attempt_id for party in parties]
    rows = trace.attempts[np.isin(trace.attempts["attempt_id"], ids)]
    return rows, [int(number) for number in rows["attempt_id"]]
