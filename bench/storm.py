"""What tracing a storm of connects costs: porttrace beside other tracers.

    sudo .venv/bin/python bench/storm.py [--pairs N] [--connects N] [--only NAME]... [--keep]

A client connects on loopback, established and refused, as fast as it can and at 2,000/s. Each
measurement is a pair: the same storm without a tracer right before or after it; figures are the
medians of the pairs. --keep writes the tables into docs/overhead.md.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import load
import table
import tools
from load import Done, Storm
from tools import StartError, Tool, Used

from porttrace.tracer.event import EventType
from porttrace.tracer.tracefile import TraceReader

_PACE, _PACED_S = 2000, 3
_FEWER = {"strace": 5, "strace --seccomp-bpf": 3}  # so many times fewer connects
HEAD = ("tracer", "slowdown", "client CPU", "tracer us/connect", "seen", "lost", "bytes/connect",
        "peak MB")  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A storm under a tracer, the same one alone, and what the tracer used and saw of it."""

    alone: Done
    traced: Done
    used: Used
    seen: float  # of the attempts, where that can be told; else -1
    lost: int  # events, where the tracer tells; else -1


def main() -> None:
    """Measure, print, and keep if so asked."""
    parser = argparse.ArgumentParser(description="What tracing a storm of connects costs.")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--connects", type=int, default=50_000)
    parser.add_argument("--kind", choices=("established", "refused"), action="append")
    parser.add_argument("--only", action="append", help="a tracer; may be given again")
    parser.add_argument("--pace", type=int, default=_PACE, help="connects a second; 0: leave out")
    parser.add_argument("--json", action="store_true", help="print every pair as a line instead")
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    tools.need_root()
    wanted = [each for each in tools.ALL if not chosen.only or each.name in chosen.only]
    if chosen.only and len(wanted) < len(set(chosen.only)):
        sys.exit(f"bench: the tracers are {', '.join(each.name for each in tools.ALL)}")
    storms = [Storm(chosen.connects, kind) for kind in chosen.kind or ("established", "refused")]
    if chosen.pace:
        storms.append(Storm(min(chosen.connects, chosen.pace * _PACED_S), a_second=chosen.pace))
    with tempfile.TemporaryDirectory(prefix="porttrace-bench-") as folder:
        program = load.build(Path(folder))
        measured: dict[Storm, dict[str, list[Pair]]] = {storm: {} for storm in storms}
        with contextlib.suppress(KeyboardInterrupt):  # ends it early, with what there is
            for storm, found in measured.items():
                measure(program, storm, wanted, chosen.pairs, found)
    if chosen.json:
        for storm, pairs in measured.items():
            _print_lines(storm, pairs)
        return
    parts = [described(storm, pairs, chosen.pairs) for storm, pairs in measured.items() if pairs]
    text = "\n\n".join(parts)
    text += f"\n\n{table.machine()}"
    table.keep("storm", text) if chosen.keep else print(text)


def measure(
    program: Path, storm: Storm, wanted: list[Tool], pairs: int, found: dict[str, list[Pair]]
) -> None:
    """Add so many pairs of each tracer that is installed to `found`, in rounds of all of them."""
    for turn in range(pairs):
        for tool in wanted:
            if tool.installed:
                one = replace(storm, connects=connects_of(storm, tool.name))
                try:
                    measured = pair(program, one, tool, turn % 2 == 0)
                except StartError as error:
                    print(error, file=sys.stderr)
                else:
                    found.setdefault(tool.name, []).append(measured)


def connects_of(storm: Storm, name: str) -> int:
    """Return how many connects a storm has under a tracer: fewer where it is very slow."""
    return storm.connects if storm.a_second else storm.connects // _FEWER.get(name, 1)


def pair(program: Path, storm: Storm, tool: Tool, alone_first: bool) -> Pair:
    """Run a storm with the tracer and without it; which is first favours neither."""
    first = _alone(program, storm) if alone_first else None
    traced, used, seen, lost = _under(program, storm, tool)
    return Pair(first or _alone(program, storm), traced, used, seen, lost)


def _alone(program: Path, storm: Storm) -> Done:
    with load.client(program, storm) as client:
        return client.go()


def _under(program: Path, storm: Storm, tool: Tool) -> tuple[Done, Used, float, int]:
    if tool.around:
        return _around(program, storm, tool)
    with load.client(program, storm) as client, tools.running(tool, client) as tracer:
        done = client.go()
        used = tracer.finish()
        seen, lost = -1.0, -1
        if tool.name.startswith("porttrace record"):
            attempts, lost = recorded(tracer.out, client.port)
            seen = attempts / storm.connects
        return done, used, seen, lost


def _around(program: Path, storm: Storm, tool: Tool) -> tuple[Done, Used, float, int]:
    # It has the client for a child: only its own time counts, which it has when all is over.
    with tempfile.TemporaryDirectory(prefix="porttrace-bench-") as folder:
        out = Path(folder, "out")
        with load.client(program, storm, tool.words(out, 0)) as client:
            tracer = _parent(client.pid)
            before_s = tools.cpu_of(tracer)
            done = client.go()
            used_s, peak = tools.cpu_of(tracer) - before_s, tools.peak_of(tracer)
        text = out.read_text(errors="replace")
        calls = text.count(" connect(")
        return done, Used(used_s, peak, calls, len(text)), calls / storm.connects, -1


def _parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nPPid:")[2].split()[0])


def recorded(path: Path, port: int) -> tuple[int, int]:
    """Return how many attempts to a port have begun and ended in a recording, and what is lost."""
    starts = ends = lost = 0
    with TraceReader(path) as reader:
        for batch in reader:
            events = batch.events
            kinds = events["type"][events["dport"] == port]
            starts += int((kinds == EventType.START).sum())
            ends += int((kinds == EventType.END).sum())
            lost += int(events["in_flight"][events["type"] == EventType.LOSS].sum())
    return min(starts, ends), lost


# -- figures -------------------------------------------------------------------------------


def described(storm: Storm, measured: dict[str, list[Pair]], pairs: int) -> str:
    """Return the heading and the table of one storm."""
    pace = f"paced, {storm.a_second:,}/s" if storm.a_second else "as fast as it can"
    rate = _middle(
        connects_of(storm, name) / pair.alone.seconds
        for name, each in measured.items()
        for pair in each
    )
    title = f"**{storm.kind.capitalize()}, {pace}**, {storm.connects:,} connects, {pairs} pairs."
    if storm.a_second:
        return f"{title}\n\n{_paced(measured)}"
    return f"{title} Untraced: {rate:,.0f} a second.\n\n{_unpaced(storm, measured)}"


def _unpaced(storm: Storm, measured: dict[str, list[Pair]]) -> str:
    rows = []
    for name, pairs in measured.items():
        connects = connects_of(storm, name)
        rows.append((
            name,
            f"{_middle(pair.traced.seconds / pair.alone.seconds for pair in pairs):.2f}",
            f"{_middle(pair.traced.cpu_s / pair.alone.cpu_s for pair in pairs):.2f}",
            f"{_middle(pair.used.cpu_s / connects * 1e6 for pair in pairs):.2f}",
            _share(min(pair.seen for pair in pairs)),
            _number(max(pair.lost for pair in pairs)),
            f"{_middle(pair.used.file_bytes / connects for pair in pairs):.0f}",
            _known(_middle(pair.used.peak_mb for pair in pairs)),
        ))  # fmt: skip
    return table.markdown(HEAD, rows)


def _paced(measured: dict[str, list[Pair]]) -> str:
    head = ("tracer", "connect p50 us", "p99 us", "p50 ratio", "p99 ratio", "tracer CPU %")
    alone = [pair.alone for pairs in measured.values() for pair in pairs]
    p50, p99 = _middle(each.p50_us for each in alone), _middle(each.p99_us for each in alone)
    rows = [("untraced", f"{p50:.1f}", f"{p99:.1f}", "1.00", "1.00", "-")]
    for name, pairs in measured.items():
        rows.append((
            name,
            f"{_middle(pair.traced.p50_us for pair in pairs):.1f}",
            f"{_middle(pair.traced.p99_us for pair in pairs):.1f}",
            f"{_middle(pair.traced.p50_us / pair.alone.p50_us for pair in pairs):.2f}",
            f"{_middle(pair.traced.p99_us / pair.alone.p99_us for pair in pairs):.2f}",
            f"{_middle(pair.used.cpu_s / pair.traced.seconds * 100 for pair in pairs):.1f}",
        ))  # fmt: skip
    return table.markdown(head, rows)


def _middle(values: object) -> float:
    return statistics.median(values)  # type: ignore[call-overload,no-any-return]


def _share(value: float) -> str:
    return "" if value < 0 else f"{value:.1%}"


def _number(value: int) -> str:
    return "" if value < 0 else f"{value:,}"


def _print_lines(storm: Storm, measured: dict[str, list[Pair]]) -> None:
    for name, pairs in measured.items():
        for each in pairs:
            with contextlib.suppress(ZeroDivisionError):
                line = {
                    "tracer": name,
                    "kind": storm.kind,
                    "a_second": storm.a_second,
                    "connects": connects_of(storm, name),
                    "slowdown": each.traced.seconds / each.alone.seconds,
                    "client_cpu": each.traced.cpu_s / each.alone.cpu_s,
                    "tracer_cpu_s": each.used.cpu_s,
                    "seen": each.seen,
                    "lost": each.lost,
                    "bytes": each.used.file_bytes,
                    "peak_mb": each.used.peak_mb,
                }
                print(json.dumps(line), flush=True)


def _known(peak_mb: float) -> str:
    # A tracer that ends with its target cannot be asked any more.
    return f"{peak_mb:.0f}" if peak_mb else ""


if __name__ == "__main__":
    main()
