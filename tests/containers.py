"""Containers for tests with a real kernel, made of what runtimes make them of.

Namespaces of their own (pid, mount, network, control group), a control group v2 that is named as
a runtime names it, and a small process with the pid 7 inside. For real runtimes see
tests/kernel/test_runtimes.py.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from porttrace.tracer import cgroups
from porttrace.tracer.processes import called_inside, container

WORKLOAD = str(Path(__file__).parent / "kernel" / "container_workload.py")
LISTENING, REFUSED, FULL = 8080, 9, 8081

_ENTER = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
_UNSHARE = (
    *("unshare", "--pid", "--mount", "--net", "--cgroup", "--fork", "--mount-proc"),
    "--kill-child",
)


def tree() -> Path:
    """Return where control groups v2 are mounted."""
    line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines()
                if " - cgroup2 " in line)  # fmt: skip
    return Path(line.split(" ")[4])


@dataclass
class Box:
    """A running container: its id, the directory of its control group, its process 7."""

    id: str
    cgroup: Path  # empty when a runtime made it
    pid: int = 0  # of process 7, as the host has it
    _process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def ask(self, line: str) -> int:
        """Let process 7 do something; return what came of it."""
        process = self._process
        assert process and process.stdin and process.stdout
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    def enter(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command that joins the container from outside, as `docker exec` does."""
        words = ["nsenter", "-t", str(self.pid), "-n", "-p", "-m", *command]
        return subprocess.run(
            ["sh", "-c", _ENTER, "sh", str(self.cgroup), *words],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip


@contextlib.contextmanager
def running_as(command: Sequence[str], number: str) -> Iterator[Box]:
    """Run a command that starts the workload in the container of that id."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            yield _ready(Box(number, Path(), 0, process), process.stdout)
        finally:
            process.kill()


@contextlib.contextmanager
def box(number: str, pattern: str = "docker-{}.scope") -> Iterator[Box]:
    """Run a container of that id (64 hex digits); nothing of it is left afterwards."""
    cgroup = tree() / f"porttrace-test-{os.getpid()}" / pattern.format(number)
    cgroup.mkdir(parents=True)
    with _removed(cgroup):
        command = ["sh", "-c", _ENTER, "sh", str(cgroup), *_UNSHARE, sys.executable, WORKLOAD]
        with running_as(command, number) as made:
            made.cgroup = cgroup
            yield made


def _ready(made: Box, output: IO[str] | None) -> Box:
    assert output and output.readline() == "ready\n"
    known = {pid: container(pid) for pid in called_inside(7)}
    (made.pid,) = (pid for pid, where in known.items() if where and where.id == made.id)
    return made


@contextlib.contextmanager
def _removed(cgroup: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # The kernel lets go of it a moment after the last process ended.
        until = time.monotonic() + 10
        while cgroups.pids_below(str(cgroup)) and time.monotonic() < until:
            time.sleep(0.01)
        for folder in (cgroup, *cgroup.parents):
            if not folder.is_relative_to(tree() / f"porttrace-test-{os.getpid()}"):
                break
            with contextlib.suppress(OSError):
                folder.rmdir()


def with_mounts(setup: str, command: Sequence[str]) -> list[str]:
    """Return a command that runs in mounts of its own, changed by `setup` (shell)."""
    script = f'{setup} && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]
