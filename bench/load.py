"""The load: connects on loopback by bench/client.c, alone or under a tracer."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
_CLIENT_CPU, _SERVER_CPU = 1, 0


@dataclass(frozen=True)
class Storm:
    """What to connect to: `kind` is established or refused; `a_second` 0 is unpaced."""

    connects: int
    kind: str = "established"
    a_second: int = 0


@dataclass(frozen=True)
class Done:
    """How a storm went; times of connect(2) alone in us, 50th and 99th percentile."""

    seconds: float
    cpu_s: float  # of the client
    connected: int
    p50_us: float
    p99_us: float


def build(folder: Path) -> Path:
    """Compile the client; return its path."""
    program = folder / "client"
    words = ["gcc", "-O2", "-Wall", "-o", str(program), str(HERE / "client.c")]
    subprocess.run(words, check=True)
    return program


class Client:
    """A client that waits for `go`; `pid` is its own, also where it runs below a tracer."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        line = self._line().split()
        self.pid, self.port = int(line[0]), int(line[1])

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line.strip():
            raise RuntimeError(f"the client ended too soon: {self._process.poll()}")
        return line

    def go(self) -> Done:
        """Run the storm to its end."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        elapsed_ns, cpu_ns, connected, p50_ns, p99_ns = map(int, self._line().split())
        return Done(elapsed_ns / 1e9, cpu_ns / 1e9, connected, p50_ns / 1e3, p99_ns / 1e3)


@contextlib.contextmanager
def client(program: Path, storm: Storm, before: Sequence[str] = ()) -> Iterator[Client]:
    """Start a client, by the words `before` where it is to run below something."""
    cpus = sorted(os.sched_getaffinity(0))
    own = [str(_CLIENT_CPU), str(_SERVER_CPU)] if len(cpus) > 1 else ["-1", "-1"]
    words = [str(program), str(storm.connects), storm.kind, str(storm.a_second), *own]
    process = subprocess.Popen(
        [*before, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Client(process)
    finally:
        if process.stdin:
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)  # it may be in the middle of its storm
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
