"""Samples of a network namespace, as a world's ports fill and its queues overflow."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from builders import packed
from porttrace.analysis.model import Process, Sample, Trace
from porttrace.tracer.facts import PortUse, Usage

from ..simulate import S  # noqa: TID252
from .written import Step, world

NETNS = 42
SOURCE, TO, ELSEWHERE = "192.0.2.1", "192.0.2.2:80", "192.0.2.3:80"
SETTINGS = {
    "ip_local_port_range": "40000 40019", "ip_local_reserved_ports": "", "tcp_tw_reuse": "2",
    "tcp_timestamps": "1", "somaxconn": "4096",
}  # fmt: skip
QUIET = Sample(
    0, NETNS, 7, {"ListenOverflows": 0, "ListenDrops": 0}, {"inuse": 1, "tw": 0}, SETTINGS,
    {}, (), Usage(), (),
)  # fmt: skip


def use(number: int, waiting: int = -1, to: str = TO, **more: Any) -> PortUse:
    """Return so many ports in use; without `waiting` all are in TIME_WAIT."""
    waiting = number if waiting < 0 else waiting
    frees_in_s = 12.0 if waiting else -1.0
    return PortUse(SOURCE, to, number, waiting, **{"frees_in_s": frees_in_s, **more})


def counted(*uses: tuple[float, PortUse], **settings: str) -> tuple[Sample, ...]:
    """Return a sample at each time (s), with one group in use."""
    known = {**SETTINGS, **settings}
    return tuple(
        replace(QUIET, time_ns=int(at * S), settings=known,
                usage=Usage(int(at * S), group.used, groups=(group,)))
        for at, group in uses
    )  # fmt: skip


def of_namespace(*steps: Step, samples: Sequence[Sample] = ()) -> Trace:
    """Return a world of one process in `NETNS`, from `SOURCE`, with these samples."""
    trace = world(*steps)
    trace.rows["saddr"] = np.void(packed(SOURCE))
    return replace(
        trace, samples=tuple(samples), processes={7: Process(7, comm="web", netns=NETNS)}
    )
