"""Make the recordings of a synthetic fleet: the same seed gives the same files.

    .venv/bin/python bench/make_fleet.py --hosts 20 -n 100_000 -o build/bench/fleet
    .venv/bin/porttrace fleet build/bench/fleet

Each host is a recording of bench/make_trace.py with a seed of its own. Every tenth host has a
throttle with one slot at the gate, and a security module of its own (`acme_guard`) besides the
kernel that two thirds of all have; on the others somebody looked and found another suspect. Every
25th host gets its answers 50 times as late. Processes run in containers of four images.

`--bases B` makes B hosts of each kind and copies their events to the others: then only the header
(the host's name, the kernel) differs. That costs next to nothing, and reading costs the same.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import make_trace
import numpy as np

from porttrace.tracer.beside import Beside
from porttrace.tracer.event import EVENT
from porttrace.tracer.facts import Host, Suspect
from porttrace.tracer.tracefile import TraceWriter

_KERNELS = ("6.1.0-18-amd64", "6.1.0-18-amd64", "6.12.9-amd64")
_IMAGES = ("shop/web:1.4", "shop/api:2.0", "shop/worker:2.0", "acme/agent:7")
_GUARD = "the security module acme_guard is active and not one of Linux itself"
_TRACER = "the kernel module lttng_tracer is loaded: it is not one of Linux itself"


@dataclass(frozen=True)
class Fleet:
    """What to make; `attempts` are those of one host."""

    hosts: int = 10
    attempts: int = 10_000
    processes: int = 50
    bases: int = 0  # 0: every host has events of its own
    duration_s: float = 600.0
    seed: int = 1


@dataclass(frozen=True)
class Kind:
    """What sets one host apart."""

    throttled: bool
    slow: bool


def kind_of(number: int) -> Kind:
    """Return of which kind host `number` (0, 1, ...) is."""
    return Kind(throttled=number % 10 == 3, slow=number % 25 == 7)


def name_of(number: int) -> str:
    """Return what host `number` is called."""
    return f"web-{number:05d}"


def write(fleet: Fleet, folder: Path) -> list[Path]:
    """Write a recording for each host into `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    bases: dict[tuple[Kind, int], Path] = {}
    paths = []
    for number in range(fleet.hosts):
        kind, path = kind_of(number), folder / f"{name_of(number)}.ptrace"
        same = (kind, number // 10 % fleet.bases if fleet.bases else number)
        if same in bases:
            _copy(bases[same], path, _host(number))
        else:
            make_trace.write(_plan(fleet, kind, number), path, _about(kind, number))
            bases[same] = path
        paths.append(path)
    return paths


def _plan(fleet: Fleet, kind: Kind, number: int) -> make_trace.Plan:
    return make_trace.Plan(
        attempts=fleet.attempts,
        processes=fleet.processes,
        throttled=int(kind.throttled),
        duration_s=fleet.duration_s,
        seed=1000 * fleet.seed + number,
        answer_ms=100.0 if kind.slow else 2.0,
    )


def _about(kind: Kind, number: int) -> make_trace.About:
    what = ("lsm-foreign", _GUARD) if kind.throttled else ("module", _TRACER)
    suspect = Suspect(what[0], "connect", what[1], "/proc/modules")
    return make_trace.About(_host(number), _IMAGES, (suspect,))


def _host(number: int) -> Host:
    kernel = _KERNELS[number % len(_KERNELS)]
    return Host(name_of(number), kernel, sysctls={"tcp_syn_retries": 6})


# The header is the first message of an Arrow stream: 4 bytes of marker, 4 of length, the message.
def _copy(base: Path, path: Path, host: Host) -> None:
    events = base.read_bytes()
    path.write_bytes(_first_message(host) + events[_length(events) :])


def _first_message(host: Host) -> bytes:
    parts: list[bytes] = []
    writer = TraceWriter(parts.append, make_trace.header(host))
    writer.write(np.empty(0, EVENT), Beside())
    data = b"".join(parts)
    return data[: _length(data)]


def _length(data: bytes) -> int:
    return 8 + int.from_bytes(data[4:8], "little")


def main() -> None:
    """Make what the command line asks for."""
    fleet = Fleet()
    parser = argparse.ArgumentParser(description="Make the recordings of a synthetic fleet.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hosts", type=int, default=fleet.hosts)
    parser.add_argument("-n", "--attempts", type=int, default=fleet.attempts, help="of each host")
    parser.add_argument("--processes", type=int, default=fleet.processes)
    parser.add_argument("--bases", type=int, default=fleet.bases, help="0: all hosts differ")
    parser.add_argument("--duration", dest="duration_s", type=float, default=fleet.duration_s)
    parser.add_argument("--seed", type=int, default=fleet.seed)
    chosen = vars(parser.parse_args())
    folder = chosen.pop("output")
    paths = write(Fleet(**chosen), folder)
    size = sum(path.stat().st_size for path in paths)
    print(f"{folder}: {len(paths)} hosts, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
