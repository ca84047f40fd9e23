"""Which hosts share a throttle, and what those that have it have in common: counts, no causes.

A fact is counted among the hosts that have the throttle and among those that could have shown it
and do not. Hosts that could not have shown it (their scheduler or wire was not watched, nobody
looked for suspects) are counted by themselves: what was not looked at is not absent.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from porttrace.analysis.fleet.merge import Fleet, Member
from porttrace.analysis.fleet.model import Throttle

MOST_COMMON = 12
"""So many facts are told of one throttle: those that set its hosts apart most."""


@dataclass(frozen=True)
class Common:
    """One fact, and how many hosts have it: of those with the throttle, of those without it."""

    kind: str  # kernel, hook mode, or the kind of a suspect
    what: str
    having: int
    of_having: int  # hosts with the throttle of which this is known
    lacking: int
    of_lacking: int  # hosts without it of which this is known

    @property
    def apart(self) -> float:
        """How far the two shares lie apart, -1 to 1; 1: all that have it, and none of the rest."""
        rest = self.lacking / self.of_lacking if self.of_lacking else 0.0
        return self.having / self.of_having - rest


@dataclass(frozen=True)
class Shared:
    """A throttle, the hosts that have it, and the others."""

    throttle: Throttle
    having: tuple[str, ...]
    lacking: tuple[str, ...]
    not_seen: tuple[str, ...]  # hosts whose recordings could not have shown it
    common: tuple[Common, ...]  # what is on hosts that have it, the most telling first


def shared(fleet: Fleet) -> list[Shared]:
    """Return every throttle that was found, those of most hosts first."""
    hosts = fleet.hosts
    signatures = sorted({each for member in hosts for each in member.throttles})
    found = [_shared(each, hosts) for each in signatures]
    return sorted(found, key=lambda each: (-len(each.having), each.throttle))


def _shared(throttle: Throttle, hosts: Sequence[Member]) -> Shared:
    having = [member for member in hosts if throttle in member.throttles]
    rest = [member for member in hosts if throttle not in member.throttles]
    lacking = [member for member in rest if _would_show(throttle.place, member)]
    blind = [member for member in rest if not _would_show(throttle.place, member)]
    common = _common(having, lacking)
    return Shared(throttle, _names(having), _names(lacking), _names(blind), common)


def _would_show(place: str, member: Member) -> bool:
    if not member.attempts:
        return False
    if place in ("user", "gate"):
        return member.gates_seen
    if place in ("egress", "ingress"):
        return member.wire
    return True


def _names(members: Iterable[Member]) -> tuple[str, ...]:
    return tuple(member.name for member in members)


def _common(having: Sequence[Member], lacking: Sequence[Member]) -> tuple[Common, ...]:
    with_it, without = (Counter(f for m in each for f in _facts(m)) for each in (having, lacking))
    looked = [sum(member.census for member in each) for each in (having, lacking)]
    counted = [
        Common(*fact, number, of[0], without[fact], of[1])
        for fact, number in with_it.items()
        for of in [(len(having), len(lacking)) if fact[0] in _WITHOUT_CENSUS else looked]
    ]
    ordered = sorted(counted, key=lambda each: (-each.apart, -each.having, each.kind, each.what))
    return tuple(ordered[:MOST_COMMON])


_WITHOUT_CENSUS = ("kernel", "hook mode")


def _facts(member: Member) -> set[tuple[str, str]]:
    return member.facts | {("hook mode", each.mode) for each in member.recordings}
