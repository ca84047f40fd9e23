"""Rule `connect-storm`: one process connects to one destination again and again, without reuse.

Each connection costs a handshake, and leaves a local port in TIME_WAIT for a minute on the side
that closes first. A burst, such as a pool that fills, is none of it: the rate must last, and the
descriptors must come back, which shows that the connections before were closed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Ints, scope_keys
from porttrace.analysis.model import Finding, Hypothesis, Outcome, Trace, start_ns
from porttrace.analysis.pairs import as_numbers, parts_by_key
from porttrace.analysis.rows import take

RULE = "connect-storm"

RATE = 20.0
"""Connects a second: as many as a busy site has pages; 1,200 ports in TIME_WAIT at any time."""
LASTING_S = 10
"""So many seconds, one after the other: pools fill and programs start in less."""
REUSED = 5.0
"""Connections per descriptor: fewer may all be open still, as those of a pool."""
PRESSED = 0.5
"""Share of the local ports in TIME_WAIT from which a storm is a warning: a second one ends it."""
COSTLY = 0.2
"""Share of the threads' time in handshakes from which it is a warning."""

_TIME_WAIT_S = 60  # TCP_TIMEWAIT_LEN
_PORTS = (32_768, 60_999)  # ip_local_port_range as Linux sets it
_BETWEEN = 0.5  # of RATE, that each second must have at least
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Storm:
    """The established connects of one process to one destination, while the rate lasted."""

    rows: Ints  # of the trace's attempts, in order of time
    lasted_s: float
    descriptors: int
    apart_s: float  # median time until a descriptor came back: no connection lived longer
    handshakes_s: float  # in all, from the SYN to the answer
    threads: int

    def rate(self) -> float:
        """Return the connects a second."""
        return len(self.rows) / self.lasted_s

    def share(self) -> float:
        """Return the share of its threads' time that was spent in handshakes."""
        return min(1.0, self.handshakes_s / (self.lasted_s * self.threads))

    def time_wait(self) -> int:
        """Return how many ports are in TIME_WAIT at any time, if this side closes first."""
        return round(self.rate() * _TIME_WAIT_S)


def connect_storm(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find processes that connect to one destination at a high rate that lasts, without reuse."""
    attempts = trace.columns
    good = np.flatnonzero(attempts["outcome"] == Outcome.established)
    if len(good) < RATE * LASTING_S:
        return []
    to, pid = scope_keys(attempts, "destination")[good], attempts["pid"][good].astype(np.int64)
    (pairs,) = as_numbers((pid, to))
    parts = parts_by_key(pairs, math.ceil(RATE * LASTING_S))[1]
    storms = (_storm(trace, good[part]) for part in parts)
    return [_finding(trace, storm) for storm in storms if storm]


def _storm(trace: Trace, rows: Ints) -> Storm | None:
    begun = start_ns(take(trace.attempts, rows))
    order = np.argsort(begun, kind="stable")
    rows, begun = rows[order], begun[order]
    first, last = _longest(begun)
    if last - first < LASTING_S:
        return None
    since = begun - begun[0]
    rows = rows[(since >= first * _SECOND_NS) & (since < last * _SECOND_NS)]
    storm = _measured(trace, rows, float(last - first))
    enough = storm.rate() >= RATE and len(rows) >= REUSED * max(1, storm.descriptors)
    return storm if enough and storm.descriptors else None


# The longest run of seconds, each with enough connects: its first, and the one after its last.
def _longest(begun: Ints) -> tuple[int, int]:
    counts = np.bincount((begun - begun[0]) // _SECOND_NS)
    edges = np.diff(np.concatenate([[0], counts >= _BETWEEN * RATE, [0]]).astype(np.int64))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        return 0, 0
    best = int(np.argmax(stops - starts))
    return int(starts[best]), int(stops[best])


def _measured(trace: Trace, rows: Ints, lasted_s: float) -> Storm:
    mine = take(trace.attempts, rows)
    known = mine["fd"] >= 0
    end, syn = mine["end_ns"].astype(np.int64), mine["syn_ns"].astype(np.int64)
    took = np.where((syn > 0) & (end > 0), end - syn, 0)
    fds = mine["fd"][known]
    begun = start_ns(mine)[known]
    order = np.lexsort((begun, fds))
    gaps = np.diff(begun[order])[np.diff(fds[order]) == 0]
    return Storm(
        rows=rows,
        lasted_s=lasted_s,
        descriptors=len(np.unique(fds)),
        apart_s=float(np.median(gaps)) / 1e9 if len(gaps) else 0.0,
        handshakes_s=float(took.sum()) / 1e9,
        threads=max(1, len(np.unique(mine["tid"]))),
    )


def local_ports(sysctls: Mapping[str, int]) -> tuple[int, bool]:
    """Return how many local ports there are for connects, and whether the trace tells so."""
    first, last = (sysctls.get(f"ip_local_port_range_{end}", 0) for end in ("first", "last"))
    if 0 < first <= last:
        return last - first + 1, True
    return _PORTS[1] - _PORTS[0] + 1, False


def _finding(trace: Trace, storm: Storm) -> Finding:
    first = trace.attempts[storm.rows[0]]
    pid, to = int(first["pid"]), names.destination(first)
    ports, told = local_ports(trace.host.sysctls)
    pressed = storm.time_wait() / ports
    warning = pressed >= PRESSED or storm.share() >= COSTLY
    return Finding(
        rule=RULE,
        severity="warning" if warning else "info",
        confidence=_confidence(trace, storm),
        subject={"pid": pid, "pids": [pid], "destination": to},
        summary=_summary(trace, storm, pid, to, ports),
        evidence={
            "connects": len(storm.rows),
            "lasted_s": storm.lasted_s,
            "rate_per_s": storm.rate(),
            "descriptors": storm.descriptors,
            "lived_at_most_s": storm.apart_s,
            "time_wait": storm.time_wait(),
            "local_ports": ports,
            "local_ports_known": told,
            "ports_share": pressed,
            "handshakes_s": storm.handshakes_s,
            "handshake_share": storm.share(),
            "threads": storm.threads,
        },
        hypotheses=_hypotheses(storm),
        advice=_advice(storm, to, ports, pressed),
    )


def _confidence(trace: Trace, storm: Storm) -> float:
    sure = 0.9 if len(storm.rows) >= 2 * REUSED * storm.descriptors else 0.75
    lossy = trace.losses or not trace.columns["complete"][storm.rows].all()
    return min(sure, 0.75) if lossy else sure


def _summary(trace: Trace, storm: Storm, pid: int, to: str, ports: int) -> str:
    percent = 100 * storm.time_wait() / ports
    usual = storm.handshakes_s / len(storm.rows) * 1e9
    return (
        f"{names.process(trace, pid)} connects to {to} {storm.rate():.0f} times a second and keeps"
        f" no connection: {len(storm.rows)} in {storm.lasted_s:.0f} s over"
        f" {names.count(storm.descriptors, 'descriptor')}. Handshakes"
        f" ({names.duration(usual)} each) take {_percent(storm.share())} of the time of its"
        f" {names.count(storm.threads, 'thread')}. If it closes first, about {storm.time_wait()}"
        f" of {ports} local ports ({percent:.0f} %) are in TIME_WAIT at any time."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"


def _hypotheses(storm: Storm) -> tuple[Hypothesis, ...]:
    burst = f"the rate lasted {storm.lasted_s:.0f} s, second by second"
    pool = (
        f"each descriptor was connected {len(storm.rows) / storm.descriptors:.0f} times, typically"
        f" again after {names.duration(storm.apart_s * 1e9)}: the connection before was closed"
    )
    return Hypothesis("short burst", "refuted", burst), Hypothesis("growing pool", "refuted", pool)


def _advice(storm: Storm, to: str, ports: int, pressed: float) -> tuple[str, ...]:
    saved = storm.handshakes_s / storm.lasted_s
    lines = [
        f"Keep connections to {to} open and reuse them (a pool, keep-alive): that saves about"
        f" {storm.rate():.0f} handshakes a second, {names.duration(saved * 1e9)} of waiting in each"
        " second."
    ]
    if pressed >= PRESSED:
        lines.append(
            f"Local ports run out at {ports / _TIME_WAIT_S:.0f} connects a second to this"
            " destination. Until there is a pool: net.ipv4.tcp_tw_reuse=1, or a wider"
            " net.ipv4.ip_local_port_range."
        )
    return tuple(lines)
