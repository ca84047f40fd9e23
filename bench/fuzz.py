"""Bad input of every kind: no traceback, nothing over a second, no memory over 200 MB.

    .venv/bin/python bench/fuzz.py [--cases N] [--seed N] [--atheris] [TARGET...]

Every case is a good input with bytes changed, cut, repeated or put in, or bytes of chance. Prints a
line for each target. With --atheris (pip install atheris) coverage chooses what is tried next, for
one target.
"""

import argparse
import atexit
import io
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from porttrace.analysis.recording import load
from porttrace.cli.options import Address, Comm, Duration, Endpoint, Ports, User
from porttrace.cli.record import Rotate
from porttrace.cli.wanted import read_wanted
from porttrace.tracer import cgroups, containers, elf, event, memory, perfbuffer, processes, wire
from porttrace.tracer.beside import Beside, End, TraceHeader, from_json, to_json
from porttrace.tracer.census import btf, xtables
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.event import EVENT, EventType
from porttrace.tracer.facts import Host, Process
from porttrace.tracer.layout import EVENT_H
from porttrace.tracer.ports.settings import port_list
from porttrace.tracer.tracefile import TraceReader, TraceWriter

MOST_S = 1.0
MOST_BYTES = 200 << 20
_FOLDER = Path(tempfile.mkdtemp(prefix="porttrace-fuzz-", dir="/dev/shm"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_WORDS = (
    b"\0", b"\n", b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"-1", b"999999999999999999999",
    b"/", b":", b"0::", b"../", b"\\x", b"\\134", b"\xed\xa0\x80", "\u202e\u0660".encode(), b"[",
    b"]]", b"{", b"'", b"%", b"\x1b[2J", b"e308", b"nan", b"\xe2\x82",
)  # fmt: skip


class FuzzError(Exception):
    """A case that did what none may do."""


@dataclass(frozen=True)
class Target:
    """Something that reads input: `run` must return, or raise one of `may`."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    may: tuple[type[BaseException], ...] = (PorttraceError,)


# -- good inputs ---------------------------------------------------------------------------


def _events(number: int) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    rows = np.zeros(number, EVENT)
    rows["type"] = np.resize([EventType.START, EventType.END, EventType.RETURN], number)
    rows["time_ns"] = np.arange(number) * 1000 + 10**9
    rows["start_ns"] = rows["time_ns"] // 3000 * 3000
    rows["sock"], rows["pid"], rows["tid"] = np.arange(number) // 3 + 1, 7, 8
    rows["gate_stack"] = rows["connect_stack"] = -1
    return rows


def _trace() -> bytes:
    sink = io.BytesIO()
    header = TraceHeader(start_ns=1, wall_offset_ns=10**18, host=Host("web", "6.1"), filter="x")
    writer = TraceWriter(sink.write, header)
    for number in range(3):
        known = {7: Process(7, 1, "web", "/bin/web", "web -x")}
        last = End(10**10, {"events": 90}, ()) if number == 2 else None
        writer.write(_events(30), Beside(10**9, 10**18, known, end=last))
    writer.close()
    return sink.getvalue()


def _ring() -> bytes:
    rows = np.zeros(5, perfbuffer._RECORD)
    rows["type"], rows["size"] = perfbuffer._RECORD_SAMPLE, perfbuffer._STRIDE
    rows["event"] = _events(5)
    return rows.tobytes() + b"\x02\0\0\0\0\0\x18\0" + bytes(16) + rows.tobytes()


# -- what reads them -----------------------------------------------------------------------


def _file(data: bytes) -> Path:
    path = _FOLDER / "case"
    path.write_bytes(data)
    return path


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _read_trace(data: bytes) -> None:
    with TraceReader(_file(data)) as reader:
        for _ in reader:
            pass


def _load_trace(data: bytes) -> None:
    found = load(_file(data))
    _ = found.findings


def _beside(data: bytes) -> None:
    # The reader catches all that damaged JSON can raise; anything else would be a traceback.
    from_json(data)


def _options(data: bytes) -> None:
    kinds = (Duration(), Ports(), Address(), Endpoint(), Comm(), User(), Rotate())
    kind = kinds[data[0] % len(kinds)] if data else kinds[0]
    kind.convert(_text(data[1:]), None, None)


def _cgroup(data: bytes) -> None:
    paths = containers.paths_of(_text(data))
    found = containers.container_of(paths)
    containers.unit_of(paths)
    if found:
        _ = found.short, found.uid


def _mounts(data: bytes) -> None:
    cgroups.directory_of("/a/b", [1], _file(data))


def _proc(data: bytes) -> None:
    # One /proc/PID of which every file says the same: each parser gets what another expects.
    base = _FOLDER / "7"
    if not base.is_dir():
        base.mkdir()
        for name in ("status", "comm", "cmdline", "cgroup", "environ", "maps"):
            (base / name).symlink_to(_FOLDER / "case")
        (base / "root").mkdir()
    _file(data)
    processes.read_process(7, _FOLDER)


def _memory(data: bytes) -> None:
    root = _FOLDER / "host"
    if not root.is_dir():
        (root / "proc/self").mkdir(parents=True)
        for name in ("meminfo", "self/cgroup"):
            (root / "proc" / name).symlink_to(_FOLDER / "case")
        group = root / "sys/fs/cgroup/memory"
        group.mkdir(parents=True)
        for name in ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"):
            (group / name).symlink_to(_FOLDER / "case")
    _file(data)
    memory.spare_bytes(root)


def _xtables(data: bytes) -> None:
    list(xtables.rules(_text(data)))


_STATUS = (
    b"Name:\tweb\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t1\nUid:\t1\t1\t1\t1\n"
    b"NSpid:\t7\t1\n"
)
_CGROUPS = (
    b"0::/system.slice/docker-" + b"a" * 64 + b".scope\n4:memory:/x\n",
    b"0::/machine.slice/machine-my\\x2dweb.scope/supervisor\n",
    b"12:cpu,cpuacct:/user.slice/user-1000.slice/libpod-" + b"0" * 64 + b"\n0::/\n",
)
_MOUNTS = b"cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\nnone /a\\040b cgroup2 rw 0 0\n"
_BTF = b"\x9f\xeb\x01\0\x18\0\0\0\0\0\0\0\x18\0\0\0\x18\0\0\0\x06\0\0\0" + (
    b"\x01\0\0\0\0\0\0\x01\x04\0\0\0\x20\0\0\x01" + bytes(8) + b"\0int\0\0"
)
_XTABLES = (
    b"# x\n*filter\n:INPUT ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n:mine - [0:0]\n"
    b'-A OUTPUT -p tcp -m comment --comment "a b" -j mine\n-A mine -j NFQUEUE\nCOMMIT\n'
)
_OPTIONS = (
    b"\x001.5m", b"\x0180,443", b"\x02[2001:db8::1]:389", b"\x03192.0.2.2:389", b"\x04nginx",
    b"\x05root", b"\x06100M", b"\x0610m",
)  # fmt: skip
_WANTED = b"ports:\n- port: 8080\n  protocol: tcp\n  address: 127.0.0.1\n- port: 53\n"
_REASONS = b'print fmt: "x", REC->reason, { 2, "NOT_SPECIFIED" }, { 3, "NO_SOCKET" }'
_SEED_OF_BESIDE = to_json(Beside(1, 2, {7: Process(7, 1, "a")}, end=End(3, {"events": 1})), 0)
_DAMAGED_JSON = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)

TARGETS = {
    "decoder": Target(lambda data: list(perfbuffer.decode(data)), (_ring(),), ()),
    "trace": Target(_read_trace, (_trace(),)),
    "load": Target(_load_trace, (_trace(),)),
    "beside": Target(_beside, (_SEED_OF_BESIDE,), _DAMAGED_JSON),
    "event.h": Target(lambda data: event.parse_struct(_text(data)), (EVENT_H.read_bytes(),)),
    "options": Target(_options, _OPTIONS, (click.UsageError,)),
    "cgroup": Target(_cgroup, _CGROUPS, ()),
    "mounts": Target(_mounts, (_MOUNTS,), ()),
    "proc": Target(_proc, (_STATUS, *_CGROUPS, b"LD_PRELOAD=/a.so\0A=b\0"), ()),
    "memory": Target(_memory, (b"MemAvailable:  7 kB\n", b"4:memory:/x\n", b"12345\n"), ()),
    "elf": Target(lambda data: elf.defines(_file(data), "connect"),
                  (Path("/proc/self/exe").read_bytes()[:4096],), ()),
    "btf": Target(lambda data: btf.names({1, 2, 70_000}, data), (_BTF,), ()),
    "iptables": Target(_xtables, (_XTABLES,), ()),
    "wanted": Target(lambda data: read_wanted(str(_file(data))), (_WANTED,),
                     (click.ClickException,)),
    "reasons": Target(lambda data: wire.drop_reasons(_text(data)), (_REASONS,), ()),
    "reserved": Target(lambda data: port_list(_text(data)), (b"8080,9000-9010",), (ValueError,)),
}  # fmt: skip


# -- trying --------------------------------------------------------------------------------


def changed(seeds: tuple[bytes, ...], chance: random.Random) -> bytes:
    """Return one of the good inputs with something wrong, now and then something else."""
    if chance.random() < 0.03:
        return chance.randbytes(chance.randrange(300))
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        how = chance.randrange(7)
        if how == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            del data[at:]
        elif how == 2:
            del data[at : at + chance.randrange(1, 40)]
        elif how == 3:
            data[at:at] = chance.choice(_WORDS)
        elif how == 4:
            data[at : at + 8] = chance.choice(_WORDS)
        elif how == 5:
            data[at:at] = data[at : at + 200] * chance.choice((1, 2, 50))
        else:
            data[at : at + 4] = chance.randbytes(4)
    return bytes(data[: 1 << 20])


def attempt(name: str, data: bytes) -> bool:
    """Run one case; return whether it was refused. Raises FuzzError, with the case saved."""
    target, begun_s = TARGETS[name], time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = False
    try:
        target.run(data)
    except target.may:
        refused = True
    except Exception as error:
        raise FuzzError(_told(name, data, f"{type(error).__name__}: {error}")) from error
    took_s = time.monotonic() - begun_s
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if took_s > MOST_S or grown > MOST_BYTES:
        raise FuzzError(_told(name, data, f"{took_s:.1f} s, {grown >> 20} MB more"))
    return refused


def _told(name: str, data: bytes, what: str) -> str:
    path = Path(tempfile.mkstemp(prefix=f"porttrace-{name}-", suffix=".case")[1])
    path.write_bytes(data)
    return f"{name}: {what}; {len(data)} bytes in {path}"


def fuzz(name: str, cases: int, seed: int) -> tuple[int, int]:
    """Try so many cases; return how many were refused, and how many failed."""
    chance, refused, failed = random.Random(f"{name} {seed}"), 0, 0
    for _ in range(cases):
        try:
            refused += attempt(name, changed(TARGETS[name].seeds, chance))
        except FuzzError as error:
            failed += 1
            print(error, file=sys.stderr, flush=True)
            if failed >= 5:
                break
    return refused, failed


def main() -> int:
    """Fuzz the targets that were asked for; return 1 where a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--cases", type=int, default=10_000, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; one target")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; known: {', '.join(TARGETS)}")
    if asked.atheris:
        _guided(asked.targets[0], asked.cases)
    failures = 0
    for name in asked.targets or TARGETS:
        begun_s = time.monotonic()
        refused, failed = fuzz(name, asked.cases, asked.seed)
        failures += failed
        took_s = time.monotonic() - begun_s
        tried = f"{name:9} {asked.cases:9,} cases, {refused:9,} refused, {failed} failed"
        print(f"{tried}, {took_s:6.0f} s", flush=True)
    return 1 if failures else 0


def _guided(name: str, cases: int) -> None:
    import atheris

    atheris.instrument_all()
    corpus = _FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / str(number)).write_bytes(seed)
    words = [sys.argv[0], f"-runs={cases}", "-max_len=65536", "-timeout=5", "-rss_limit_mb=2048",
             "-print_final_stats=1", str(corpus)]  # fmt: skip
    atheris.Setup(words, lambda data: attempt(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
