"""Listens on the wire of one of the lab's hosts: when did each SYN pass, and from which port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_PROGRAM = """
import socket, struct, sys, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("veth0", 0))
print("listening", flush=True)
while True:
    frame = wire.recv(2048)
    ip = frame[14:]
    tcp = ip[40:] if ip[0] >> 4 == 6 else ip[(ip[0] & 15) * 4:]
    is_tcp = (ip[6] if ip[0] >> 4 == 6 else ip[9]) == 6
    if is_tcp and tcp[13] & 0x17 == 0x02:
        print(time.monotonic_ns(), *struct.unpack_from("!HH", tcp), flush=True)
"""


@dataclass
class Wire:
    """The SYNs that passed: CLOCK_MONOTONIC in ns, source port, destination port."""

    syns: list[tuple[int, int, int]] = field(default_factory=list)

    def first_ns(self) -> dict[int, int]:
        """Return when the first SYN of each source port passed."""
        return {sport: at_ns for at_ns, sport, _dport in reversed(self.syns)}


@contextmanager
def listening(namespace: str) -> Iterator[Wire]:
    """Listen on veth0 of a namespace; the SYNs can be read once it has ended."""
    argv = ["ip", "netns", "exec", namespace, sys.executable, "-c", _PROGRAM]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "listening\n"
        wire = Wire()
        try:
            yield wire
        finally:
            process.terminate()
            lines = [line.split() for line in process.stdout.read().splitlines()]
            wire.syns += [(int(at), int(sport), int(dport)) for at, sport, dport in lines]
