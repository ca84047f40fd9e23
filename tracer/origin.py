"""Who asked for an attempt that no traced connect(2) asked for: read off the kernel's own stack.

The stack of an attempt's start shows how the kernel came to connect. Names of kernel
functions are looked up on the running kernel, so no version and no structure is known here.
"""

from collections.abc import Mapping

import numpy as np

from porttrace.tracer.event import Events, EventType, Origin, of_kinds

# Function names, and the way around connect(2) that runs through them.
_WAYS = (
    # io_connect in io_uring/net.c, called by the submitter or by a worker of its own
    (("io_connect", "io_uring", "io_issue_sqe", "io_wq_"), Origin.IO_URING),
    # sendto(2), sendmsg(2), io_uring's too: tcp_sendmsg_fastopen in net/ipv4/tcp.c
    (("tcp_sendmsg", "mptcp_sendmsg"), Origin.FASTOPEN),
    # connect(2) all the same: of a 32-bit program, or entered before tracing began
    (("__sys_connect", "__x64_sys_connect", "__ia32_sys_connect", "__arm64_sys_connect"),
     Origin.CONNECT),
)  # fmt: skip
_UNKNOWN = int(Origin.UNKNOWN)  # numpy takes its time to see that an enum is a number


def origin_of(frames: tuple[str, ...]) -> int:
    """Return the Origin that a kernel stack (innermost first) shows."""
    for names, origin in _WAYS:
        if any(frame.startswith(names) for frame in frames):
            return int(origin)
    return int(Origin.KERNEL if frames else Origin.UNKNOWN)


def with_origins(events: Events, stacks: Mapping[int, tuple[str, ...]]) -> Events:
    """Return the events with `origin` filled in where the kernel program left a stack for it.

    That stack is no hold: it is taken out of `connect_stack`. Changes `events` in place.
    """
    asked = of_kinds(events, EventType.START, EventType.RETURN)
    asked &= (events["origin"] == _UNKNOWN) & (events["connect_stack"] >= 0)
    if not asked.any():
        return events
    for stack in np.unique(events["connect_stack"][asked]).tolist():
        those = asked & (events["connect_stack"] == stack)
        events["origin"][those] = origin_of(stacks.get(stack, ()))
    events["connect_stack"][asked] = -1
    return events
