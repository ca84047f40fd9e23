"""What goes before a command that is meant for a network namespace of the trace.

A process that is in it does, while it lives; those that a finding is about seldom do by the time
that somebody reads of it. So the name comes first, and a process that has ended never.
"""

import shlex
from collections.abc import Iterable

from porttrace.analysis.model import Trace

NOBODY = "nsenter -t PID -n "
"""All that were in it have ended: the reader fills in who is there by then."""


def within(trace: Trace, netns: int, likely: Iterable[int] = ()) -> str:
    """Return what goes before a command for network namespace `netns` (inode), with a blank.

    "" for the one that the tracer was in, where it has no name. `likely`: processes in it that are
    a better way in than others, such as the server that a finding is about.
    """
    samples = [each for each in reversed(trace.samples) if each.netns == netns]
    told = next((each for each in samples if each.own is not None), None)
    if told and told.name:
        return f"ip netns exec {shlex.quote(told.name)} "
    if told and told.own:
        return ""
    inside = [each.pid for each in trace.processes.values() if netns and each.netns == netns]
    pids = (*likely, *(each.pid for each in samples), *sorted(inside))
    alive = next((pid for pid in pids if pid and pid not in trace.exits), 0)
    return f"nsenter -t {alive} -n " if alive else NOBODY


def ruleset(trace: Trace, pid: int) -> str:
    """Return the command that shows the packet filter which the connects of a process pass."""
    process = trace.processes.get(pid)
    return f"{within(trace, process.netns if process else 0, [pid])}nft list ruleset"
