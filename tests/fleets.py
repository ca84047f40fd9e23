"""Small synthetic fleets for tests, made by bench/make_fleet.py, and sums made by hand."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from porttrace.analysis.fleet.merge import Fleet
from porttrace.analysis.fleet.model import About, Slice
from porttrace.analysis.fleet.reading import summed
from porttrace.analysis.fleet.sketch import sketch_of

BENCH = Path(__file__).parent.parent / "bench"


def script(name: str) -> ModuleType:
    """Return a script of bench/ as a module; it is not run."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def made(folder: Path, **plan: Any) -> list[Path]:
    """Write the recordings of a small fleet: three processes, 600 attempts in 4 s a host."""
    script("make_trace")
    module = script("make_fleet")
    small = {"attempts": 600, "processes": 3, "duration_s": 4.0, **plan}
    paths: list[Path] = module.write(module.Fleet(**small), folder)
    return paths


def read(*paths: Path | str) -> Fleet:
    """Return the fleet of these recordings, read in this process."""
    fleet = Fleet()
    for path in paths:
        fleet.add(summed(str(path)))
    return fleet


def part(host: str, *, attempts: int = 10, **what: Any) -> Slice:
    """Return the sum of a recording that never was, of one second."""
    about = {"gates_seen": True, "wire": True, "duration_s": 1.0, **what.pop("about", {})}
    told = About(
        f"{host}.ptrace", host, "6.1", "fentry", kind="trace", start_s=0.0, events=3,
        lost_events=0, complete=True, **about,
    )  # fmt: skip
    lengths = np.full(attempts, what.pop("each_ns", 1_000_000))
    sketch = sketch_of(lengths)
    values = {"held": sketch, "answer": sketch, "held_ns": int(lengths.sum()), **what}
    return Slice(told, attempts, **values)


def fleet_of(*parts: Slice) -> Fleet:
    """Return the fleet of these sums."""
    fleet = Fleet()
    for each in parts:
        fleet.add(each)
    return fleet
