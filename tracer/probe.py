"""The kernel program, loaded and attached through bcc: raw records in, nothing else.

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

from porttrace.tracer.errors import PorttraceError, UnsupportedError
from porttrace.tracer.event import Events, no_events
from porttrace.tracer.layout import KERNEL_TREE, ROOF
from porttrace.tracer.misses import missed
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.perfbuffer import PerfBuffer
from porttrace.tracer.source import join_source

# (tracepoint, program, what is lost without it; "" = tracing is impossible without it)
_HOOKS = (
    ("task:task_newtask", "on_new_task", "children of the target are not followed"),
    ("sched:sched_process_exec", "on_exec", "a process that changes program keeps its old name"),
    ("sched:sched_process_exit", "on_exit", "the end of processes is not seen"),
    (
        "syscalls:sys_enter_socket",
        "on_socket_enter",
        "connects that fail before the SYN are not seen",
    ),
    (
        "syscalls:sys_exit_socket",
        "on_socket_exit",
        "connects that fail before the SYN are not seen",
    ),
    ("syscalls:sys_enter_connect", "on_connect_enter", ""),
    ("syscalls:sys_exit_connect", "on_connect_exit", ""),
    ("sock:inet_sock_set_state", "on_set_state", ""),
    ("syscalls:sys_enter_getsockopt", "on_getsockopt_enter", "some errors have no number"),
    ("syscalls:sys_exit_getsockopt", "on_getsockopt_exit", "some errors have no number"),
    ("tcp:tcp_receive_reset", "on_receive_reset", "some refusals have no error number"),
    ("tcp:tcp_retransmit_skb", "on_retransmit", "retransmitted SYNs are not counted"),
    (
        "sock:inet_sk_error_report",
        "on_error_report",
        "errors of non-blocking connects have no errno",
    ),
    ("sched:sched_switch", "on_switch", "holds before the kernel's connect are not seen"),
)
_ONLY_WITH_FLAG = {"on_switch": "-DGATE", "on_error_report": "-DHAVE_ERROR_REPORT"}


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


class Probe:
    """The loaded program. Use as a context manager: nothing stays attached after it.

    `available` holds the optional flags this host supports (features finds them).
    Raises UnsupportedError where the program cannot be compiled, loaded or attached.
    """

    def __init__(self, options: TraceOptions, available: tuple[str, ...] = ()) -> None:
        self.options = options
        self.missing: list[str] = []
        self._loss_seen: dict[int, int] = {}
        self._buffer: PerfBuffer | None = None
        self._program_fds: list[int] = []
        self._misses_seen, self._misses_read_ns = 0, time.monotonic_ns()
        self._bpf, self._flags = _load(options, available)
        self._stacks: dict[int, tuple[str, ...]] = {}
        self._fill_filters()

    def attach(self) -> None:
        """Attach every hook and open the perf buffer."""
        table = self._bpf["events"]

        def connect(cpu: int, fd: int) -> None:
            table[table.Key(cpu)] = table.Leaf(fd)

        self._buffer = PerfBuffer(self.options.pages, connect)
        for event, program, cost in _HOOKS:
            flag = _ONLY_WITH_FLAG.get(program)
            if flag and flag not in self._flags:
                if flag != "-DGATE":
                    self.missing.append(cost)
                continue
            try:
                self._bpf.attach_tracepoint(tp=event, fn_name=program)
                self._program_fds.append(self._bpf.funcs[program.encode()].fd)
            except Exception as error:
                if not cost:
                    raise UnsupportedError(
                        f"cannot attach to the tracepoint {event}: {error}",
                        "run 'porttrace doctor' to see what this host lacks",
                    ) from None
                self.missing.append(cost)

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach everything. Safe to call twice."""
        with contextlib.suppress(Exception):
            self._bpf.cleanup()
        if self._buffer:
            self._buffer.close()
            self._buffer = None

    # -- reading -----------------------------------------------------------

    def wait(self, timeout_ms: int) -> None:
        """Wait until a quarter of a CPU's buffer is full, at most `timeout_ms`."""
        if self._buffer:
            self._buffer.wait(timeout_ms)

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
        total = sum(missed(fd) for fd in self._program_fds)
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
            return tuple(self._bpf.ksym(address).decode(errors="replace") for address in walked)
        return ()

    def entries(self, table: str) -> Iterator[tuple[Any, Any]]:
        """Yield (key, value) of one of the program's maps, as ctypes objects."""
        yield from self._bpf[table].items()

    # -- writing to maps -----------------------------------------------------

    def add_target(self, pid: int) -> None:
        """Follow one more process."""
        self._bpf["targets"][ctypes.c_uint32(pid)] = ctypes.c_uint8(1)

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


def _load(options: TraceOptions, available: tuple[str, ...]) -> tuple[Any, list[str]]:
    os.environ["BCC_KERNEL_SOURCE"] = str(KERNEL_TREE)
    try:
        from bcc import BPF
    except Exception as error:
        raise UnsupportedError(
            f"bcc cannot be imported: {error}", "apt install python3-bpfcc, then 'porttrace doctor'"
        ) from None
    text = join_source(ROOF)
    flags = [*options.cflags(os.getpid()), *available, "-Wno-duplicate-decl-specifier"]
    # The registers of a sleeping task need a helper of Linux 5.15: try, and do without.
    for attempt in ([*flags, "-DHAVE_TASK_REGS"], flags):
        messages, bpf = _compile(BPF, text, attempt)
        if bpf is not None:
            return bpf, attempt
    raise UnsupportedError(
        "the kernel program could not be loaded: " + _telling(messages),
        "run 'porttrace doctor'; --debug shows the whole message",
        messages,
    )


def _compile(bpf_class: Any, text: str, flags: list[str]) -> tuple[str, Any]:
    # bcc and clang write to descriptor 2: catch it there, show it only on failure.
    with _captured_stderr() as captured:
        try:
            bpf = bpf_class(text=text.encode(), cflags=flags)
            for _, program, _ in _HOOKS:
                if _ONLY_WITH_FLAG.get(program, flags[0]) in flags:
                    bpf.load_func(program, bpf_class.TRACEPOINT)
        except Exception as error:
            return captured() + f"\n{error}", None
    return captured(), bpf


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Any]:
    saved, sink = os.dup(2), os.memfd_create("stderr")
    os.dup2(sink, 2)
    try:
        yield lambda: os.pread(sink, 1 << 20, 0).decode(errors="replace")
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _telling(messages: str, keep: int = 4) -> str:
    lines = [line for line in messages.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines[-keep:]
    shown = errors[:keep]
    omitted = len(lines) - len(shown)
    return "; ".join(shown) + (f" ({omitted} lines omitted)" if omitted > 0 else "")
