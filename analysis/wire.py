"""What was seen of attempts on the wire, where anything was: times, ns, 0 for nothing seen.

`wire_ns` is when the first SYN left this host, `answer_ns` when the first answer came in. In traces
without a wire probe all of them are 0, and nothing is concluded.
"""

import numpy as np

from porttrace.analysis.concurrency import Ints
from porttrace.analysis.model import Table, Trace


def wire_mark(attempts: Table, name: str) -> Ints:
    """Return the mark `wire_ns` or `answer_ns` of each attempt."""
    return np.asarray(attempts[name], np.int64)


def wire_seen(trace: Trace) -> bool:
    """Tell whether the wire was watched, so that a SYN which is not there never left."""
    return trace.host.wire and bool((wire_mark(trace.columns, "wire_ns") > 0).any())
