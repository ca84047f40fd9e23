"""Looks at what a trace looks at after it is attached, with the rights that are asked for.

Usage: looks_workload.py all|kept|without=NAME PID PORT. Prints JSON: each look and what it saw.
PID is in a network namespace of its own, where it listens on PORT.
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from porttrace.tracer import capabilities, features, processes, sampler
from porttrace.tracer.capabilities import bits
from porttrace.tracer.census import Census, bpf
from porttrace.tracer.modes import modes_to_try
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.ports import holders
from porttrace.tracer.privileges import lesser
from porttrace.tracer.probe import Probe
from porttrace.tracer.shortage import serves
from porttrace.tracer.wire import Wire

LOOPBACK = bytes(10) + b"\xff\xff\x7f\0\0\x01"  # as the kernel has it


def main(rights: str, pid: int, port: int) -> None:
    with Probe(TraceOptions(), features.compile_flags(), modes_to_try("")) as probe:
        probe.attach()
        if rights != "all":
            lesser().drop()
        if rights.startswith("without="):
            now = capabilities.held()
            left = now.permitted & ~bits((rights.partition("=")[2],))
            capabilities.hold(capabilities.Sets(left, left, now.inheritable & left))
        print(json.dumps(looks(pid, port, probe), sort_keys=True))


def looks(pid: int, port: int, probe: Probe) -> dict[str, Any]:
    wire = Wire(probe.wire_fd)
    netns = processes.netns(pid)
    found: dict[str, Callable[[], Any]] = {
        "process": lambda: dataclasses.asdict(processes.read_process(pid)),
        "census": lambda: _census(pid),
        "programs": lambda: any(each.type == "tracepoint" for each in bpf.programs()),
        "holders": lambda: [
            (each.kind, each.pid, each.comm)
            for each in holders("tcp", "", port, f"/proc/{pid}/ns/net")
        ],
        "sample": lambda: sampler.in_netns(pid, netns, lambda: serves(LOOPBACK, port))[0],
        "wire": lambda: (bool(wire.watch(pid)), wire.missing),
        "symbols": features.shows_symbols,
        "counters": lambda: probe.counters().threads_full,
        "losses": lambda: len(probe.losses()) >= 0,
        "reads": lambda: len(probe.read()) >= 0,
        "target": lambda: probe.add_target(pid),
        "uid": os.geteuid,
    }
    return {name: _answer(look) for name, look in found.items()}


def _answer(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _census(pid: int) -> Any:
    found = Census().of(processes.read_process(pid))
    # What else runs on this host comes and goes.
    suspects = {each.what for each in found.suspects if each.pid in (0, pid)}
    return sorted(suspects), sorted({each.what for each in found.not_looked})


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
