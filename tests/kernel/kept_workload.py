"""Traces one refused connect of its own, and says whether anything was compiled for it.

Usage: kept_workload.py FOLDER. Prints JSON: {"compiled": ..., "events": [...], "names": [...]}.
The connect is made by a child, since a tracer does not trace itself.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from porttrace.tracer import features
from porttrace.tracer.compiler import Compiler
from porttrace.tracer.event import EventType
from porttrace.tracer.modes import modes_to_try
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.probe import Probe
from porttrace.tracer.shelf import Shelf

CONNECT = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"


def main(folder: Path) -> None:
    compiled = []
    compile_it = Compiler.compile

    def counted(self: Compiler, text: str, flags: list[str]) -> Any:
        compiled.append(flags)
        return compile_it(self, text, flags)

    Compiler.compile = counted  # type: ignore[method-assign]
    options = TraceOptions(remote_ports=frozenset({9}))
    flags = features.compile_flags()
    with Probe(options, flags, modes_to_try(""), Shelf(folder)) as probe:
        probe.attach()
        child = subprocess.run(["/usr/bin/python3", "-c", CONNECT], check=True)
        assert child.returncode == 0
        events = probe.read()
        # CPU after CPU, and the child may have moved: by time it is always the same.
        events = events[events["time_ns"].argsort(kind="stable")]
        probe.stack(int(events["connect_stack"][0]))
        told = {
            "compiled": bool(compiled),
            "mode": probe.mode,
            "events": [EventType(each).name for each in events["type"]],
            "errors": events["error"].tolist(),
            "names": sorted({each.rstrip(b"\0").decode() for each in events["comm"].tolist()}),
            "losses": probe.losses(),
            "counted": probe.counters().events,
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
