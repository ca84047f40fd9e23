"""How long connections waited in the accept queues of traced servers, summed up as events come.

From ACCEPT events, which the hook modes `fentry` and `kprobe` have. Sums only: what accept(2) took
in a day does not have to be kept, and a trace cut anywhere adds up to the same.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from porttrace.analysis.model import Accepted, AcceptKey
from porttrace.analysis.pairs import as_numbers, parts_by_key
from porttrace.tracer.event import Events, EventType

SLOW_NS = 100_000_000
"""A connection that waits so long for accept(2) is a slow one: its client waits in vain."""

_MOST = 10_000  # listeners, whatever a trace brings


def accepted_of(
    events: Events, known: Mapping[AcceptKey, Accepted] | None = None
) -> dict[AcceptKey, Accepted]:
    """Return `known` with the connections added that were accepted among `events`."""
    found = dict(known or {})
    which = (events["type"] == EventType.ACCEPT) & (events["start_ns"] > 0)
    rows = events[np.flatnonzero(which)]
    if not len(rows):
        return found
    (keys,) = as_numbers((rows["pid"].astype(np.int64), rows["sport"].astype(np.int64)))
    queued = rows["time_ns"].astype(np.int64) - rows["start_ns"].astype(np.int64)
    for part in parts_by_key(keys)[1]:
        key = (int(rows["pid"][part[0]]), int(rows["sport"][part[0]]))
        if key in found or len(found) < _MOST:
            found[key] = _added(found.get(key, Accepted(*key)), queued[part])
    return found


def _added(known: Accepted, queued: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Accepted:
    return replace(
        known,
        number=known.number + len(queued),
        slow=known.slow + int(np.count_nonzero(queued >= SLOW_NS)),
        total_ns=known.total_ns + int(queued.sum()),
        longest_ns=max(known.longest_ns, int(queued.max())),
    )
