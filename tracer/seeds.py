"""Seeds: attempts that were in SYN_SENT, or at the gate, already when tracing began.

The kernel program never saw them start. sock_diag names those in SYN_SENT, and the program is told
their addresses, so that it reports how they end; /proc names the threads at the gate.
"""

import contextlib
import os
from collections.abc import Iterable

import numpy as np

from porttrace.tracer import processes, sockets
from porttrace.tracer.cgroups import pids_below
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.event import EVENT, Events, EventType
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.probe import Probe
from porttrace.tracer.waiting import Waiting, at_gate, stands

Connecting = dict[int, sockets.Connecting]
"""Sockets in SYN_SENT by their cookie."""


def in_syn_sent(options: TraceOptions) -> Connecting:
    """Return the sockets in SYN_SENT in the network namespaces of the targets, or in ours."""
    targets = _targets(options)
    namespaces = {0: 0} if targets is None else {pid: processes.netns(pid) for pid in targets}
    found: Connecting = {}
    for pid in {ns: pid for pid, ns in namespaces.items()}.values():
        with contextlib.suppress(PorttraceError):
            found.update({each.cookie: each for each in sockets.connecting(pid)})
    return found


def seed(probe: Probe, options: TraceOptions, before: Connecting, start_ns: int) -> Events:
    """Tell the program of the attempts older than the trace; return an event for each.

    `before` is what was in SYN_SENT before the program was attached: what is still there
    now began before, and no START will come.
    """
    old = [each for cookie, each in in_syn_sent(options).items() if cookie in before]
    targets = _targets(options)
    owners = sockets.owners({each.inode for each in old}, targets or frozenset())
    old = [each for each in old if targets is None or owners.get(each.inode, 0) in targets]
    wanted = [each for each in old if _wanted(options, each, owners.get(each.inode, 0))]
    events = np.zeros(len(wanted), EVENT)
    for index, (event, each) in enumerate(zip(events, wanted, strict=True)):
        pid = owners.get(each.inode, 0)
        comm = os.fsencode(processes.read_process(pid).comm)
        began_ns = start_ns + index  # unique: it stands for the unknown socket
        probe.add_seed(each.daddr, each.sport, each.dport, began_ns, pid, each.uid, comm)
        event["type"], event["time_ns"], event["start_ns"] = EventType.SEED, began_ns, began_ns
        event["pid"], event["uid"], event["comm"] = pid, each.uid, comm
        event["saddr"], event["daddr"], event["family"] = each.saddr, each.daddr, each.family
        event["sport"], event["dport"] = each.sport, each.dport
        event["fd"] = event["gate_stack"] = event["connect_stack"] = -1
    return events


def add_waiting(probe: Probe, options: TraceOptions, since_ns: int) -> None:
    """Tell the program of the threads that stood at the gate before it watched the scheduler.

    One that went on while it was added would be told as held at its next call: what stands there
    no more is taken back.
    """
    if not options.targeted:
        return
    for each in at_gate(_where_gates_are(probe, options)):
        if _wants_thread(options, each):
            probe.add_waiting(each, since_ns)
            if not stands(each):
                probe.drop_waiting(each.tid)


def _where_gates_are(probe: Probe, options: TraceOptions) -> Iterable[int]:
    if options.pids:  # and, by now, children of theirs
        return [key.value for key, _ in probe.entries("targets")]
    targets = _targets(options)
    return sorted(processes.all_pids()) if targets is None else targets


def _wants_thread(options: TraceOptions, each: Waiting) -> bool:
    return (
        options.wants_peer(each.daddr, each.dport)
        and (not options.comms or processes.thread_comm(each.pid, each.tid) in options.comms)
        and (not options.uids or processes.read_process(each.pid).uid in options.uids)
    )


def _targets(options: TraceOptions) -> frozenset[int] | None:
    # The processes whose sockets count, None for all.
    inside = frozenset[int]().union(*map(pids_below, options.cgroups))
    if options.pids and options.cgroups:
        return options.pids & inside
    return inside if options.cgroups else options.pids or None


def _wanted(options: TraceOptions, each: sockets.Connecting, pid: int) -> bool:
    return (
        (not options.uids or each.uid in options.uids)
        and options.wants_peer(each.daddr, each.dport)
        and (not options.local_ports or each.sport in options.local_ports)
        and (not options.comms or processes.read_process(pid).comm in options.comms)
    )
