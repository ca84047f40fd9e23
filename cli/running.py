"""What a live trace and a recording share: how they begin, when they are over, who stops them."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from porttrace.analysis.render.escape import printable
from porttrace.cli.child import Child
from porttrace.cli.hearing import note
from porttrace.tracer import processes
from porttrace.tracer.errors import TargetError
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.runtimes import Names

# Looking and diagnosing may take this share of the time, and no more.
_SHARE = 0.05
_NAMED = 3
_UNTARGETED = (
    "note: without a target, holds before the kernel's connect (places user and gate) are not "
    "seen; they are with --uid, --cgroup, --container, --netns, --comm or --pid."
)


def started(
    command: tuple[str, ...], output_to_stderr: bool
) -> AbstractContextManager[Child | None]:
    """Return the command, waiting for its release, or nothing."""
    return Child(command, output_to_stderr=output_to_stderr) if command else nullcontext()


def check_targets(pids: Sequence[int]) -> None:
    """Raise TargetError for the first that is no process."""
    for pid in pids:
        if not processes.exists(pid):
            raise TargetError(f"there is no process {pid}", _whom_was_meant(pid))


def say_what_is_left_out(options: TraceOptions) -> None:
    """Say what such a trace does not show: holds before the call, and what names leave out."""
    if not options.targeted:
        note(_UNTARGETED)
    say_what_names_leave_out(options)


def say_what_names_leave_out(options: TraceOptions) -> None:
    """Say of processes of these names which threads have others.

    Whoever gives a name may mean the process.
    """
    for comm in sorted(options.comms):
        for pid, others in processes.threads_of_other_names(comm).items():
            listed = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
            note(printable(
                f"note: --comm names threads, and of {comm} (pid {pid}) others are called {listed}:"
                f" --pid {pid} has all of them."
            ))  # fmt: skip


def _whom_was_meant(pid: int) -> str:
    owner = processes.thread_group(pid)
    if owner:
        return f"{pid} is a thread of process {owner}: use --pid {owner}"
    # Inside a container processes have other numbers; that several may be meant is no help.
    inside = processes.called_inside(pid)
    if len(inside) == 1:
        process = processes.read_process(inside[0], name_of=Names().of)
        where = f"container {process.container_name or process.container}"
        where = where if process.container else "a pid namespace of its own"
        name = f"{process.comm} in {where}"
        return printable(f"{pid} is what {name} is called there; here it is --pid {inside[0]}")
    return "'ps -e' or 'pgrep NAME' shows the processes that are there"


def what_is_traced(options: TraceOptions, child: Child | None) -> str:
    """Return in words what is traced."""
    if child:
        return f"the command (pid {child.pid}) and its children"
    return options.describe() or "all processes"


def ends_with(duration_s: float | None) -> str:
    """Return how a trace ends: `Ctrl-C ends it`, and after how long it does by itself."""
    if not duration_s:
        return "Ctrl-C ends it"
    return f"It ends after {duration_s:g} s or by Ctrl-C"


def over(options: TraceOptions, child: Child | None) -> bool:
    """Return whether nothing is left to trace: the command, or every process, has ended."""
    if child:
        return child.ended()
    if options.pids:
        return not any(processes.exists(pid) for pid in options.pids)
    # A control group that was named by its path may fill and empty; a container has ended.
    return bool(options.cgroups_called) and not any(map(os.path.isdir, options.cgroups))


@contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM only raise a flag: who asks for it drains, sums up, returns 0.

    SIGHUP, too, unless it is ignored: who said nohup wants us to go on without a terminal.
    """
    seen: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, _: seen.append(n)) for number in numbers}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Pace:
    """Runs something now and then, seldom enough that it takes only its share of the time."""

    least_s: float
    due_s: float = 0.0
    share: float = _SHARE
    took_s: float = 0.0  # the last time

    def run(self, work: Callable[[], None]) -> None:
        """Run `work` if it is due."""
        if time.monotonic() < self.due_s:
            return
        begin_s = time.thread_time()
        work()
        # What is read once, such as the kernel's symbols, makes one run long and not the next.
        before_s, self.took_s = self.took_s, time.thread_time() - begin_s
        rest_s = max(self.least_s, min(before_s, self.took_s) / self.share)
        self.due_s = time.monotonic() + rest_s
