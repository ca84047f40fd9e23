"""The sums of many recordings put together, as they come and in any order.

Recordings of one host (parts of a rotated one, or several) become one `Member`. What is kept grows
with the number of hosts, by some kB each, and not with their attempts.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from porttrace.analysis.fleet import sketch
from porttrace.analysis.fleet.model import About, Found, Skipped, Slice, Throttle
from porttrace.analysis.fleet.sketch import Sketch
from porttrace.analysis.fleet.tally import Tally, Totals
from porttrace.analysis.model import SEVERITIES

TALLIES = ("places", "destinations", "programs", "images")
"""What time is counted by."""
NAMELESS = "(no name)"
_KEPT = 10  # findings of one host


@dataclass
class Member:
    """One host of the fleet."""

    name: str
    number: int  # its bit in `tally.Entry.hosts`
    recordings: list[About] = field(default_factory=list)
    attempts: int = 0
    failed: int = 0
    held_ns: int = 0
    total_ns: int = 0
    held: Sketch = field(default_factory=Sketch)
    answer: Sketch = field(default_factory=Sketch)
    outcomes: Counter[str] = field(default_factory=Counter)
    by_rule: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[Found] = field(default_factory=list)  # the gravest
    throttles: set[Throttle] = field(default_factory=set)
    facts: set[tuple[str, str]] = field(default_factory=set)
    census: bool = False

    @property
    def duration_s(self) -> float:
        """How long was recorded, all recordings together."""
        return sum(each.duration_s for each in self.recordings)

    @property
    def gates_seen(self) -> bool:
        """Whether any recording would show holds at `user` and `gate`."""
        return any(each.gates_seen for each in self.recordings)

    @property
    def wire(self) -> bool:
        """Whether the wire was watched in any recording."""
        return any(each.wire for each in self.recordings)

    def add(self, part: Slice) -> None:
        """Take one more recording of this host."""
        self.recordings.append(part.about)
        self.attempts += part.attempts
        self.failed += part.failed
        self.held_ns += part.held_ns
        self.total_ns += part.total_ns
        self.held = sketch.merged(self.held, part.held)
        self.answer = sketch.merged(self.answer, part.answer)
        self.outcomes.update(part.outcomes)
        self.by_rule.update(part.by_rule)
        self.findings = sorted([*self.findings, *part.findings], key=_gravity)[:_KEPT]
        self.throttles |= part.throttles
        self.facts |= part.facts
        self.census |= part.census


class Fleet:
    """Everything that is known of a fleet by now."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.skipped: list[Skipped] = []
        self._paths: dict[tuple[object, ...], list[str]] = {}  # by what no two recordings share
        self.held, self.answer, self.total = Sketch(), Sketch(), Sketch()
        self.outcomes: Counter[str] = Counter()
        self._totals = {name: Totals() for name in TALLIES}

    def add(self, part: Slice | Skipped) -> None:
        """Take the sum of one more recording, or that there is none."""
        if isinstance(part, Skipped):
            self.skipped.append(part)
            return
        if self._has(part):
            return
        name = part.about.host or NAMELESS
        member = self.members.setdefault(name, Member(name, len(self.members)))
        member.add(part)
        self.outcomes.update(part.outcomes)
        for name in ("held", "answer", "total"):
            setattr(self, name, sketch.merged(getattr(self, name), getattr(part, name)))
        for name, totals in self._totals.items():
            totals.add(getattr(part, name), member.number)

    # A file that somebody has copied must not count twice. Without a time nothing tells.
    def _has(self, part: Slice) -> bool:
        about = part.about
        if not about.start_s:
            return False
        same = (about.host, about.start_s, about.duration_s, about.events, part.attempts)
        paths = self._paths.setdefault(same, [])
        paths.append(about.path)
        return len(paths) > 1

    @property
    def copies(self) -> list[tuple[str, str]]:
        """Paths of recordings that count already, each with the first path of the same one."""
        every = map(sorted, self._paths.values())
        return sorted((copy, first) for first, *copies in every for copy in copies)

    def tally(self, name: str) -> Tally:
        """Return one of `TALLIES` as it is now."""
        return self._totals[name].tally()

    @property
    def hosts(self) -> list[Member]:
        """The hosts by name."""
        return sorted(self.members.values(), key=lambda member: member.name)

    @property
    def attempts(self) -> int:
        """How many attempts there are."""
        return sum(member.attempts for member in self.members.values())

    @property
    def by_rule(self) -> Mapping[tuple[str, str], tuple[int, int]]:
        """For each rule and severity how many findings there are, and on how many hosts."""
        findings: Counter[tuple[str, str]] = Counter()
        hosts: Counter[tuple[str, str]] = Counter()
        for member in self.members.values():
            findings.update(member.by_rule)
            hosts.update(member.by_rule.keys())
        ordered = sorted(findings, key=lambda key: (SEVERITIES.index(key[1]), -hosts[key], key))
        return {key: (findings[key], hosts[key]) for key in ordered}


def _gravity(found: Found) -> tuple[int, float, str]:
    return SEVERITIES.index(found.severity), -found.confidence, found.summary
