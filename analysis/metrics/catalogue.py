"""Every metric that is exported: its name, kind, labels and what it says. Declared here alone.

Base units, counters end in `_total`. docs/metrics.md repeats this as a table; a test compares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from porttrace.analysis.metrics.histogram import Histogram


@dataclass(frozen=True)
class Metric:
    """One metric. `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


Sample = tuple[tuple[str, ...], float | Histogram]
"""Values of the labels, and the value."""


@dataclass(frozen=True)
class Family:
    """A metric with all of its series."""

    metric: Metric
    samples: Sequence[Sample]


ATTEMPTS = Metric(
    "porttrace_attempts_total", "counter",
    "Connection attempts that are over, by thread name and outcome.", ("comm", "outcome"),
)  # fmt: skip
HELD = Metric(
    "porttrace_held_attempts_total", "counter",
    "Attempts that were held on this host for 10 ms or more, by thread name.", ("comm",),
)  # fmt: skip
SERIALIZED = Metric(
    "porttrace_serialized_attempts_total", "counter",
    "Held attempts that the rule serialized-connects says a throttle queued, by thread name.",
    ("comm",),
)  # fmt: skip
DURATION = Metric(
    "porttrace_connect_duration_seconds", "histogram",
    "From the first mark of an attempt (hold, call or SYN) to its outcome.", ("outcome",),
)  # fmt: skip
HOLDS = Metric(
    "porttrace_hold_duration_seconds", "histogram",
    "Holds of 10 ms or more, by the place on this host where the attempt stood.", ("place",),
)  # fmt: skip
WORST = Metric(
    "porttrace_worst_hold_seconds", "gauge",
    "The longest hold that goes on or has ended within the last 5 minutes, by place.", ("place",),
)  # fmt: skip
IN_FLIGHT = Metric("porttrace_in_flight", "gauge", "Sockets in SYN_SENT now.")
DEMAND = Metric(
    "porttrace_demand", "gauge", "Attempts that want to connect now: in flight, or held before it."
)
RETRANSMISSIONS = Metric(
    "porttrace_syn_retransmissions_total", "counter", "SYNs that were sent again."
)
BIND_FAILURES = Metric(
    "porttrace_bind_failures_total", "counter",
    "Calls of bind and listen that failed, by errno and by what kind of socket held the port.",
    ("errno", "holder"),
)  # fmt: skip
EPHEMERAL = Metric(
    "porttrace_ephemeral_use_ratio", "gauge",
    "Share of the ephemeral ports that is taken towards the destination that takes most of them.",
)  # fmt: skip
ACCEPTS = Metric(
    "porttrace_accepts_total", "counter",
    "Connections that accept took, by the listener's port.", ("port",),
)  # fmt: skip
ACCEPT_WAIT = Metric(
    "porttrace_accept_wait_seconds", "histogram",
    "How long connections stood in an accept queue before accept took them.",
)  # fmt: skip
ACCEPT_QUEUE = Metric(
    "porttrace_accept_queue_use_ratio", "gauge",
    "How full an accept queue is, by the listener's port; those half full or more.", ("port",),
)  # fmt: skip
ACCEPT_QUEUE_WORST = Metric(
    "porttrace_accept_queue_worst_use_ratio", "gauge",
    "The fullest of these accept queues; 0 where none is half full.",
)  # fmt: skip
OVERFLOWS = Metric(
    "porttrace_listen_overflows_total", "counter",
    "Connections that found an accept queue full, by the kernel's own count (ListenOverflows).",
)  # fmt: skip
CONNTRACK = Metric(
    "porttrace_conntrack_use_ratio", "gauge",
    "How full the fullest table of tracked connections is; 0 where nothing is tracked.",
)  # fmt: skip
CONNTRACK_DROPS = Metric(
    "porttrace_conntrack_drops_total", "counter",
    "Packets that found that table full, or had another entry thrown out for them.",
)  # fmt: skip
FINDINGS_ACTIVE = Metric(
    "porttrace_findings_active", "gauge",
    "Findings that hold now, over the window.", ("rule", "severity"),
)  # fmt: skip
FINDINGS = Metric(
    "porttrace_findings_total", "counter",
    "How often a rule that found nothing has found something.", ("rule",),
)  # fmt: skip
WINDOW = Metric("porttrace_findings_window_seconds", "gauge", "How far back the findings look now.")
EVENTS = Metric("porttrace_events_total", "counter", "Events that the kernel handed over.")
LOST = Metric(
    "porttrace_lost_events_total", "counter",
    "Events that were lost on the way: everything else is too small by what they would tell.",
)  # fmt: skip
LEFT_OUT = Metric(
    "porttrace_left_out_total", "counter",
    "What was left out because a table was full or time was short, by what it was.", ("what",),
)  # fmt: skip
INFO = Metric(
    "porttrace_info", "gauge", "Always 1: how this host is traced.", ("version", "mode", "wire")
)

METRICS = (
    ATTEMPTS, HELD, SERIALIZED, DURATION, HOLDS, WORST, IN_FLIGHT, DEMAND, RETRANSMISSIONS,
    BIND_FAILURES, EPHEMERAL, ACCEPTS, ACCEPT_WAIT, ACCEPT_QUEUE, ACCEPT_QUEUE_WORST, OVERFLOWS,
    CONNTRACK, CONNTRACK_DROPS, FINDINGS_ACTIVE, FINDINGS, WINDOW, EVENTS, LOST, LEFT_OUT, INFO,
)  # fmt: skip
"""All of them, in the order in which they are exported."""
