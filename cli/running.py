"""What a live trace and a recording share: how they begin, when they are over, who stops them."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from porttrace.cli.child import Child
from porttrace.tracer import processes
from porttrace.tracer.errors import TargetError
from porttrace.tracer.options import TraceOptions

# Looking and diagnosing may take this share of the time, and no more.
_SHARE = 0.05


def started(
    command: tuple[str, ...], output_to_stderr: bool
) -> AbstractContextManager[Child | None]:
    """Return the command, waiting for its release, or nothing."""
    return Child(command, output_to_stderr=output_to_stderr) if command else nullcontext()


def check_targets(pids: Sequence[int]) -> None:
    """Raise TargetError for the first that is no process."""
    for pid in pids:
        if not processes.exists(pid):
            owner = processes.thread_group(pid)
            hint = (
                f"{pid} is a thread of process {owner}: use --pid {owner}"
                if owner
                else "'ps -e' or 'pgrep NAME' shows the processes that are there"
            )
            raise TargetError(f"there is no process {pid}", hint)


def what_is_traced(options: TraceOptions, child: Child | None) -> str:
    """Return in words what is traced."""
    if child:
        return f"the command (pid {child.pid}) and its children"
    return options.describe() or "all processes"


def over(options: TraceOptions, child: Child | None) -> bool:
    """Return whether nothing is left to trace: the command, or every process, has ended."""
    if child:
        return child.ended()
    return bool(options.pids) and not any(processes.exists(pid) for pid in options.pids)


@contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM only raise a flag: who asks for it drains, sums up, returns 0."""
    seen: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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

    def run(self, work: Callable[[], None]) -> None:
        """Run `work` if it is due."""
        begin = time.monotonic()
        if begin < self.due_s:
            return
        work()
        end = time.monotonic()
        self.due_s = end + max(self.least_s, (end - begin) / _SHARE)
