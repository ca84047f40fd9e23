"""What can stop a process on its way into a system call: seccomp and ptrace.

Both act before the kernel begins with connect(2), at the place `gate`.
"""

from collections.abc import Iterator

from porttrace.tracer.census.holders import Holders
from porttrace.tracer.census.host import HERE, HostFiles
from porttrace.tracer.facts import Fact, NotLooked, Process, Suspect

_FILTER_MODE = "2"  # of the line Seccomp in /proc/PID/status, see proc(5)
_STRICT_MODE = "1"


def look(process: Process, holders: Holders, files: HostFiles = HERE) -> Iterator[Fact]:
    """Yield what seccomp and ptrace can do to `process`; `holders` tells who answers for filters.

    A process has as many modes and tracers as threads: its first one is looked at first, then
    those of the others that differ.
    """
    yield from _seccomp(process, holders, files)
    yield from _ptrace(process, files)


def _seccomp(process: Process, holders: Holders, files: HostFiles) -> Iterator[Fact]:
    modes = [status.get("Seccomp", "") for status in files.threads(process.pid)]
    if "" in modes:
        yield NotLooked("seccomp mode", f"/proc/{process.pid}/status has no line of that name")
    if _STRICT_MODE in modes:
        yield Suspect(
            "seccomp-strict",
            "gate",
            f"{_called(process)} is in strict seccomp mode: a connect would kill it",
            f"/proc/{process.pid}/task/*/status",
        )
    if _FILTER_MODE not in modes:
        return
    family = files.ancestors(process.pid)
    for pid in sorted(holders.notify, key=lambda pid: (pid not in family, pid)):
        yield _supervisor(process, pid, pid in family, files)
    if not holders.notify:
        yield Suspect(
            kind="seccomp-filter",
            place="gate",
            what=f"{_called(process)} has {_filters(process.pid, files)}; nobody holds "
            "a notification descriptor: a filter alone can refuse a connect, not delay it",
            source=f"/proc/{process.pid}/task/*/status",
        )


def _supervisor(process: Process, pid: int, is_near: bool, files: HostFiles) -> Suspect:
    # Who answers for a filter holds a "seccomp notify" descriptor; for whose filter is not shown.
    near = ", an ancestor of it" if is_near else ""
    return Suspect(
        kind="seccomp-notify",
        place="gate",
        what=f"{files.who(pid, near)} answers system calls in place of the kernel (seccomp user "
        f"notification); {_called(process)} has {_filters(process.pid, files)}",
        source=f"/proc/{pid}/fd, /proc/{process.pid}/status",
        pid=pid,
    )


def _filters(pid: int, files: HostFiles) -> str:
    # Linux 5.9 counts them: commit c818c03b661c ("seccomp: Report number of loaded filters").
    counts = [int(status.get("Seccomp_filters", "0")) for status in files.threads(pid)]
    most = max(counts, default=0)
    return f"{most} seccomp filters" if most > 1 else "a seccomp filter"


def _ptrace(process: Process, files: HostFiles) -> Iterator[Fact]:
    tracers = [int(status.get("TracerPid", "0")) for status in files.threads(process.pid)]
    for tracer in dict.fromkeys(filter(None, tracers)):
        yield Suspect(
            kind="ptrace",
            place="gate",
            what=f"{files.who(tracer)} traces {_called(process)} with ptrace and can stop each "
            "of its system calls",
            source=f"/proc/{process.pid}/task/*/status",
            pid=tracer,
        )


def _called(process: Process) -> str:
    return f"{process.comm} (pid {process.pid})"
