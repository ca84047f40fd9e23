"""What a network namespace says of ports: the ephemeral range, reserved and privileged ports."""

import contextlib
import os
from dataclasses import dataclass

from porttrace.tracer.sysctls import sysctl


@dataclass(frozen=True)
class Settings:
    """Settings of ports of one network namespace, and its number (inode; 0 not known)."""

    netns: int = 0
    range: tuple[int, int] = (32768, 60999)  # both ends belong to it
    reserved: tuple[tuple[int, int], ...] = ()
    unprivileged_from: int = 1024
    nonlocal_v4: bool = False  # ip_nonlocal_bind
    nonlocal_v6: bool = False
    bindv6only: bool = False

    def is_ephemeral(self, port: int) -> bool:
        """Whether the kernel may give `port` to a client that asked for no port."""
        low, high = self.range
        return low <= port <= high and not self.is_reserved(port)

    def is_reserved(self, port: int) -> bool:
        """Whether `port` is kept out of the ephemeral range."""
        return any(low <= port <= high for low, high in self.reserved)


def settings(netns: int = 0) -> Settings:
    """Return the settings of the network namespace that the calling thread is in.

    What cannot be read has the kernel's default.
    """
    low, high = (sysctl("net.ipv4.ip_local_port_range") or "32768 60999").split()
    return Settings(
        netns=netns or own_netns(),
        range=(int(low), int(high)),
        reserved=port_list(sysctl("net.ipv4.ip_local_reserved_ports") or ""),
        unprivileged_from=int(sysctl("net.ipv4.ip_unprivileged_port_start") or 1024),
        nonlocal_v4=sysctl("net.ipv4.ip_nonlocal_bind") == "1",
        nonlocal_v6=sysctl("net.ipv6.ip_nonlocal_bind") == "1",
        bindv6only=sysctl("net.ipv6.bindv6only") == "1",
    )


def own_netns() -> int:
    """Return the number of the network namespace of the calling thread, 0 where unreadable."""
    with contextlib.suppress(OSError):
        return os.stat("/proc/thread-self/ns/net").st_ino
    return 0


def port_list(text: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges of a list as the kernel writes it: "8080,9000-9010"."""
    ranges = []
    for word in filter(None, text.split(",")):
        low, _, high = word.partition("-")
        ranges.append((int(low), int(high or low)))
    return tuple(ranges)


def port_text(ranges: tuple[tuple[int, int], ...]) -> str:
    """Return ranges as the kernel writes and takes them."""
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ranges)
