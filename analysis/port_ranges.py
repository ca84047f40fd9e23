"""Ranges of ports: which the kernel gives to clients, which are reserved, how to reserve more."""

from collections.abc import Iterable, Sequence

Ranges = Sequence[tuple[int, int]]
"""Each with both its ends, as the kernel has them."""


def at_risk(port: int, ephemeral: tuple[int, int], reserved: Ranges) -> bool:
    """Return whether the kernel may give `port` to a client that asked for none."""
    low, high = ephemeral
    return low <= port <= high and not any(first <= port <= last for first, last in reserved)


def reserve_command(ports: Iterable[int], reserved: Ranges, within: str = "") -> str:
    """Return the command that reserves `ports` besides those that are reserved already.

    `within` goes before it: what enters the network namespace, where that is not our own.
    """
    ranges = [*reserved, *((port, port) for port in sorted(set(ports)))]
    return f"{within}sysctl -w net.ipv4.ip_local_reserved_ports={as_text(merged(ranges))}"


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, those that touch made one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def as_text(ranges: Ranges) -> str:
    """Return ranges as the kernel writes and takes them: 8080,9000-9010."""
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ranges)
