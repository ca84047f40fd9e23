"""The kernel program at work: raw records out, filters and seeds in.

The only module that imports bcc. Everything that a kernel may lack is tried and
caught; what was lost by it is in `Probe.missing`.
"""

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from porttrace.tracer.compiler import Compiler
from porttrace.tracer.errors import PorttraceError, UnsupportedError
from porttrace.tracer.event import Events, no_events
from porttrace.tracer.ksyms import KernelSymbols
from porttrace.tracer.layout import KERNEL_TREE, ROOF
from porttrace.tracer.misses import missed
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.perfbuffer import PerfBuffer
from porttrace.tracer.program import Refused, load
from porttrace.tracer.shelf import Shelf, users_shelf
from porttrace.tracer.source import join_source
from porttrace.tracer.waiting import Waiting

_BELL_PAGES = 16
_OWN_STACKS = 1 << 24  # above all numbers of the kernel's map; OWN_STACKS of bpf/maps.h
ANY_CPU = 0xFFFF
"""The CPU of a loss that no CPU is known for."""


@dataclass(frozen=True)
class Counters:
    """The kernel side's own counts, since attach; names follow `enum counter` of maps.h."""

    events: int
    attempts_full: int
    calls_full: int
    threads_full: int
    targets_full: int
    stacks_lost: int
    attempts_now: int
    attempts_peak: int
    returns_missed: int


class Probe:
    """The loaded program. Use as a context manager: nothing stays attached after it.

    `available` holds the optional flags this host supports (features finds them),
    `modes` the hook modes to try, best first; why one was not taken is in `refused`. What was
    compiled is kept on `shelf`, that of the user who traces where none is given.
    Raises UnsupportedError where the program cannot be compiled, loaded or attached.
    """

    def __init__(
        self,
        options: TraceOptions,
        available: tuple[str, ...] = (),
        modes: tuple[str, ...] = ("tracepoint",),
        shelf: Shelf | None = None,
    ) -> None:
        self.options = options
        self.refused: dict[str, str] = {}
        self._loss_seen: dict[int, int] = {}
        self._buffer: PerfBuffer | None = None
        self._misses_seen, self._misses_read_ns = 0, time.monotonic_ns()
        self._flags = [
            *options.cflags(), *available, "-Wno-duplicate-decl-specifier"
        ]  # fmt: skip
        if "-DBINDS" in self._flags and "-DHAVE_NETNS" not in self._flags:
            self._flags.append("-DMOVES")
        self._compiler = _compiler(shelf or Shelf(users_shelf()))
        self._text = join_source(ROOF)
        self._modes = list(modes)
        self._stacks: dict[int, tuple[str, ...]] = {}
        self._symbols = KernelSymbols()
        self._load_next()

    @property
    def mode(self) -> str:
        """The hook mode that is used."""
        return self._program.mode

    @property
    def wire_fd(self) -> int:
        """The descriptor of the socket filter of the wire probe, -1 when there is none."""
        return self._program.wire_fd

    @property
    def functions(self) -> frozenset[str]:
        """The kernel functions that are hooked."""
        kinds = ("kprobe", "kretprobe", "fentry", "fexit")
        return frozenset(hook.event for hook in self._program.hooks if hook.kind in kinds)

    @property
    def missing(self) -> list[str]:
        """What is lost by hooks that this host lacks, in words."""
        return self._program.missing

    def _load_next(self) -> None:
        # The best of the modes that are left; each that is refused leaves its reason.
        messages = ""
        while self._modes:
            mode = self._modes.pop(0)
            try:
                self._program = load(self._compiler, self._text, self._flags, mode)
            except Refused as error:
                self.refused[mode], messages = error.reason, error.messages
                continue
            self._bpf = self._program.bpf
            self._fill_filters()
            return
        raise UnsupportedError(self._no_mode(), "run 'porttrace doctor' to see why", messages)

    def _no_mode(self) -> str:
        if len(self.refused) == 1:
            ((mode, reason),) = self.refused.items()
            return f"the hook mode {mode} does not work here: {reason}"
        return "; ".join(f"{mode}: {reason}" for mode, reason in self.refused.items())

    def attach(self) -> None:
        """Open the perf buffer and attach every hook, in the next mode where one is refused."""
        while True:
            self._open_buffer()
            try:
                self._program.attach()
                return
            except Refused as error:
                self.refused[self.mode] = error.reason
                self.close()
            self._load_next()

    def _open_buffer(self) -> None:
        table = self._bpf["events"]

        def connect(cpu: int, fd: int) -> None:
            table[table.Key(cpu)] = table.Leaf(fd)

        self._buffer = PerfBuffer(self.options.pages, connect)

    def bell(self) -> PerfBuffer | None:
        """Return a buffer of its own of the calls of bind(2) and listen(2) that failed.

        Every record wakes who waits for it. It is the caller's to close. None where such calls
        are not traced.
        """
        if "-DBINDS" not in self._flags:
            return None
        table = self._bpf["failed_binds"]

        def connect(cpu: int, fd: int) -> None:
            table[table.Key(cpu)] = table.Leaf(fd)

        return PerfBuffer(_BELL_PAGES, connect, at_once=True)

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach everything. Safe to call twice."""
        self._program.close()
        if self._buffer:
            self._buffer.close()
            self._buffer = None

    # -- reading -----------------------------------------------------------

    def wait(self, timeout_ms: int) -> None:
        """Wait until a quarter of a CPU's buffer is full, at most `timeout_ms`."""
        if self._buffer:
            self._buffer.wait(timeout_ms)

    def wake(self) -> None:
        """Let whoever waits go on, now and from now on."""
        if self._buffer:
            self._buffer.wake()

    def read(self) -> Events:
        """Return every record there is, in buffer order."""
        return self._buffer.read() if self._buffer else no_events()

    def losses(self) -> list[tuple[int, int, int, int]]:
        """Return what was lost since the last call: (cpu, count, first_ns, last_ns).

        Records that found the buffer full, and programs that could not run (cpu ANY_CPU).
        """
        lost = self._missed()
        for cpu, loss in enumerate(self._bpf["losses"][ctypes.c_int(0)]):
            seen = self._loss_seen.get(cpu, 0)
            if loss.count > seen:
                self._loss_seen[cpu] = loss.count
                lost.append((cpu, loss.count - seen, loss.first_ns, loss.last_ns))
        return lost

    def _missed(self) -> list[tuple[int, int, int, int]]:
        # The kernel says how often, not when: some time since the last look.
        since_ns, now_ns = self._misses_read_ns, time.monotonic_ns()
        total = sum(missed(fd) for fd in self._program.program_fds())
        new, self._misses_seen, self._misses_read_ns = total - self._misses_seen, total, now_ns
        return [(ANY_CPU, new, since_ns, now_ns)] if new else []

    def counters(self) -> Counters:
        """Return the kernel side's counts."""
        table = self._bpf["counters"]
        return Counters(*(table[ctypes.c_int(i)].value for i in range(len(_COUNTERS))))

    def stack(self, stack_id: int) -> tuple[str, ...]:
        """Return the kernel functions of a stack, innermost first; () for none."""
        if stack_id < 0:
            return ()
        if stack_id not in self._stacks:
            self._stacks[stack_id] = self._walk(stack_id)
        return self._stacks[stack_id]

    def _walk(self, stack_id: int) -> tuple[str, ...]:
        # The kernel takes a stack out of its map while it copies it: it may not be there.
        with contextlib.suppress(KeyError):
            walked = self._bpf["stacks"].walk(stack_id)
            return tuple(self._symbols.name(address) for address in walked)
        return ()

    def name_stack(self, frames: tuple[str, ...]) -> int:
        """Return a number for a stack that was read elsewhere, for use as one of the kernel's."""
        number = _OWN_STACKS + len(self._stacks)
        self._stacks[number] = frames
        return number

    def entries(self, table: str) -> Iterator[tuple[Any, Any]]:
        """Yield (key, value) of one of the program's maps, as ctypes objects."""
        yield from self._bpf[table].items()

    # -- writing to maps -----------------------------------------------------

    def add_target(self, pid: int) -> None:
        """Follow one more process."""
        self._bpf["targets"][ctypes.c_uint32(pid)] = ctypes.c_uint8(1)

    def moved_ns(self, tid: int) -> int:
        """Return when a thread last began to go to other namespaces, 0: not since it was traced.

        CLOCK_MONOTONIC. Only where the kernel does not tell the namespace of a call (no BTF): there
        somebody has to know whether that of the thread is still the one.
        """
        if "-DMOVES" in self._flags:
            with contextlib.suppress(KeyError):
                return int(self._bpf["moves"][ctypes.c_uint32(tid)].value)
        return 0

    def add_waiting(self, each: Waiting, since_ns: int) -> None:
        """Tell the program of a thread that sleeps at the gate, since `since_ns` at least."""
        table = self._bpf["threads"]
        value = table.Leaf()
        value.off_ns = value.gate_ns = since_ns
        value.pid, value.fd, value.family, value.dport = (
            each.pid, each.fd, each.family, each.dport,
        )  # fmt: skip
        value.gate_stack = self.name_stack(each.stack)
        ctypes.memmove(value.daddr, each.daddr, 16)
        table[ctypes.c_uint32(each.tid)] = value

    def drop_waiting(self, tid: int) -> None:
        """Take that back."""
        with contextlib.suppress(KeyError):
            del self._bpf["threads"][ctypes.c_uint32(tid)]

    def drop_target(self, pid: int) -> None:
        """Forget a process that is gone."""
        with contextlib.suppress(KeyError):
            del self._bpf["targets"][ctypes.c_uint32(pid)]

    def add_seed(
        self, daddr: bytes, sport: int, dport: int, start_ns: int, pid: int, uid: int, comm: bytes
    ) -> None:
        """Make the END of a socket that is in SYN_SENT already visible."""
        table = self._bpf["seeds"]
        key = table.Key()
        ctypes.memmove(key.daddr, daddr, 16)
        key.sport, key.dport = sport, dport
        value = table.Leaf()
        value.start_ns, value.pid, value.uid, value.comm = start_ns, pid, uid, comm[:15]
        table[key] = value

    def _fill_filters(self) -> None:
        options = self.options
        self._bpf["own_pid"][ctypes.c_int(0)] = ctypes.c_uint32(os.getpid())
        for pid in options.pids:
            self.add_target(pid)
        for name, values, width in (
            ("wanted_uids", options.uids, ctypes.c_uint32),
            ("wanted_rports", options.remote_ports, ctypes.c_uint16),
            ("wanted_lports", options.local_ports, ctypes.c_uint16),
        ):
            for value in values:
                self._bpf[name][width(value)] = ctypes.c_uint8(1)
        comms = self._bpf["wanted_comms"]
        for comm in options.comms:
            key = comms.Key()
            key.comm = os.fsencode(comm)[:15]
            comms[key] = ctypes.c_uint8(1)
        for index, path in enumerate(options.cgroups):
            self._add_cgroup(index, path)

    def _add_cgroup(self, index: int, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise PorttraceError(
                f"cannot open the cgroup {path}: {error.strerror}",
                "give the path of a cgroup v2 directory, e.g. /sys/fs/cgroup/user.slice",
            ) from None
        try:
            self._bpf["wanted_cgroups"][ctypes.c_int(index)] = fd
        except Exception:
            raise PorttraceError(
                f"{path} is not a directory of the cgroup v2 tree",
                "'findmnt -t cgroup2' shows where that tree is mounted",
            ) from None
        finally:
            os.close(fd)


_COUNTERS = tuple(Counters.__dataclass_fields__)


def _compiler(shelf: Shelf) -> Compiler:
    os.environ["BCC_KERNEL_SOURCE"] = str(KERNEL_TREE)
    try:
        import bcc
    except Exception as error:
        raise UnsupportedError(
            f"bcc cannot be imported: {error}", "apt install python3-bpfcc, then 'porttrace doctor'"
        ) from None

    class Quiet(bcc.BPF):  # type: ignore[misc]
        """bcc's own, but nothing is attached before it is asked for."""

        def _trace_autoload(self) -> None:
            pass

    return Compiler(bcc, Quiet, shelf)
