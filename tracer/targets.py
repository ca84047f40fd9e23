"""From what a user names (a container, a network namespace) to what the kernel can filter.

Containers become control groups of v2, which whoever enters later is in as well; where there is
none, and for network namespaces, the processes that are there now.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from porttrace.tracer import cgroups, namespaces, processes
from porttrace.tracer.containers import Container
from porttrace.tracer.errors import TargetError
from porttrace.tracer.runtimes import Names

_LEAST = 4  # letters of an id that may stand for it
_LISTED = 5

_LATER = (
    "Processes that enter {} later are not traced, but for children of those that are: to see a "
    "program that is started later, say --comm NAME or -L PORT instead."
)


@dataclass(frozen=True)
class Targets:
    """What to filter by; `pids` None: by no process. The words are those of a filter."""

    pids: frozenset[int] | None = None
    cgroups: tuple[str, ...] = ()
    pids_called: str = ""
    cgroups_called: str = ""
    netns: frozenset[int] = frozenset()  # all processes of these network namespaces are meant
    notes: tuple[str, ...] = ()


@dataclass
class _Group:
    # A container, or a systemd service, with its processes by the path of their control group.
    known: Container
    is_unit: bool
    members: dict[str, list[int]] = field(default_factory=dict)


# -- containers --------------------------------------------------------------------


def in_containers(words: Sequence[str]) -> Targets:
    """Return the targets for containers named by id, by the beginning of it, or by name.

    Raises TargetError when one is not there, or when several could be meant.
    """
    groups, names = _groups(), Names()
    chosen = [_chosen(word, groups, names) for word in words]
    called = _words("container", words)
    members = [each for group in chosen for each in group.members.items()]
    places = [cgroups.directory_of(path, pids) for path, pids in members]
    if all(places):
        return Targets(cgroups=tuple(dict.fromkeys(places)), cgroups_called=called)
    pids = frozenset(pid for _, inside in members for pid in inside)
    note = f"There is no control group v2 of {called}. {_LATER.format('it')}"
    return Targets(pids, pids_called=_counted(called, pids), notes=(note,))


def _groups() -> list[_Group]:
    # By id: one container has one group, whatever its processes made below it.
    found: dict[str, _Group] = {}
    for pid in processes.all_pids():
        known = processes.container(pid)
        unit, path = ("", "") if known else processes.unit(pid)
        known = Container(unit, path, unit) if unit else known
        if known:
            group = found.setdefault(known.id, _Group(known, bool(unit)))
            group.members.setdefault(known.path, []).append(pid)
    return list(found.values())


def _chosen(word: str, groups: list[_Group], names: Names) -> _Group:
    # What is written in full comes first; last the end of NAMESPACE/POD/CONTAINER.
    ways: tuple[Callable[[Container], bool], ...] = (
        lambda known: known.id == word,
        lambda known: names.of(known) == word,
        lambda known: len(word) >= _LEAST and known.id.startswith(word),
        lambda known: names.of(known).endswith(f"/{word}"),
    )
    for way in ways:
        matching = [group for group in groups if word and way(group.known)]
        if len(matching) > 1:
            listed = _listing(matching, names)
            raise TargetError(f"{word} could be one of {listed}", "name one of them in full")
        if matching:
            return matching[0]
    raise _nowhere(word, [group for group in groups if not group.is_unit], names)


def _nowhere(word: str, there: list[_Group], names: Names) -> TargetError:
    seen = f"there are {_listing(there, names)}" if there else "no process here is in a container"
    return TargetError(
        f"no container {word} has a process here",
        f"{seen}; an id needs {_LEAST} digits or more, and --cgroup takes any control group",
    )


def _listing(groups: Sequence[_Group], names: Names) -> str:
    words = [_word(group.known, names) for group in groups[:_LISTED]]
    more = len(groups) - len(words)
    return ", ".join(words) + (f" and {more} more" if more else "")


def _word(known: Container, names: Names) -> str:
    name = names.of(known)
    return f"{name} ({known.short})" if name and name != known.short else known.short


# -- network namespaces ------------------------------------------------------------


def in_netns(words: Sequence[str]) -> Targets:
    """Return the processes that are in network namespaces named by name, path or pid.

    Raises TargetError when there is no such namespace, or nobody in it.
    """
    numbers = {namespaces.find_netns(word): word for word in words}
    found = {number: namespaces.pids_in_netns(number) - {os.getpid()} for number in numbers}
    for number, pids in found.items():
        if not pids:
            raise TargetError(
                f"no process is in the network namespace {numbers[number]}",
                "start one there first, or trace its command: porttrace -- ip netns exec ...",
            )
    pids = frozenset[int]().union(*found.values())
    return Targets(
        pids,
        pids_called=_counted(_words("netns", words), pids),
        netns=frozenset(numbers),
        notes=(_LATER.format("the network namespace"),),
    )


def _counted(called: str, pids: frozenset[int]) -> str:
    return f"{called} ({len(pids)} {'process' if len(pids) == 1 else 'processes'} and children)"


# -- all together ------------------------------------------------------------------


def choose(pids: Iterable[int], containers: Sequence[str], netns: Sequence[str]) -> Targets:
    """Return what all three kinds have in common; values of one kind are alternatives.

    Raises TargetError when a thing that is named is not there, or nothing is left.
    """
    named = frozenset(pids)
    by_pid = [Targets(named, pids_called=_words("pid", sorted(named)))] if named else []
    by_cgroup: list[Targets] = []
    for found in (
        *((in_containers(containers),) if containers else ()),
        *((in_netns(netns),) if netns else ()),
    ):
        (by_cgroup if found.pids is None else by_pid).append(found)
    common, called = _common(by_pid), [each.pids_called for each in by_pid]
    return Targets(
        common,
        tuple(path for each in by_cgroup for path in each.cgroups),
        "" if named and len(by_pid) == 1 else ", ".join(called),
        ", ".join(each.cgroups_called for each in by_cgroup),
        by_pid[0].netns if len(by_pid) == 1 else frozenset(),
        tuple(note for each in (*by_cgroup, *by_pid) for note in each.notes),
    )


def _common(asked: Sequence[Targets]) -> frozenset[int] | None:
    sets = [each.pids for each in asked if each.pids is not None]
    common = frozenset.intersection(*sets) if sets else None
    if sets and not common:
        called = " and ".join(each.pids_called for each in asked)
        raise TargetError(f"no process is in all of {called}", "leave one of them out")
    return common


def _words(kind: str, values: Iterable[object]) -> str:
    return f"{kind} {','.join(map(str, values))}"
