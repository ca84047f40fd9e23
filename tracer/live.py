"""A live trace: rounds of ordered events, with what is held right now beside them.

Composes the probe with ordering, seeds, process details and losses. Everything
that user space adds to the stream is a record of the same kind as the kernel's.
"""

import ctypes
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from porttrace.tracer import cgroups, namespaces, processes
from porttrace.tracer.asking import ask, without_unwanted
from porttrace.tracer.bindlooks import Lookups
from porttrace.tracer.census import Census
from porttrace.tracer.descriptors import make_room
from porttrace.tracer.event import EVENT, Events, EventType, no_events, of_kinds, together
from porttrace.tracer.facts import Held, Looked, NotLooked, Process, Sample, Suspect
from porttrace.tracer.features import shows_symbols
from porttrace.tracer.gate import is_gate
from porttrace.tracer.memory import fitted, release, spare_bytes
from porttrace.tracer.modes import modes_to_try
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.order import FinishedRounds
from porttrace.tracer.origin import with_origins
from porttrace.tracer.privileges import Privileges, lacking
from porttrace.tracer.probe import Counters, Probe
from porttrace.tracer.reader import ROUND_MS, Reader, joined
from porttrace.tracer.runtimes import Names
from porttrace.tracer.sampler import Sampler
from porttrace.tracer.seeds import add_waiting, in_syn_sent, seed
from porttrace.tracer.wire import Wire

_NO_SYMBOLS = (
    "holds before the kernel's connect are not seen: without CAP_SYSLOG, or with "
    "kernel.kptr_restrict=2, the functions on kernel stacks have no names"
)
_FIRST_ACTS = (EventType.START, EventType.RETURN, EventType.BIND, EventType.LISTEN)
_OF_NOBODY = (EventType.LOSS, EventType.WATCH)
# A tracer that names every process of a host must not grow with it.
_MAX_PROCESSES = 20_000
_MAX_NOT_LOOKED = 50
_MOST_LOST = 64  # retransmissions of a round, whose destinations are looked for on this host
_GIVE_BACK_NS = 20_000_000_000  # memory that is free is given back so often


@dataclass(frozen=True)
class Round:
    """One finished round: events sorted by time, all older than `watermark_ns` there."""

    events: Events
    watermark_ns: int
    processes: Mapping[int, Process] = field(default_factory=dict)  # first seen in this round
    stacks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    looked: tuple[Looked, ...] = ()  # what was found out about calls that failed, in this round
    samples: tuple[Sample, ...] = ()  # taken since the round before


class LiveTrace:
    """Trace attempts on this host. Use as a context manager.

    With `privileges` this process lets go of all others once it is attached, for good.
    Raises NotPermittedError, UnsupportedError or PorttraceError from `__enter__`.
    """

    def __init__(
        self,
        options: TraceOptions,
        available: tuple[str, ...] = (),
        privileges: Privileges | None = None,
    ) -> None:
        self.options = options
        self._available = available
        self._privileges = privileges
        self._order = FinishedRounds()
        self._made = no_events()
        self._wire: Wire | None = None
        self.watches: dict[int, int] = {}  # network namespace to when its wire was first seen, ns
        self._known: dict[int, Process] = {}
        self._first: dict[int, Process] = {}  # known before the first round
        self._settled: set[int] = set()  # read again at their first attempt
        self.not_read = 0  # times that one who attempts was left for later: too many at once
        self._stacks: dict[int, tuple[str, ...]] = {}
        self._names = Names()
        self._sampler = Sampler(options.sample_s)
        self._not_looked: dict[NotLooked, None] = {}
        self._gave_back_ns = 0
        self._lookups: Lookups | None = None

    def __enter__(self) -> "LiveTrace":
        make_room()
        self.options = fitted(self.options, spare_bytes())
        self.probe = Probe(self.options, self._available, modes_to_try(self.options.mode))
        try:
            before = in_syn_sent(self.options)
            self.probe.attach()
            self._census = Census(self.probe.functions)
            if not shows_symbols():
                self.probe.missing.append(_NO_SYMBOLS)
            self.probe.missing.extend(lacking())
            self._add_latecomers()
            self._wire = Wire(self.probe.wire_fd) if self.probe.wire_fd >= 0 else None
            self._watch(*(self.options.pids or {os.getpid()}))
            self.start_ns = time.monotonic_ns()
            add_waiting(self.probe, self.options, self.start_ns)
            seeds = seed(self.probe, self.options, before, self.start_ns)
            self._made = np.concatenate([seeds, self._made])
            bell = self.probe.bell()
            self._give_back()
            self._drop_privileges()  # now: threads that begin later have what this one has
            self._reader = Reader(self.probe)
            self._known.update({pid: self._now(pid) for pid in self.options.pids})
            self._lookups = Lookups(bell, self._names.of, self.probe.moved_ns) if bell else None
            self._first = dict(self._known)
            self._begin_samples()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.stop()
        self._close()

    def _close(self) -> None:
        if self._lookups:
            self._lookups.stop()
        self._sampler.stop()
        if self._wire:
            self._wire.close()
        self.probe.close()

    def _drop_privileges(self) -> None:
        if self._privileges:
            self._names.ask_all()
            self._privileges.drop()

    def _begin_samples(self) -> None:
        for pid in self.options.pids or {os.getpid()}:
            self._sampler.see(pid, processes.netns(pid))
        self._sampler.start()

    def _watch(self, *pids: int) -> None:
        # The wire of the network namespaces that these processes are in, each from now on.
        if not self._wire:
            return
        for pid in pids:
            found = self._wire.watch(pid)
            if found:
                self.watches[found[0]] = found[1]
                event = _made_event(EventType.WATCH, found[1])
                event["cgroup"] = found[0]
                self._made = np.concatenate([self._made, event])
        self.probe.missing.extend(set(self._wire.missing) - set(self.probe.missing))

    def _add_latecomers(self) -> None:
        # While the program was loaded, others may have entered, or forked and not been followed.
        for number in self.options.netns:
            for pid in namespaces.pids_in_netns(number) - self.options.pids:
                self.probe.add_target(pid)

    # -- rounds --------------------------------------------------------------

    def read(self, timeout_ms: int = ROUND_MS) -> Round:
        """Wait at most `timeout_ms` for events and return what is final now."""
        started_ns, events = joined(self._reader.take(timeout_ms))
        ask(events)
        ready = self._order.push(self._with_made(events), started_ns) if started_ns else no_events()
        return self._round(events, ready)

    def finish(self) -> Round:
        """Drain what is left and return it: the last round."""
        if self._lookups:
            self._lookups.stop()
        self._reader.stop()
        self._sampler.finish()
        started_ns, events = joined(self._reader.take(0))
        ask(events)
        ready = self._order.push(self._with_made(events), started_ns)
        return self._round(events, together([ready, self._order.drain()]))

    # Each thread's share of the allocator keeps what a burst needed: over hours that adds up.
    def _give_back(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._gave_back_ns >= _GIVE_BACK_NS:
            release()
            self._gave_back_ns = now_ns

    def _with_made(self, events: Events) -> Events:
        parts = [self._made, events, self._loss_events()]
        self._made = no_events()
        return together(parts)

    def _round(self, events: Events, ready: Events) -> Round:
        self._give_back()
        looked = self._lookups.taken() if self._lookups else ()
        stacks: dict[int, tuple[str, ...]] = {}
        if len(events) or len(ready):
            stacks = self._new_stacks(ready)
            ready = with_origins(self._without_false_gates(ready), self._stacks)
            ready = without_unwanted(ready, self.options.local_ports)
            new = self._new_processes(events)
            self._want_samples(events)
        else:  # twenty times a second on a quiet host: nothing is not looked at
            new, self._first = self._first, {}
        samples = self._sampler.taken()
        return Round(ready, self._order.watermark_ns, new, stacks, looked, samples)

    def _want_samples(self, events: Events) -> None:
        # No port: whose are they now? A SYN lost: is the queue full, here on this host?
        failed = of_kinds(events, EventType.END, EventType.RETURN)
        if (failed & (np.abs(events["error"]) == errno.EADDRNOTAVAIL)).any():
            self._sampler.hurry()
        again = np.flatnonzero(of_kinds(events, EventType.RETRANSMIT))
        if not len(again):
            return
        lost = events[again[:_MOST_LOST]]
        for pid in np.unique(lost["pid"]).tolist():
            process = self._known.get(pid)
            if process:
                mine = lost[lost["pid"] == pid]
                ends = {(bytes(row["daddr"]), int(row["dport"])) for row in mine}
                self._sampler.want(ends, process.netns)

    def _loss_events(self) -> Events:
        losses = self.probe.losses()
        if not losses:
            return no_events()
        events = _made_event(EventType.LOSS, 0, len(losses))
        for event, (cpu, count, first_ns, last_ns) in zip(events, losses, strict=True):
            event["cpu"], event["in_flight"] = cpu, count
            event["start_ns"], event["time_ns"] = first_ns, last_ns
        return events

    def _new_processes(self, events: Events) -> dict[int, Process]:
        # At once, not when final: a short process is gone by then. Again at the first
        # attempt: since its exec a program has named itself and loaded its libraries.
        for pid in _pids(events, EventType.EXEC):
            self._known.pop(pid, None)
            self._settled.discard(pid)
        attempting = set(_pids(events, *_FIRST_ACTS)) - self._settled
        self._settled |= attempting
        new, self._first = self._first, {}
        for pid in self._of_these(_pids(events), attempting):
            new[pid] = self._known[pid] = self._read(pid, events)
            self._sampler.see(pid, new[pid].netns)
            if new[pid].netns not in self.watches:
                self._watch(pid)
        for pid in _pids(events, EventType.EXIT):
            if not processes.exists(pid):
                self._known.pop(pid, None)
                self._settled.discard(pid)
                self.probe.drop_target(pid)
        return new

    def _of_these(self, pids: Sequence[int], attempting: set[int]) -> list[int]:
        # Those to be read now.
        room, most = max(0, _MAX_PROCESSES - len(self._known)), self.options.most_new
        if not most:
            wanted = [pid for pid in pids if pid not in self._known or pid in attempting]
            return wanted[:room]
        later = [pid for pid in pids if pid in attempting][min(room, most) :]
        self._settled.difference_update(later)
        self.not_read += len(later)
        return [pid for pid in pids if pid in attempting.difference(later)]

    def _read(self, pid: int, events: Events) -> Process:
        # Gone already: what was read of it before is better than what its events tell.
        process = self._now(pid)
        if process.comm or pid in self._known:
            return process if process.comm else self._known[pid]
        number = int(events["cgroup"][events["pid"] == pid].max(initial=0))
        return processes.placed(process, cgroups.path_of(number), self._names.of)

    def _now(self, pid: int) -> Process:
        return processes.read_process(pid, name_of=self._names.of, image_of=self._names.image_of)

    def _new_stacks(self, events: Events) -> dict[int, tuple[str, ...]]:
        stacks = [events[name][events[name] >= 0] for name in ("gate_stack", "connect_stack")]
        ids = np.unique(np.concatenate(stacks))
        new = {int(i): self.probe.stack(int(i)) for i in ids if int(i) not in self._stacks}
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

    # -- for traces that last for months ---------------------------------------

    def sweep(self) -> frozenset[int]:
        """Forget the processes and network namespaces (inodes) that are gone; return the others.

        What is bounded, such as the namespaces that are watched, then has room for new ones.
        """
        alive = set(processes.all_pids())
        for pid in self._known.keys() - alive:
            del self._known[pid]
        self._settled &= alive
        spaces = frozenset(map(processes.netns, alive))
        for netns in self.watches.keys() - spaces:
            del self.watches[netns]
        if self._wire:
            self._wire.keep(spaces)
        self._sampler.renew()
        return spaces

    def knows(self, pid: int) -> bool:
        """Tell whether a process was seen and has not ended since."""
        return pid in self._known

    # -- now -------------------------------------------------------------------

    def held(self) -> list[Held]:
        """Return the threads that stand before SYN_SENT now: at the gate or inside connect."""
        options = self.options
        held = [*self._at_gate(), *self._in_connect()]
        return [each for each in held if options.wants_peer(each.daddr, each.dport)]

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
        pid = getattr(entry, "pid", 0) or processes.thread_group(tid)
        comm = processes.thread_comm(pid, tid)
        frames = self.probe.stack(stack)
        return Held(pid, tid, place, since_ns, comm, bytes(entry.daddr), entry.dport, frames, stack)

    def suspects_of(self, pid: int) -> tuple[Suspect, ...]:
        """Return the census of what could interpose on the connects of one process."""
        found = self._census.of(self._known.get(pid) or processes.read_process(pid))
        if len(self._not_looked) < _MAX_NOT_LOOKED:
            self._not_looked.update(dict.fromkeys(found.not_looked[:_MAX_NOT_LOOKED]))
        return found.suspects

    def sampling_notes(self) -> tuple[str, ...]:
        """Return what keeps the samples of network namespaces from being whole, in sentences."""
        found = []
        if self._sampler.left_out:
            number = len(self._sampler.left_out)
            found.append(f"{number} more network namespaces were not sampled for shortages.")
        if self._sampler.error:
            why = f"{type(self._sampler.error).__name__}: {self._sampler.error}"
            found.append(f"Samples of queues and ports ended early ({why}).")
        return tuple(found)

    @property
    def not_looked(self) -> tuple[NotLooked, ...]:
        """What no census of this trace could read, with the reasons."""
        return tuple(self._not_looked)[:_MAX_NOT_LOOKED]

    def counters(self) -> Counters:
        """Return the kernel side's own counts."""
        return self.probe.counters()


def _made_event(kind: int, time_ns: int, number: int = 1) -> Events:
    events = np.zeros(number, EVENT)
    events["type"], events["time_ns"] = kind, time_ns
    events["fd"] = events["gate_stack"] = events["connect_stack"] = -1
    return events


def _pids(events: Events, *types: int) -> list[int]:
    those = of_kinds(events, *types) if types else ~of_kinds(events, *_OF_NOBODY)
    pids: list[int] = np.unique(events["pid"][those]).tolist() if those.any() else []
    return pids
