"""The tracers that are measured: how each is started, when it traces, what it used."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from load import Client

HERE = Path(__file__).parent
_PORTTRACE = (sys.executable, "-m", "porttrace.cli")
_STATES = "sock:inet_sock_set_state"
_BPFTRACE = f'tracepoint:{_STATES} {{ printf("%d %s %d\\n", pid, comm, args->newstate); }}'
_SETTLE_S = 1.0  # what came last is handled by then: every buffer here is drained sooner


class StartError(Exception):
    """A tracer does not run here, such as those of bcc without the kernel's headers."""


@dataclass(frozen=True)
class Tool:
    """A tracer. `words` makes its command line from the file it writes to and the client's pid.

    `ready` begins the line by which it says that it traces; "": it is given `quiet_s` seconds.
    `around` tracers start the client themselves. `needs` is the program that must be installed.
    """

    name: str
    words: Callable[[Path, int], list[str]]
    needs: str = ""
    ready: str = ""
    quiet_s: float = 1.5
    around: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be run here."""
        return not self.needs or shutil.which(self.needs) is not None


def _porttrace(*words: str) -> Callable[[Path, int], list[str]]:
    return _words(*_PORTTRACE, *words)


def _words(*words: str) -> Callable[[Path, int], list[str]]:
    def made(out: Path, pid: int) -> list[str]:
        return [word.replace("{out}", str(out)).replace("{pid}", str(pid)) for word in words]

    return made


def _bcc(name: str) -> Callable[[Path, int], list[str]]:
    # Its own interpreter, unbuffered: what it prints must be there when it prints it.
    return lambda out, pid: ["/usr/bin/python3", "-u", shutil.which(name) or name]


_BOUNDED = ("-d", "10m")  # it ends by itself, should nobody be left to end it
_RECORD = ("record", "--force", "-o", "{out}", *_BOUNDED)
COUNT = Tool("count in the kernel", lambda *_: [sys.executable, str(HERE / "count.py")],
             ready="ready")  # fmt: skip
PORTTRACE = (
    Tool("porttrace record", _porttrace(*_RECORD), ready="Recording"),
    Tool("porttrace record --no-wire", _porttrace(*_RECORD, "--no-wire"), ready="Recording"),
    Tool("porttrace record --pid", _porttrace(*_RECORD, "--pid", "{pid}"), ready="Recording"),
    Tool("porttrace (live)", _porttrace("live", *_BOUNDED), ready="Tracing"),
    Tool(
        "porttrace --pid (live)", _porttrace("live", *_BOUNDED, "--pid", "{pid}"), ready="Tracing"
    ),
)
PEERS = (
    Tool("perf record", _words("perf", "record", "-q", "-a", "-e", _STATES, "-o", "{out}"),
         "perf"),
    Tool("tcplife-bpfcc", _bcc("tcplife-bpfcc"), "tcplife-bpfcc", "PID"),
    Tool("tcpstates-bpfcc", _bcc("tcpstates-bpfcc"), "tcpstates-bpfcc", "SKADDR"),
    Tool("bpftrace printf", _words("bpftrace", "-e", _BPFTRACE), "bpftrace", "Attaching"),
    Tool("strace --seccomp-bpf",
         _words("strace", "--seccomp-bpf", "-f", "-e", "trace=connect", "-o", "{out}"),
         "strace", around=True),
    Tool("strace", _words("strace", "-f", "-e", "trace=connect", "-o", "{out}"), "strace",
         around=True),
)  # fmt: skip
ALL = (COUNT, *PORTTRACE, *PEERS)


@dataclass(frozen=True)
class Used:
    """What a tracer used: processor time in s of the storm alone, peak memory, what it wrote."""

    cpu_s: float
    peak_mb: float
    lines: int
    file_bytes: int


class Running:
    """A tracer at work."""

    def __init__(self, tool: Tool, process: "subprocess.Popen[bytes]", out: Path, log: Path):
        self._tool, self._process, self.out, self.log = tool, process, out, log
        self._wait_until_ready()
        self._before_s = cpu_of(process.pid)

    def _wait_until_ready(self) -> None:
        if not self._tool.ready:
            time.sleep(self._tool.quiet_s)
            return
        until = time.monotonic() + 60
        while not any(line.startswith(self._tool.ready) for line in self._said()):
            if self._process.poll() is not None or time.monotonic() > until:
                raise StartError(f"{self._tool.name} does not run here: {self._said()[-1:]}")
            time.sleep(0.02)
        time.sleep(0.5)

    def _said(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def finish(self) -> Used:
        """Let it handle what is left, end it, and return what it used."""
        time.sleep(_SETTLE_S)
        cpu_s = cpu_of(self._process.pid) - self._before_s
        peak_mb = peak_of(self._process.pid)
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        size = self.out.stat().st_size if self.out.exists() else self.log.stat().st_size
        return Used(cpu_s, peak_mb, len(self._said()), size)


@contextlib.contextmanager
def running(tool: Tool, client: Client | None) -> Iterator[Running]:
    """Run a tracer until the end of the block, with a file of its own to write to."""
    with tempfile.TemporaryDirectory(prefix="porttrace-bench-") as folder:
        out, log = Path(folder, "out"), Path(folder, "log")
        words = tool.words(out, client.pid if client else 0)
        with log.open("wb") as said:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
        try:
            yield Running(tool, process, out, log)
        finally:
            process.kill()
            process.wait()


def cpu_of(pid: int) -> float:
    """Return the processor time (s) that a process has used."""
    # The process' own clock, exact: all of its threads, those that ended included.
    # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), include/linux/posix-timers_types.h
    return time.clock_gettime(~pid << 3 | 2)


def peak_of(pid: int) -> float:
    """Return the most memory (MB) that a process has had, 0 once it has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def need_root() -> None:
    """End with a sentence where this is not root."""
    if os.geteuid():
        sys.exit("bench: tracing needs root: run it with sudo")
