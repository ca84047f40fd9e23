"""How full the tables of network namespaces are, by the latest sample of each: shares, 0 to 1."""

from collections.abc import Iterable, Mapping

from porttrace.analysis.model import Sample
from porttrace.analysis.samples import ports_of, reuses

_DROPS = ("drop", "early_drop")
_MOST_PORTS = 20  # listeners that are told of, the fullest


def ephemeral_share(sample: Sample) -> float:
    """Return the share of the local ports that is taken towards the fullest destination.

    Where few sockets are open, nobody counts them by destination: then it is the share that they
    would take if all went to one, which is more than the true one.
    """
    ports = ports_of(sample.settings)
    if ports is None:
        return 0.0
    usage = sample.usage
    if usage is None or not usage.time_ns:
        known = sample.sockets or {}
        return min(1.0, (known.get("inuse", 0) + known.get("tw", 0)) / max(1, ports.number()))
    number = max(1, ports.number() - usage.listening)
    taken = [
        each.used - (each.reusable if reuses(sample.settings, each.source, each.destination) else 0)
        for each in usage.groups
    ]
    return max(taken, default=0) / number


def queue_shares(samples: Iterable[Sample]) -> dict[int, float]:
    """Return how full the accept queue of each port is that samples tell of, the fullest first."""
    shares: dict[int, float] = {}
    for sample in samples:
        for each in sample.listeners or ():
            share = each.queue / max(1, each.limit)
            shares[each.port] = max(share, shares.get(each.port, 0.0))
    fullest = sorted(shares, key=lambda port: -shares[port])[:_MOST_PORTS]
    return {port: shares[port] for port in fullest}


def conntrack_share(sample: Sample) -> float:
    """Return how full the table of tracked connections is, 0 where there is none."""
    table = sample.conntrack or {}
    return table.get("count", 0) / table["max"] if table.get("max") else 0.0


def overflows(sample: Sample) -> int:
    """Return the kernel's count of connections that found an accept queue full."""
    return (sample.counters or {}).get("ListenOverflows", 0)


def conntrack_drops(sample: Sample) -> int:
    """Return the kernel's count of packets that found the table full."""
    return sum((sample.conntrack or {}).get(name, 0) for name in _DROPS)


class Spaces:
    """The latest sample of each network namespace, and what its counters have grown by."""

    def __init__(self) -> None:
        self.latest: dict[int, Sample] = {}
        self.overflows = 0
        self.conntrack_drops = 0

    def take(self, samples: Iterable[Sample]) -> None:
        """Add samples, in order of time. Each is whole."""
        for sample in samples:
            before = self.latest.get(sample.netns)
            if before is not None:
                # Less than before is another namespace with the same number.
                self.overflows += max(0, overflows(sample) - overflows(before))
                self.conntrack_drops += max(0, conntrack_drops(sample) - conntrack_drops(before))
            self.latest[sample.netns] = sample

    def keep(self, alive: Iterable[int]) -> None:
        """Forget the namespaces that are not `alive`."""
        kept = set(alive)
        self.latest = {netns: each for netns, each in self.latest.items() if netns in kept}

    def gauges(self) -> Mapping[str, float]:
        """Return the largest shares: `ephemeral` and `conntrack`."""
        known = self.latest.values()
        return {
            "ephemeral": max(map(ephemeral_share, known), default=0.0),
            "conntrack": max(map(conntrack_share, known), default=0.0),
        }
