"""Under which conditions a trace is made: the facts of its host, and what limits trust in it."""

import platform
from collections.abc import Sequence

from porttrace.tracer.facts import Host
from porttrace.tracer.features import tracepoint_format
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.probe import Counters, Probe
from porttrace.tracer.sysctls import sysctl
from porttrace.tracer.wire import drop_reasons


def host(probe: Probe, wire: bool) -> Host:
    """Return the facts about this host that findings rest on, and how it is traced.

    `wire`: the wire of some network namespace is watched.
    """
    reasons = drop_reasons(tracepoint_format("skb:kfree_skb")) if wire else {}
    return Host(
        name=platform.node(),
        kernel=platform.release(),
        mode=probe.mode,
        wire=wire,
        sysctls=_sysctls(),
        drop_reasons={str(number): name for number, name in reasons.items()},
    )


def _sysctls() -> dict[str, int]:
    found = {}
    for name in ("tcp_syn_retries", "tcp_syn_linear_timeouts", "tcp_retries2"):
        text = sysctl(f"net.ipv4.{name}") or ""
        if text.isdigit():
            found[name] = int(text)
    ports = (sysctl("net.ipv4.ip_local_port_range") or "").split()
    for end, text in zip(("first", "last"), ports, strict=False):
        found[f"ip_local_port_range_{end}"] = int(text)
    return found


def gates_seen(options: TraceOptions, missing: Sequence[str]) -> bool:
    """Return whether the scheduler was watched: without it holds before the call do not show."""
    return options.targeted and not any("holds before" in cost for cost in missing)


def notes(options: TraceOptions, missing: Sequence[str], counters: Counters) -> tuple[str, ...]:
    """Return what limits the trust in a trace besides losses, in plain sentences."""
    found = [f"Not available on this host: {cost}." for cost in sorted(set(missing))]
    found += options.notes
    if not options.targeted:
        found.append(
            "The whole host was traced: holds before the kernel's connect (places user and "
            "gate) show only with --pid, --comm, --uid, --cgroup, --container, --netns or "
            "-- COMMAND."
        )
    for count, what in (
        (counters.attempts_full, f"attempts found all {options.max_attempts} places to follow "
                                 "a socket taken; only the result of their call is known"),
        (counters.calls_full, "calls of connect could not be followed: too many at once"),
        (counters.threads_full, "sleeps of threads could not be followed: too many threads"),
        (counters.targets_full, "children could not be followed: too many processes"),
        (counters.stacks_lost, "kernel stacks could not be stored"),
        (counters.returns_missed, "returns of the kernel's own connect or accept were not seen"),
    ):  # fmt: skip
        if count:
            found.append(f"{count} {what}.")
    if counters.attempts_peak * 2 > options.max_attempts:
        found.append(
            f"Up to {counters.attempts_peak} sockets were in SYN_SENT at once; "
            f"{options.max_attempts} can be followed."
        )
    return tuple(found)
