"""A live trace: rounds of ordered events, with what is held right now beside them.

Composes the probe with ordering, seeds, process details and losses. Everything
that user space adds to the stream is a record of the same kind as the kernel's.
"""

import contextlib
import ctypes
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from porttrace.tracer import processes, sockets
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.event import EVENT, Events, EventType, no_events
from porttrace.tracer.facts import Held, Host, Process, Suspect
from porttrace.tracer.gate import is_gate
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.order import FinishedRounds
from porttrace.tracer.probe import Counters, Probe
from porttrace.tracer.reader import ROUND_MS, Reader, joined
from porttrace.tracer.suspects import suspects

# A tracer that names every process of a host must not grow with it.
_MAX_PROCESSES = 20_000


@dataclass(frozen=True)
class Round:
    """One finished round: events sorted by time, all older than `watermark_ns` there."""

    events: Events
    watermark_ns: int
    processes: Mapping[int, Process] = field(default_factory=dict)  # first seen in this round
    stacks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


class LiveTrace:
    """Trace attempts on this host. Use as a context manager.

    Raises NotPermittedError, UnsupportedError or PorttraceError from `__enter__`.
    """

    def __init__(self, options: TraceOptions, available: tuple[str, ...] = ()) -> None:
        self.options = options
        self._available = available
        self._order = FinishedRounds()
        self._made = no_events()
        self._known: dict[int, Process] = {}
        self._first: dict[int, Process] = {}  # known before the first round
        self._settled: set[int] = set()  # read again at their first attempt
        self._stacks: dict[int, tuple[str, ...]] = {}

    def __enter__(self) -> "LiveTrace":
        self.probe = Probe(self.options, self._available)
        try:
            before = self._syn_sent()
            self.probe.attach()
            self.start_ns = time.monotonic_ns()
            self._seed(before)
            self._reader = Reader(self.probe)
            self._known = {pid: processes.read_process(pid) for pid in self.options.pids}
            self._first = dict(self._known)
        except BaseException:
            self.probe.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.stop()
        self.probe.close()

    # -- rounds --------------------------------------------------------------

    def read(self, timeout_ms: int = ROUND_MS) -> Round:
        """Wait at most `timeout_ms` for events and return what is final now."""
        started_ns, events = joined(self._reader.take(timeout_ms))
        ready = self._order.push(self._with_made(events), started_ns) if started_ns else no_events()
        return self._round(events, ready)

    def finish(self) -> Round:
        """Drain what is left and return it: the last round."""
        self._reader.stop()
        started_ns, events = joined(self._reader.take(0))
        ready = self._order.push(self._with_made(events), started_ns)
        return self._round(events, np.concatenate([ready, self._order.drain()]))

    def _with_made(self, events: Events) -> Events:
        parts = [self._made, events, self._loss_events()]
        self._made = no_events()
        return np.concatenate(parts)

    def _round(self, events: Events, ready: Events) -> Round:
        stacks = self._new_stacks(ready)
        ready = self._without_false_gates(ready)
        return Round(ready, self._order.watermark_ns, self._new_processes(events), stacks)

    def _loss_events(self) -> Events:
        losses = self.probe.losses()
        events = np.zeros(len(losses), EVENT)
        for event, (cpu, count, first_ns, last_ns) in zip(events, losses, strict=True):
            event["type"], event["cpu"], event["in_flight"] = EventType.LOSS, cpu, count
            event["start_ns"], event["time_ns"] = first_ns, last_ns
            event["fd"] = event["gate_stack"] = event["connect_stack"] = -1
        return events

    def _new_processes(self, events: Events) -> dict[int, Process]:
        # At once, not when final: a short process is gone by then. Again at the first
        # attempt: since its exec a program has named itself and loaded its libraries.
        for pid in _pids(events, EventType.EXEC):
            self._known.pop(pid, None)
            self._settled.discard(pid)
        attempting = set(_pids(events, EventType.START, EventType.RETURN)) - self._settled
        self._settled |= attempting
        new, self._first = self._first, {}
        for pid in _pids(events):
            if (pid not in self._known or pid in attempting) and len(self._known) < _MAX_PROCESSES:
                new[pid] = self._known[pid] = self._read(pid)
        for pid in _pids(events, EventType.EXIT):
            if not processes.exists(pid):
                self._known.pop(pid, None)
                self._settled.discard(pid)
                self.probe.drop_target(pid)
        return new

    def _read(self, pid: int) -> Process:
        # Gone already: what was read of it before is better than nothing.
        process = processes.read_process(pid)
        return process if process.comm else self._known.get(pid, process)

    def _new_stacks(self, events: Events) -> dict[int, tuple[str, ...]]:
        ids = np.union1d(events["gate_stack"], events["connect_stack"])
        new = {
            int(i): self.probe.stack(int(i)) for i in ids if i >= 0 and int(i) not in self._stacks
        }
        self._stacks.update(new)
        return new

    def _without_false_gates(self, events: Events) -> Events:
        # Where the kernel cannot read registers, any sleep before a connect came as a
        # candidate: only a stack through the way into a system call is a gate.
        candidates = (events["gate_ns"] != 0) & (events["gate_stack"] >= 0)
        for stack_id in np.unique(events["gate_stack"][candidates]):
            if not is_gate(self._stacks.get(int(stack_id), ())):
                wrong = events["gate_stack"] == stack_id
                events["sleep_ns"][wrong] = events["gate_ns"][wrong]
                events["gate_ns"][wrong], events["gate_stack"][wrong] = 0, -1
        return events

    # -- now -------------------------------------------------------------------

    def held(self) -> list[Held]:
        """Return the threads that stand before SYN_SENT now: at the gate or inside connect."""
        return [*self._at_gate(), *self._in_connect()]

    def _at_gate(self) -> Iterator[Held]:
        for key, thread in self.probe.entries("threads"):
            asleep = thread.gate_ns and thread.on_ns < thread.off_ns
            if asleep and is_gate(self.probe.stack(thread.gate_stack)):
                yield self._held(key.value, thread, "gate", thread.gate_ns, thread.gate_stack)

    def _in_connect(self) -> Iterator[Held]:
        for key, call in self.probe.entries("calls"):
            if not call.sock:
                yield self._held(key.value, call, "connect", call.call_ns, call.connect_stack)

    def _held(
        self, tid: int, entry: ctypes.Structure, place: str, since_ns: int, stack: int
    ) -> Held:
        pid = getattr(entry, "pid", 0) or _tgid(tid)
        comm = _first_line(Path(f"/proc/{pid}/task/{tid}/comm"))
        frames = self.probe.stack(stack)
        return Held(pid, tid, place, since_ns, comm, bytes(entry.daddr), entry.dport, frames, stack)

    def suspects_of(self, pid: int) -> tuple[Suspect, ...]:
        """Return the census of what could interpose on the connects of one process."""
        return suspects(self._known.get(pid) or processes.read_process(pid))

    def counters(self) -> Counters:
        """Return the kernel side's own counts."""
        return self.probe.counters()

    # -- seeds -----------------------------------------------------------------

    def _syn_sent(self) -> dict[int, sockets.Connecting]:
        namespaces = {pid: _netns(pid) for pid in self.options.pids} or {0: 0}
        found = {}
        for pid in {ns: pid for pid, ns in namespaces.items()}.values():
            with contextlib.suppress(PorttraceError):
                found.update({each.cookie: each for each in sockets.connecting(pid)})
        return found

    def _seed(self, before: dict[int, sockets.Connecting]) -> None:
        # In SYN_SENT before and after attaching: begun before, so no START will come.
        after = self._syn_sent()
        old = [each for cookie, each in after.items() if cookie in before]
        owners = sockets.owners({each.inode for each in old}, self.options.pids)
        seeds = [each for each in old if self._wanted(each, owners.get(each.inode, 0))]
        self._made = np.zeros(len(seeds), EVENT)
        for index, (event, each) in enumerate(zip(self._made, seeds, strict=True)):
            process = processes.read_process(owners.get(each.inode, 0))
            start_ns = self.start_ns + index  # unique: it stands for the unknown socket
            self.probe.add_seed(
                each.daddr, each.sport, each.dport, start_ns, process.pid, each.uid,
                os.fsencode(process.comm),
            )  # fmt: skip
            event["type"], event["time_ns"], event["start_ns"] = EventType.SEED, start_ns, start_ns
            event["pid"], event["uid"], event["comm"] = (
                process.pid,
                each.uid,
                os.fsencode(process.comm),
            )
            event["saddr"], event["daddr"], event["family"] = each.saddr, each.daddr, each.family
            event["sport"], event["dport"] = each.sport, each.dport
            event["fd"] = event["gate_stack"] = event["connect_stack"] = -1

    def _wanted(self, each: sockets.Connecting, pid: int) -> bool:
        options = self.options
        return (
            (not options.pids or pid in options.pids)
            and (not options.uids or each.uid in options.uids)
            and (not options.remote_ports or each.dport in options.remote_ports)
            and (not options.local_ports or each.sport in options.local_ports)
            and (not options.comms or processes.read_process(pid).comm in options.comms)
        )


def host() -> Host:
    """Return the facts about this host that findings rest on."""
    sysctls = {}
    for name in ("tcp_syn_retries", "tcp_syn_linear_timeouts", "tcp_retries2"):
        text = _first_line(Path("/proc/sys/net/ipv4") / name)
        if text.isdigit():
            sysctls[name] = int(text)
    return Host(name=platform.node(), kernel=platform.release(), sysctls=sysctls)


def _first_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="surrogateescape").split("\n")[0]
    return ""


def _pids(events: Events, *types: int) -> list[int]:
    kinds = types or tuple(kind for kind in EventType if kind != EventType.LOSS)
    pids: list[int] = np.unique(events["pid"][np.isin(events["type"], kinds)]).tolist()
    return pids


def _netns(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    return 0


def _tgid(tid: int) -> int:
    for line in Path(f"/proc/{tid}/status").read_text().splitlines() if _netns(tid) else ():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return 0
