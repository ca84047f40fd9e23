"""What was sampled of the network namespaces beside the events, as the rules look at it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from porttrace.analysis.model import Sample, Trace

MOST_SAMPLES = 4_000
"""So many are kept of a trace: more than an hour of a namespace that changes every second."""

_V4_LOOPBACK, _V6_LOOPBACK = "127.", "::1"


def thinned(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return at most `MOST_SAMPLES`: of a longer list every other one of the older half, again

    and again. The first and the last stay.
    """
    kept = list(samples)
    while len(kept) > MOST_SAMPLES:
        half = len(kept) // 2
        kept[1:half] = kept[1:half:2]
    return tuple(kept)


def samples_since(samples: Sequence[Sample], since_ns: int) -> tuple[Sample, ...]:
    """Return those from a time on, and of each network namespace the last one before.

    Nothing is told of what is as before: that one still holds.
    """
    before = {sample.netns: sample for sample in samples if sample.time_ns < since_ns}
    later = [sample for sample in samples if sample.time_ns >= since_ns]
    return (*sorted(before.values(), key=lambda sample: sample.time_ns), *later)


def by_netns(trace: Trace) -> dict[int, list[Sample]]:
    """Return the samples of each network namespace (inode), in order of time."""
    found: dict[int, list[Sample]] = {}
    for sample in trace.samples:
        found.setdefault(sample.netns, []).append(sample)
    return found


def grown(samples: Sequence[Sample], name: str) -> int:
    """Return by how much a counter of `netstat` grew from the first sample to the last."""
    values = [each.counters[name] for each in samples if each.counters and name in each.counters]
    return max(0, values[-1] - values[0]) if values else 0


@dataclass(frozen=True)
class Ports:
    """The local ports that a namespace has for connects, by its settings."""

    first: int
    last: int
    reserved: int  # of these, ports that are never chosen

    def number(self) -> int:
        """Return how many can be chosen: of an odd number the kernel leaves the last one out.

        (__inet_hash_connect; tried on Linux 6.18. A range of one port has that one.)
        """
        span = self.last - self.first + 1
        return max(0, (span & ~1 if span > 1 else span) - self.reserved)


def ports_of(settings: Mapping[str, str] | None) -> Ports | None:
    """Return the range of local ports; None where it was not read."""
    known = settings or {}
    words = known.get("ip_local_port_range", "").split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    first, last = int(words[0]), int(words[1])
    return Ports(first, last, _within(known.get("ip_local_reserved_ports", ""), first, last))


@lru_cache(maxsize=256)
def _within(listed: str, first: int, last: int) -> int:
    # The kernel writes the list sorted and without overlaps: 8080,9000-9010
    number = 0
    for part in filter(None, listed.split(",")):
        begin, _, end = part.partition("-")
        if begin.isdigit() and (end or begin).isdigit():
            number += max(0, min(last, int(end or begin)) - max(first, int(begin)) + 1)
    return number


def reuses(settings: Mapping[str, str] | None, source: str, destination: str) -> bool:
    """Return whether a connect gets a port that has been in TIME_WAIT for a second.

    `net.ipv4.tcp_tw_reuse`: 1 everywhere, 2 (what Linux begins with) only from or to a loopback
    address; without TCP timestamps never (tcp_twsk_unique).
    """
    known = settings or {}
    mode = known.get("tcp_tw_reuse", "0")
    if known.get("tcp_timestamps", "1") == "0" or mode == "0":
        return False
    return mode != "2" or any(_is_loopback(end) for end in (source, destination))


def _is_loopback(text: str) -> bool:
    return text.startswith(_V4_LOOPBACK) or text.strip("[]") == _V6_LOOPBACK or "[::1]" in text
