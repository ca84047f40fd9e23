"""How things are called in sentences: `comm (pid N)`, `address:port`, times a person can read.

Names that processes gave themselves are passed on raw: whoever prints them escapes them.
"""

from collections.abc import Mapping

import numpy as np

from porttrace.analysis.model import Party, Process, Trace
from porttrace.tracer.words import bracketed
from porttrace.tracer.words import count as count
from porttrace.tracer.words import plain_address as plain_address


def address(packed: bytes) -> str:
    """Return 16 address bytes as text: IPv4 unmapped, IPv6 in brackets."""
    return bracketed(plain_address(packed))


def destination(attempt: np.void) -> str:
    """Return where one `ATTEMPT` row went, as `192.0.2.2:389` or `[2001:db8::1]:389`."""
    return f"{address(attempt['daddr'].tobytes())}:{int(attempt['dport'])}"


def comm(attempt: np.void) -> str:
    """Return the name that the calling thread had at the call."""
    return bytes(attempt["comm"]).decode(errors="backslashreplace")


def process(trace: Trace, pid: int) -> str:
    """Return `comm (pid N)`; the name is that of the process, or of its first caller.

    Of a process in a container, `comm (pid N, web[7])`.
    """
    known = trace.processes.get(pid)
    number = ", ".join(filter(None, (f"pid {pid}", inside(known))))
    if known and known.comm:
        return f"{known.comm} ({number})"
    rows = np.flatnonzero(trace.columns["pid"] == pid)
    name = comm(trace.attempts[rows[0]]) if len(rows) else ""
    return f"{name} ({number})" if name else number


def inside(known: Process | Party | None) -> str:
    """Return what a process is called where it lives: `web[7]` is process 7 in container web.

    `web` where it has the host's number there or none is known, `[7]` where only its pid namespace
    is its own, "" on the host itself.
    """
    if known is None:
        return ""
    where = known.container and (known.container_name or known.container)
    return f"{where}[{known.ns_pid}]" if known.ns_pid else where


def duration(ns: float) -> str:
    """Return a length of time (ns) with two or three telling digits: `5.2 s`, `14 ms`."""
    if ns >= 59.5e9:
        return f"{ns / 1e9:.0f} s"
    if ns >= 0.995e9:
        return f"{ns / 1e9:.1f} s"
    if ns >= 0.995e6:
        return f"{ns / 1e6:.0f} ms"
    return "under 1 ms"


def drop_reason(number: int, reasons: Mapping[str, str]) -> str:
    """Return the kernel's name for why it freed a packet, "" for 0. `reasons`: of `Host`."""
    return reasons.get(str(number), f"reason {number}") if number else ""
