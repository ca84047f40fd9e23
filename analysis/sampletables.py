"""Samples as tables: what notebooks look at beside the attempts."""

from typing import Any

import pandas as pd

from porttrace.analysis.model import Sample, Trace
from porttrace.analysis.samples import ports_of, reuses

_COUNTERS = ("ListenOverflows", "ListenDrops")
SAMPLES = ("time_s", "netns", "inuse", "tw", *_COUNTERS, "tracked", "tracked_max", "longest_queue")
PORT_USE = ("time_s", "netns", "source", "destination", "used", "time_wait", "taken", "ports")


def samples(trace: Trace) -> pd.DataFrame:
    """Return one row per sample, in order of time, columns `SAMPLES`.

    time_s (since the trace began), netns (inode), inuse and tw (TCP sockets, and those in
    TIME_WAIT), the counters of netstat since the namespace was made, tracked and tracked_max
    (connection tracking), longest_queue (the fullest accept queue). <NA> where there is none.
    """
    rows = [_sample_row(trace, sample) for sample in trace.samples]
    return pd.DataFrame(rows, columns=list(SAMPLES)).convert_dtypes()


def _sample_row(trace: Trace, sample: Sample) -> tuple[Any, ...]:
    sockets, counters = sample.sockets or {}, sample.counters or {}
    table = sample.conntrack or {}
    longest = max((each.queue for each in sample.listeners or ()), default=None)
    return (
        (sample.time_ns - trace.start_ns) / 1e9, sample.netns, sockets.get("inuse"),
        sockets.get("tw"), *(counters.get(name) for name in _COUNTERS), table.get("count"),
        table.get("max"), longest,
    )  # fmt: skip


def port_use(trace: Trace) -> pd.DataFrame:
    """Return one row per count of the ports from one source to one destination: `PORT_USE`.

    used (local ports in any state), time_wait (of these), taken (those that no connect can have,
    given net.ipv4.tcp_tw_reuse), ports (how many the range has for it).
    """
    rows, counted = [], set()
    for sample in trace.samples:
        usage, ports = sample.usage, ports_of(sample.settings)
        if usage is None or ports is None or (sample.netns, usage.time_ns) in counted:
            continue
        counted.add((sample.netns, usage.time_ns))
        for group in usage.groups:
            again = reuses(sample.settings, group.source, group.destination)
            taken = group.used - (group.reusable if again else 0)
            rows.append(
                (
                    (usage.time_ns - trace.start_ns) / 1e9,
                    sample.netns,
                    group.source,
                    group.destination,
                    group.used,
                    group.time_wait,
                    taken,
                    max(1, ports.number() - usage.listening),
                )
            )
    return pd.DataFrame(rows, columns=list(PORT_USE))
