"""Enough file descriptors for a trace: some sixty for its programs, two a CPU, one a namespace."""

import resource

from porttrace.tracer.errors import PorttraceError

LEAST = 256
_PLENTY = 4096


def make_room() -> None:
    """Let this process open as many files as a trace may need, or say that it may not.

    Raises PorttraceError. A command that was begun before keeps the limit it had.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST:
        raise PorttraceError(
            f"this process may open {hard} files at once, and a trace takes up to {LEAST}",
            f"raise the limit: 'ulimit -n {_PLENTY}' as root, LimitNOFILE={_PLENTY} in a service",
        )
    wanted = _PLENTY if hard == resource.RLIM_INFINITY else min(hard, _PLENTY)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
