"""What of the ephemeral range is taken at this moment, in words, and findings where it is short."""

from collections.abc import Mapping

from porttrace.analysis import names
from porttrace.analysis.model import Finding
from porttrace.analysis.samples import Ports, reuses
from porttrace.tracer.facts import RangeUse, Towards

RULE = "ephemeral-exhaustion"
_NEARLY = 0.8
_WIDE, _WIDER = 50_000, "10240 65535"


def in_use(use: RangeUse, ports: Ports) -> str:
    """Return in words how many ports of the range have a TCP socket."""
    return f"{min(use.taken, ports.number())} of {ports.number()} have a TCP socket"


def short_of_ports(
    use: RangeUse, ports: Ports, reuse: Mapping[str, str], within: str
) -> list[Finding]:
    """Return a finding for each destination towards which the range is used up now, or nearly.

    And one where every port has a socket, so that a bind to port 0 gets none. `reuse`: the settings
    tcp_tw_reuse and tcp_timestamps. `within`: what goes before a command for that namespace.
    """
    found = [_towards(each, use, ports, reuse, within) for each in use.towards]
    found = [each for each in found if each is not None]
    if use.taken >= ports.number() > 0:
        found.append(_none_at_all(use, ports, within))
    return [each for each in found if each is not None]


def _towards(
    each: Towards, use: RangeUse, ports: Ports, reuse: Mapping[str, str], within: str
) -> Finding | None:
    again = reuses(reuse, each.source, each.destination)
    number = max(1, ports.number() - use.kept)
    taken = min(number, each.used - (each.reusable if again else 0))
    if taken < _NEARLY * number:
        return None
    waiting, is_full = each.states.get("TIME_WAIT", 0), taken >= number
    what = "a connect there fails with EADDRNOTAVAIL" if is_full else "soon a connect there fails"
    return Finding(
        rule=RULE,
        severity="critical" if is_full else "warning",
        confidence=0.95,
        subject={
            "source": each.source, "destination": each.destination,
            "pids": [pid for pid, _, _ in each.whose],
        },
        summary=(
            f"{taken} of the {number} local ports from {each.source} to {each.destination} are"
            f" taken now, of {ports.first} to {ports.last}: {what}.{_states(each)}{_whose(each)}"
            f"{_frees(each, waiting)}"
        ),
        evidence={
            "first_port": ports.first, "last_port": ports.last, "reserved": ports.reserved,
            "listening": use.kept, "ports": number, "used": each.used, "taken": taken,
            "time_wait": waiting, "open": each.used - waiting, "share": taken / number,
            "frees_in_s": each.frees_in_s, "tw_reuse": again,
        },
        advice=(_look(each, within), *_wider(ports, within)),
    )  # fmt: skip


def _states(each: Towards) -> str:
    most = sorted(each.states.items(), key=lambda item: -item[1])
    return f" {', '.join(f'{number} in {state}' for state, number in most)}."


def _whose(each: Towards) -> str:
    if not each.whose:
        return " No process has them any more." if each.states.get("TIME_WAIT") else ""
    told = [f"{comm} (pid {pid}) has {number}" for pid, comm, number in each.whose]
    return f" {', '.join(told)} of them."


def _frees(each: Towards, waiting: int) -> str:
    if not waiting:
        return " None waits for its end: a port is free when its connection is closed."
    return f" The next TIME_WAIT ends in {names.duration(max(each.frees_in_s, 0.001) * 1e9)}."


def _look(each: Towards, within: str) -> str:
    return (
        f"See each of them: {within}ss -tanp dst {each.destination}. Close what nobody uses, or"
        " keep connections open and use them again (a pool, keep-alive)."
    )


def _wider(ports: Ports, within: str) -> tuple[str, ...]:
    if ports.last - ports.first + 1 >= _WIDE:
        return ()
    return (
        f'Widen the range: {within}sysctl -w net.ipv4.ip_local_port_range="{_WIDER}". Price:'
        " services that listen in the new part must be reserved first"
        " (net.ipv4.ip_local_reserved_ports=...).",
    )


def _none_at_all(use: RangeUse, ports: Ports, within: str) -> Finding:
    return Finding(
        rule=RULE,
        severity="warning",
        confidence=0.9,
        subject={"source": "", "destination": "", "pids": []},
        summary=(
            f"Every port of {ports.first} to {ports.last} that is not reserved has a TCP socket: a"
            " bind to port 0 gets none (EADDRINUSE), unless to an address that no such socket has."
        ),
        evidence={
            "first_port": ports.first, "last_port": ports.last, "reserved": ports.reserved,
            "listening": use.kept, "ports": ports.number(), "taken": use.taken,
        },
        advice=(
            "Let a program that binds only to choose the source address of a connection set"
            " IP_BIND_ADDRESS_NO_PORT before bind: connect then finds a port for each destination"
            " anew.",
            *_wider(ports, within),
        ),
    )  # fmt: skip
