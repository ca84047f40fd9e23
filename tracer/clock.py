"""Is our clock the kernel's? In a time namespace of its own a process may have another one.

The kernel's events carry the host's monotonic clock. Where ours is ahead of it, or behind, no mark
could be compared with now: `require_host_clock` refuses instead of telling wrong times.
"""

import contextlib
import os
import re
from pathlib import Path

from porttrace.tracer.errors import UnsupportedError

# The first time namespace has this number on every kernel: PROC_TIME_INIT_INO of proc_ns.h
_HOST_CLOCK = "time:[4026531834]"

OTHER_CLOCK_HINT = (
    "run it outside, on the host; where process 1 is outside: "
    "sudo nsenter --time --target 1 porttrace ..."
)


def ahead_s(root: Path = Path("/")) -> float:
    """Return how far our monotonic clock is ahead of the kernel's own, in seconds.

    0 where there are no time namespaces, or that cannot be told.
    """
    with contextlib.suppress(OSError):
        # Where only children to come have another clock, the offsets are theirs.
        if os.readlink(root / "proc/self/ns/time") != _HOST_CLOCK:
            told = (root / "proc/self/timens_offsets").read_text()
            found = re.search(r"^(?:monotonic|1)\s+(-?\d+)\s+(\d+)$", told, re.M)
            return int(found[1]) + int(found[2]) / 1e9 if found else 0.0
    return 0.0


def in_words(ahead: float) -> str:
    """Return `86400 s ahead of` or `0.5 s behind`."""
    return f"{abs(ahead):.9g} s {'ahead of' if ahead > 0 else 'behind'}"


def require_host_clock(root: Path = Path("/")) -> None:
    """Raise UnsupportedError where the times of the kernel's events mean nothing to us."""
    if ahead := ahead_s(root):
        raise UnsupportedError(
            "porttrace runs in a time namespace of its own, whose clock is "
            f"{in_words(ahead)} the kernel's: all times would be wrong",
            OTHER_CLOCK_HINT,
        )
