"""Rule `fixed-port-at-risk`: a service has a port that the kernel may give to any client.

While the service runs nothing happens. When it restarts, a client may have got the port in between
for an outgoing connection, and the service's bind fails with EADDRINUSE: seldom, and never when
somebody looks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from porttrace.analysis.model import Finding
from porttrace.analysis.port_ranges import Ranges, as_text, at_risk, reserve_command
from porttrace.tracer.facts import Holder

RULE = "fixed-port-at-risk"


@dataclass(frozen=True)
class Serving:
    """A port that a service listens on (TCP), or is bound to and not connected (UDP)."""

    protocol: str
    port: int
    address: str = ""
    pid: int = 0
    comm: str = ""
    container: str = ""
    asked: bool | None = None  # by number; False: bind to 0, the kernel chose; None: not known


def fixed_port_at_risk(
    serving: Iterable[Serving], ephemeral: tuple[int, int], reserved: Ranges, within: str = ""
) -> list[Finding]:
    """Find ports that lie in the ephemeral range (both ends belong to it) and are not reserved.

    One finding for each process, its ports in one. Ports that the kernel chose are left out: nobody
    waits for those by number. All must be of one network namespace, whose range it is;
    `within` is what enters it, as for `reserve_command`.
    """
    mine: dict[tuple[int, str], list[Serving]] = {}
    for each in serving:
        if each.asked is not False and at_risk(each.port, ephemeral, reserved):
            mine.setdefault((each.pid, each.comm), []).append(each)
    every = sorted({each.port for group in mine.values() for each in group})
    advice = _advice(every, reserved, within)
    return [_finding(group, ephemeral, reserved, advice) for group in mine.values()]


def _advice(every: Sequence[int], reserved: Ranges, within: str) -> str:
    # /etc/sysctl.d is read for the host alone.
    keep = (
        "again whenever that network namespace is made"
        if within
        else "and the same line in /etc/sysctl.d/ to keep it"
    )
    return (
        f"Reserve what stays fixed: {reserve_command(every, reserved, within)}, {keep}. Its price:"
        " so many ports fewer for outgoing connections; who already has one keeps it."
    )


def listening(holders: Iterable[Holder]) -> list[Serving]:
    """Return the listeners among the sockets of a host, as `fixed_port_at_risk` takes them.

    Of UDP none: most such sockets in the range are clients, which the kernel put there.
    """
    return [
        Serving(each.protocol, each.port, each.address, each.pid, each.comm, each.container)
        for each in holders
        if each.kind == "listener"
    ]


def _finding(
    group: Sequence[Serving], ephemeral: tuple[int, int], reserved: Ranges, advice: str
) -> Finding:
    first = group[0]
    sure = any(each.asked for each in group)
    ports = sorted({(each.port, each.protocol) for each in group})
    named = ", ".join(f"{port}/{protocol}" for port, protocol in ports)
    one = len(ports) == 1
    return Finding(
        rule=RULE,
        severity="warning",
        confidence=0.95 if sure else 0.7,
        subject={
            "pid": first.pid, "pids": [first.pid] if first.pid else [],
            "ports": [port for port, _ in ports], "container": first.container,
        },
        summary=(
            f"{_who(first)} {'listens' if first.protocol == 'tcp' else 'waits'} on {named}, which"
            f" {'lies' if one else 'lie'} in the ephemeral range {ephemeral[0]}-{ephemeral[1]} and"
            f" {'is' if one else 'are'} not reserved: while it restarts, the kernel may give"
            f" {'it' if one else 'one of them'} to a client's outgoing connection, and the next"
            " bind fails with EADDRINUSE."
        ),
        evidence={
            "range": list(ephemeral), "reserved": as_text(reserved), "asked": sure,
        },
        advice=(
            advice,
            "Or move the service below the range, where no client is ever put.",
            *(() if sure else ("If it takes any port (0) and tells others which, all is well.",)),
        ),
    )  # fmt: skip


def _who(first: Serving) -> str:
    if not first.pid:
        return "A service"
    where = f", {first.container}" if first.container else ""
    return f"{first.comm} (pid {first.pid}{where})" if first.comm else f"Process {first.pid}"
