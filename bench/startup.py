"""How long from starting a tracer to the first connect that it sees, and to the text of --help.

    sudo .venv/bin/python bench/startup.py [--times N] [--only NAME]... [--keep]

A client connects 500 times a second meanwhile; what is attached only later is not seen.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import load
import table
import tools
from load import Client, Storm
from tools import StartError, Tool

from porttrace.tracer.event import EventType
from porttrace.tracer.tracefile import TraceReader

_A_SECOND, _MOST_S = 500, 12
_WANTED = ("porttrace record", "porttrace (live)", "tcplife-bpfcc", "tcpstates-bpfcc",
           "bpftrace printf")  # fmt: skip
HELP = "porttrace --help"
_BARE = "python3 -c pass"


def main() -> None:
    """Measure, print, and keep if so asked."""
    parser = argparse.ArgumentParser(description="How long until a tracer sees anything.")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", action="append", help="a tracer; may be given again")
    parser.add_argument("--json", action="store_true", help="print every time as a line instead")
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    tools.need_root()
    wanted = [each for each in tools.ALL if each.name in (chosen.only or _WANTED)]
    measured = measure(wanted, chosen.times)
    if chosen.json:
        print("\n".join(json.dumps({"what": k, "seconds": v}) for k, v in measured.items()))
        return
    rows = [
        (name, f"{statistics.median(took):.2f}", f"{min(took):.2f}", f"{max(took):.2f}")
        for name, took in measured.items()
    ]
    head = ("from exec to the first event seen", "median s", "least", "most")
    text = f"{table.markdown(head, rows)}\n\n{chosen.times} times each. {table.machine()}"
    table.keep("startup", text) if chosen.keep else print(text)


def measure(wanted: list[Tool], times: int) -> dict[str, list[float]]:
    """Return the times (s) of each tracer that is installed, in rounds of all of them."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="porttrace-bench-") as folder:
        program = load.build(Path(folder))
        for _ in range(times):
            for tool in wanted:
                if not tool.installed:
                    continue
                try:
                    took = _under_load(program, tool)
                except StartError as error:
                    print(error, file=sys.stderr)
                else:
                    found.setdefault(tool.name, []).append(took)
            found.setdefault(HELP, []).append(_took(["-m", "porttrace.cli", "--help"]))
            found.setdefault(_BARE, []).append(_took(["-c", "pass"]))
    return found


def _took(words: list[str]) -> float:
    begun_s = time.monotonic()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun_s


def _under_load(program: Path, tool: Tool) -> float:
    recorded = tool.name.startswith("porttrace record")
    measured = _until_recorded if recorded else _until_printed
    with load.client(program, Storm(_A_SECOND * _MOST_S, a_second=_A_SECOND)) as client:
        going = threading.Thread(target=_go, args=(client,), daemon=True)
        going.start()
        return measured(tool, client)


def _go(client: Client) -> None:
    # It is ended before it has done all of them.
    try:
        client.go()
    except (RuntimeError, ValueError):
        return


def _until_printed(tool: Tool, client: Client) -> float:
    # Each of them prints the name of who connects, or the port, in the line of an event.
    begun_s = time.monotonic()
    process = subprocess.Popen(
        tool.words(Path("/dev/null"), client.pid),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout
        for line in process.stdout:
            if b"client" in line and str(client.pid).encode() in line:
                return time.monotonic() - begun_s
    finally:
        process.kill()
        process.communicate()
    raise StartError(f"{tool.name} ended without an event")


def _until_recorded(tool: Tool, client: Client) -> float:
    with tempfile.TemporaryDirectory(prefix="porttrace-bench-") as folder:
        out = Path(folder, "out")
        begun_ns = time.monotonic_ns()
        process = subprocess.Popen(
            tool.words(out, client.pid), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            assert process.stderr
            process.stderr.readline()
            time.sleep(0.2)
        finally:
            process.terminate()
            process.communicate()
        return (_first_ns(out, client.port) - begun_ns) / 1e9


def _first_ns(path: Path, port: int) -> int:
    with TraceReader(path) as reader:
        for batch in reader:
            kinds, ports = batch.events["type"], batch.events["dport"]
            ours = batch.events[(kinds == EventType.START) & (ports == port)]
            if len(ours):
                return int(ours["time_ns"][0])
    raise RuntimeError("no connect was recorded")


if __name__ == "__main__":
    main()
