"""Each connect as porttrace, strace, tcpdump and ss tell of it: they must tell the same.

    sudo .venv/bin/python bench/differ.py [--attempts N] [--seed N] [--threads N] [--keep FOLDER]

Prints each difference with the records of all sides, and a table; exit code 1 where there is one.
"""

import argparse
import contextlib
import math
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import differ_sides as sides
from differ_sides import Expected, Look, Syn

from porttrace.analysis import attempts, load
from porttrace.analysis.frames import attempts_table
from porttrace.lab.hosts import Hosts
from porttrace.lab.servers import Servers

HERE = Path(__file__).parent
PORTTRACE = (sys.executable, "-m", "porttrace.cli")
STRACE = (
    "strace", "-ff", "-y", "--absolute-timestamps=format:unix,precision:ns",
    "--syscall-times=ns", "--signal=none", "--seccomp-bpf", "-e",
    "trace=socket,connect,sendto,getsockname,getsockopt,setsockopt,shutdown,clone,clone3",
)  # fmt: skip
_ONLY_SYN = "(tcp[tcpflags] & (tcp-syn|tcp-ack)) == tcp-syn or (ip6[6] == 6 and ip6[53] & 18 == 2)"
TCPDUMP = ("tcpdump", "-i", "any", "-nn", "-tt", "--time-stamp-precision=nano",
           "-B", "16384", "-Z", "root", _ONLY_SYN)  # fmt: skip
_NEAR_S = 0.5
"""So far apart the same moment may be said to be: strace's stops, a busy machine."""


@dataclass(frozen=True)
class Row:
    """An attempt as porttrace tells it; times by the wall clock, 0 where there is none."""

    pid: int
    tid: int
    sport: int
    daddr: str
    dport: int
    outcome: str
    errno: int
    origin: str
    first_s: float
    syn_s: float
    end_s: float
    syns: int  # -1 where the wire was not watched

    @property
    def until_s(self) -> float:
        """When it left SYN_SENT; the end of time where that is not known."""
        return self.end_s or math.inf

    @property
    def ends(self) -> tuple[int, str, int]:
        """Its port, and where to."""
        return self.sport, self.daddr, self.dport


@dataclass(frozen=True)
class Told:
    """What the four sides told."""

    rows: list[Row]
    lost: int
    expected: list[Expected]
    others: int
    syns: list[Syn]
    looks: list[Look]


# -- making them tell ------------------------------------------------------------------------


def told(attempts: int, threads: int, seed: int, folder: Path) -> Told:
    """Run the load under all four."""
    path, dump, seen = folder / "a.ptrace", folder / "tcpdump", folder / "ss"
    load_words = [str(HERE / "differ_load.py"), str(attempts), str(threads), str(seed)]
    with Hosts() as hosts, Servers(hosts, 0.0), contextlib.ExitStack() as ends:
        ends.enter_context(_beside(hosts.in_client(["sh", "-c", sides.LOOKS]), seen))
        tcpdump = ends.enter_context(_beside(hosts.in_client(list(TCPDUMP)), dump))
        _await(dump.with_suffix(".err"), "listening on", tcpdump)
        command = [*STRACE, "-o", str(folder / "strace"), "/usr/bin/python3", *load_words]
        words = ["record", "-o", str(path), "--", *hosts.in_client(command)]
        limit_s = 120 + attempts / 20
        subprocess.run([*PORTTRACE, *words], check=True, timeout=limit_s, stdout=subprocess.DEVNULL)
        time.sleep(0.5)  # tcpdump reads in its own time
    return gathered(folder)


def gathered(folder: Path) -> Told:
    """Return what the four wrote to a folder."""
    errors = (folder / "tcpdump.err").read_text()
    if "0 packets dropped by kernel" not in errors:
        raise SystemExit(f"tcpdump did not see all: {errors}")
    expected, others = sides.expected(folder / "strace")
    syns = sides.syns((folder / "tcpdump").read_text())
    looks = list(sides.looks((folder / "ss").read_text()))
    rows, lost = read(folder / "a.ptrace")
    return Told(rows, lost, expected, others, syns, looks)


@contextlib.contextmanager
def _beside(words: Sequence[str], out: Path) -> "Iterator[subprocess.Popen[bytes]]":
    with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


def _await(path: Path, text: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 20
    while text not in path.read_text():
        if time.monotonic() > until or process.poll() is not None:
            raise SystemExit(f"it did not begin: {path.read_text()}")
        time.sleep(0.05)


def read(path: Path) -> tuple[list[Row], int]:
    """Return the attempts of a recording, in their order, and how many events were lost."""
    found = load(path)
    offset_s = found.header.wall_offset_ns / 1e9
    table = attempts_table(found.trace)
    return [_row(each, offset_s) for each in table.to_dict("records")], found.trust.lost_events


def _row(each: dict[str, Any], offset_s: float) -> Row:
    def wall_s(*names: str) -> float:
        marks = [
            each[name] for name in names if each[name] is not None and each[name] == each[name]
        ]
        return float(marks[0]) / 1e9 + offset_s if marks else 0.0

    return Row(
        each["pid"], each["tid"], each["sport"], each["daddr"], each["dport"],
        each["outcome"], each["errno"], each["origin"],
        wall_s("call_ns", "kernel_ns", "syn_ns", "end_ns"), wall_s("syn_ns"), wall_s("end_ns"),
        each["wire_count"] if each["watched"] else -1,
    )  # fmt: skip


# -- comparing -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """One thing that two sides tell otherwise, with what each says."""

    kind: str
    said: tuple[str, ...]


def differences(all_of_it: Told) -> list[Difference]:
    """Return what they do not tell alike."""
    pairs, found = paired(all_of_it.expected, all_of_it.rows)
    unknown = sum(row.outcome == "unknown" for row in all_of_it.rows)
    for wanted, row in pairs:
        # An end that was lost, and told as lost, is no difference: nothing wrong is claimed.
        if row.outcome != "unknown" or unknown > all_of_it.lost:
            found += _of_pair(wanted, row)
    found += _of_syns(all_of_it.rows, all_of_it.syns)
    found += _of_looks(all_of_it)
    return found


def paired(
    wanted: list[Expected], rows: list[Row]
) -> tuple[list[tuple[Expected, Row]], list[Difference]]:
    """Return who belongs together, by thread and in the order of the calls, and who is alone."""
    by_tid: dict[int, tuple[list[Expected], list[Row]]] = defaultdict(lambda: ([], []))
    for each in wanted:
        by_tid[each.tid][0].append(each)
    for row in rows:
        by_tid[row.tid][1].append(row)
    pairs, found = [], []
    for here, there in by_tid.values():
        there.sort(key=lambda row: row.first_s)
        some, alone = _walked(here, there)
        pairs += some
        found += alone
    return pairs, found


def _walked(
    here: list[Expected], there: list[Row]
) -> tuple[list[tuple[Expected, Row]], list[Difference]]:
    pairs: list[tuple[Expected, Row]] = []
    found: list[Difference] = []
    here, there = here[:], there[:]
    while here or there:
        if here and there and _same(here[0], there[0]):
            pairs.append((here.pop(0), there.pop(0)))
        elif not there or (here and here[0].calls[0].at_s < there[0].first_s):
            found.append(Difference("porttrace has no row", (str(here.pop(0)),)))
        else:
            found.append(Difference("strace has no call", (str(there.pop(0)),)))
    return pairs, found


def _same(wanted: Expected, row: Row) -> bool:
    near = any(abs(call.at_s - row.first_s) < _NEAR_S for call in wanted.calls)
    return near and (wanted.daddr, wanted.dport) == (row.daddr, row.dport)


def _of_pair(wanted: Expected, row: Row) -> list[Difference]:
    both = (f"strace     {wanted}", f"porttrace  {row}")
    found = []
    if wanted.pid != row.pid:
        found.append("pid")
    if wanted.sport and row.sport and wanted.sport != row.sport:
        found.append("source port")
    if wanted.sport and not row.sport:
        found.append("source port is missing")
    outcome, number = _outcome(wanted)
    if (outcome, number) != (row.outcome, row.errno):
        found.append(f"result: {outcome} {number} is told as {row.outcome} {row.errno}")
    first, last = wanted.calls[0], wanted.calls[-1]
    if row.syn_s and not first.at_s - _NEAR_S < row.syn_s < last.end_s + _NEAR_S:
        found.append("time of the SYN")
    return [Difference(kind, both) for kind in found]


def _outcome(wanted: Expected) -> tuple[str, int]:
    if wanted.result is None:
        return "cancelled", 0
    if not wanted.result:
        return "established", 0
    known = attempts._OUTCOME_OF.get(wanted.result)
    return known.name if known else "failed", wanted.result


def _of_syns(rows: list[Row], syns: list[Syn]) -> list[Difference]:
    by_ends: dict[tuple[int, str, int], list[float]] = defaultdict(list)
    for syn in syns:
        by_ends[syn.sport, syn.daddr, syn.dport].append(syn.at_s)
    found, counted = [], 0
    for row in rows:
        if row.outcome == "no_port":  # the SYN of who has that port is not its own
            continue
        times = sorted(by_ends.get(row.ends, []))
        begin, end = (row.syn_s - 0.01, row.until_s + 0.01) if row.syn_s else (0.0, 0.0)
        there = times[bisect_left(times, begin) : bisect_right(times, end)]
        counted += len(there)
        if row.syns >= 0 and row.syns != len(there):
            found.append(Difference("SYNs", (str(row), f"tcpdump    {there}")))
    if counted != len(syns):
        said = f"tcpdump has {len(syns)}, of attempts of porttrace are {counted}"
        found.append(Difference("SYNs of nobody", (said,)))
    return found


def _of_looks(all_of_it: Told) -> list[Difference]:
    by_ends: dict[tuple[int, str, int], list[Row]] = defaultdict(list)
    for row in all_of_it.rows:
        by_ends[row.ends].append(row)
    inodes = {each.inode for each in all_of_it.expected}
    found = []
    for look in all_of_it.looks:
        for ends in look.sockets:
            if not any(_waits(row, look.end_s, look.begin_s) for row in by_ends.get(ends, [])):
                said = (
                    f"ss         {ends} at {look.begin_s:.6f}",
                    *map(str, by_ends.get(ends, [])),
                )
                found.append(Difference("in SYN_SENT for ss alone", said))
            inode = look.inodes[ends]
            if inode and inode not in inodes:
                found.append(Difference("a socket of ss that strace has not", (f"{ends} {inode}",)))
        found += [
            Difference("in SYN_SENT, and ss has it not", (str(row), f"at {look.begin_s:.6f}"))
            for row in all_of_it.rows
            if row.end_s and _waits(row, look.begin_s, look.end_s) and row.ends not in look.sockets
        ]
    return found


def _waits(row: Row, since_s: float, until_s: float) -> bool:
    # In SYN_SENT from before the one to after the other.
    return 0 < row.syn_s < since_s and until_s < row.until_s


# -- the run ---------------------------------------------------------------------------------


def main() -> int:
    """Run it once; return 1 where there is a difference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--attempts", type=int, default=10_000, help="about so many")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what each side wrote")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="porttrace-differ-") as name:
        folder = asked.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        return printed(told(asked.attempts, asked.threads, asked.seed, folder))


def printed(all_of_it: Told) -> int:
    """Print what differs and how much was compared; return 1 where something differs."""
    found = differences(all_of_it)
    for each in found:
        print(each.kind, *each.said, sep="\n    ")
    outcomes = Counter(row.outcome for row in all_of_it.rows)
    waiting = sum(len(look.sockets) for look in all_of_it.looks)
    print(f"\nporttrace  {len(all_of_it.rows):,} attempts, {all_of_it.lost} events lost: "
          + ", ".join(f"{count:,} {name}" for name, count in outcomes.most_common()))  # fmt: skip
    print(f"strace     {len(all_of_it.expected):,} attempts, {all_of_it.others:,} other connects")
    print(f"tcpdump    {len(all_of_it.syns):,} SYNs")
    print(f"ss         {len(all_of_it.looks):,} looks, {waiting:,} sockets in SYN_SENT")
    print(f"different  {len(found):,}", *Counter(each.kind for each in found).most_common())
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
