"""What the rule `accept-queue` knows of one listening socket: values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from porttrace.analysis.model import Accepted, Party, Trace


@dataclass(frozen=True)
class Queue:
    """A listening socket with its queue. Counters are those of its whole network namespace."""

    trace: Trace
    netns: int
    address: str  # "" where the socket itself was not seen
    port: int
    pid: int = 0  # its owner, 0 not known
    comm: str = ""
    longest: int = 0  # connections that waited at once, at a sample
    limit: int = 0
    seen: int = 0  # samples that tell of it
    full: tuple[int, ...] = ()  # times (ns) of those in which it was full
    overflows: int = 0
    drops: int = 0
    backlog_drops: int = 0  # SYNs refused because the SYN backlog was full
    settings: Mapping[str, str] = field(default_factory=dict)
    victims: tuple[Party, ...] = ()  # attempts on this host whose SYN was sent again
    enter: str = ""  # what goes before a command for the namespace
    others: int = 0  # other listeners there that were full as well
    accepted: Accepted | None = None

    def name(self) -> str:
        """Return `address:port`, `port 80` where the address is not known."""
        return f"{self.address}:{self.port}" if self.address else f"port {self.port}"

    def mean_s(self) -> float:
        """Return how long a connection waited on average, 0 where that was not seen."""
        known = self.accepted
        return known.total_ns / known.number / 1e9 if known and known.number else 0.0
