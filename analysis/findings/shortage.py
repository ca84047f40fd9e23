"""What the rule `ephemeral-exhaustion` knows of one source and destination: values only."""

from dataclasses import dataclass, field
from itertools import pairwise

from porttrace.analysis.concurrency import Ints
from porttrace.analysis.model import Sample, Trace
from porttrace.analysis.samples import Ports
from porttrace.tracer.facts import PortUse

NEARLY = 0.8
"""Share of the ports in use from which a shortage is foretold."""
STILL_NS = 2_000_000_000
"""What has not grown for so long does not grow, as far as one can tell."""


@dataclass(frozen=True)
class Use:
    """One count of the ports in use from one source to one destination."""

    time_ns: int
    group: PortUse
    ports: Ports
    listening: int  # ports of the range that listeners keep
    left_out: int  # sockets that were not counted
    reuses: bool  # a connect takes what has been in TIME_WAIT for a second
    sample: Sample

    def number(self) -> int:
        """Return how many ports there are for this destination."""
        return max(1, self.ports.number() - self.listening)

    def taken(self) -> int:
        """Return how many ports no connect can have."""
        return self.group.used - (self.group.reusable if self.reuses else 0)

    def share(self) -> float:
        """Return the share of the ports that no connect can have."""
        return self.taken() / self.number()

    def in_range(self) -> int:
        """Return how many sockets had a port of the range, whatever their destination."""
        return self.sample.usage.sockets if self.sample.usage else 0

    def open(self) -> int:
        """Return how many of the ports are connections that were not closed here."""
        return self.group.used - self.group.time_wait - self.group.fin_wait2


@dataclass(frozen=True)
class Short:
    """A source and a destination between which the local ports are short."""

    trace: Trace
    netns: int
    source: str
    destination: str
    uses: tuple[Use, ...]  # all counts, in order of time
    nearly: tuple[Use, ...]  # those with nearly all in use
    rows: Ints  # the attempts from here to there
    failed: Ints  # of these, those that got no port
    works: tuple[str, ...] = ()  # other destinations that were reached after the first failure
    works_not: tuple[str, ...] = ()  # others that got no port either
    enter: str = ""  # what goes before a command for the namespace
    pids: tuple[int, ...] = field(default=())

    def peak(self) -> Use | None:
        """Return the count with the largest share in use; at a failure the one next to it."""
        if len(self.failed) and self.uses:
            at = int(self.trace.columns["syn_ns"][self.failed[0]])
            return min(self.uses, key=lambda use: abs(use.time_ns - at))
        return max(self.uses, key=Use.share) if self.uses else None

    def is_bound(self) -> bool:
        """Tell whether sockets of other destinations fill the range, and not those of this one.

        A port that bind(2) chose is taken from every destination.
        """
        use = self.peak()
        if use is None or not len(self.failed):
            return False
        return use.share() < NEARLY <= use.in_range() / use.number()

    def still_ns(self) -> int:
        """Return for how long (ns) the use has not grown any more, as it was counted."""
        if not self.uses:
            return 0
        pairs = list(pairwise(self.uses))
        grew = [later.time_ns for use, later in pairs if later.taken() > use.taken()]
        return self.uses[-1].time_ns - (grew[-1] if grew else self.uses[0].time_ns)

    def per_s(self) -> float:
        """Return by how many ports a second the use grew while it was counted.

        0 where it did not, or does not any more.
        """
        first, last = (self.uses[0], self.uses[-1]) if self.uses else (None, None)
        if first is None or last is None or last.time_ns <= first.time_ns:
            return 0.0
        if self.still_ns() >= STILL_NS:
            return 0.0
        return max(0.0, (last.taken() - first.taken()) / (last.time_ns - first.time_ns) * 1e9)
