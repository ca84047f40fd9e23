"""What can stop a process on its way into a system call: seccomp and ptrace.

Both act before the kernel begins with connect(2), at the place `gate`.
"""

from collections.abc import Iterator, Mapping, Sequence

from porttrace.tracer.census.holders import Holders
from porttrace.tracer.census.host import HERE, HostFiles
from porttrace.tracer.facts import Fact, NotLooked, Process, Suspect

_FILTER_MODE = "2"  # of the line Seccomp in /proc/PID/status, see proc(5)
_STRICT_MODE = "1"

Status = Mapping[str, str]


def look(process: Process, holders: Holders, files: HostFiles = HERE) -> Iterator[Fact]:
    """Yield what seccomp and ptrace can do to `process`; `holders` tells who answers for filters.

    A process has as many modes and tracers as threads: its first one is looked at first, then
    those of the others that differ.
    """
    threads = files.threads(process.pid)
    yield from _seccomp(process, threads, holders, files)
    yield from _ptrace(process, threads, files)


def _seccomp(
    process: Process, threads: Sequence[Status], holders: Holders, files: HostFiles
) -> Iterator[Fact]:
    modes = [status.get("Seccomp", "") for status in threads]
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
    has = f"{_called(process)} has {_filters(threads)}"
    family = files.ancestors(process.pid)
    for pid in sorted(holders.notify, key=lambda pid: (pid not in family, pid)):
        # Who answers for a filter holds such a descriptor; for whose filter is not shown.
        near = ", an ancestor of it" if pid in family else ""
        yield Suspect(
            kind="seccomp-notify",
            place="gate",
            what=f"{files.who(pid, near)} answers system calls in place of the kernel (seccomp "
            f"user notification); {has}",
            source=f"/proc/{pid}/fd, /proc/{process.pid}/status",
            pid=pid,
        )
    if not holders.notify:
        yield Suspect(
            kind="seccomp-filter",
            place="gate",
            what=f"{has}; nobody holds a notification descriptor: a filter alone can refuse a "
            "connect, not delay it",
            source=f"/proc/{process.pid}/task/*/status",
        )


def _filters(threads: Sequence[Status]) -> str:
    # Linux 5.9 counts them: commit c818c03b661c ("seccomp: Report number of loaded filters").
    most = max((int(status.get("Seccomp_filters", "0")) for status in threads), default=0)
    return f"{most} seccomp filters" if most > 1 else "a seccomp filter"


def _ptrace(process: Process, threads: Sequence[Status], files: HostFiles) -> Iterator[Fact]:
    tracers = [int(status.get("TracerPid", "0")) for status in threads]
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
