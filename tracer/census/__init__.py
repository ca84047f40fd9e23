"""The census of suspects: what on this host can interpose on the connects of a process.

Each fact says what was seen and where; none accuses. Nothing is changed, and what could not be
read is listed with the reason. A module for each thing that is looked at; here they are put
together, and what processes share is looked at once for all of them.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from porttrace.tracer.census import (
    devices,
    entry,
    libraries,
    modules,
    nftables,
    programs,
    queues,
    security,
    tracing,
    xtables,
)
from porttrace.tracer.census.holders import Holders, walk
from porttrace.tracer.census.host import HERE
from porttrace.tracer.census.programs import Snapshot
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.facts import Fact, NotLooked, Process, Suspect
from porttrace.tracer.namespaces import in_netns_of
from porttrace.tracer.words import count

_T = TypeVar("_T")
_FRESH_S = 10.0


@dataclass(frozen=True)
class Found:
    """The census of one process."""

    suspects: tuple[Suspect, ...] = ()
    not_looked: tuple[NotLooked, ...] = ()


@dataclass
class Census:
    """Takes the census of processes, of the running host.

    `own` are the kernel functions that porttrace hooks now. What processes share (the host, a
    network namespace, a control group) is looked at again when it is older than `fresh_s`.
    """

    own: Collection[str] = ()
    fresh_s: float = _FRESH_S
    _known: dict[object, tuple[float, object]] = field(default_factory=dict)

    def of(self, process: Process) -> Found:
        """Return what could hold the connects of `process`, by the way that a connect takes."""
        if not HERE.status(process.pid):
            gone = NotLooked(f"process {process.pid}", "it is not there any more")
            return Found(not_looked=(gone,))
        holders = self._once("holders", walk)
        found = self._once("programs", lambda: programs.snapshot(holders))
        facts = [
            *libraries.look(process),
            *entry.look(process, holders),
            *security.look(process),
            *self._on_cgroup(process, found),
            *self._once("host", lambda: self._of_host(holders, found)),
            *self._in_netns(process, found),
        ]
        return sorted_out(facts)

    def _on_cgroup(self, process: Process, found: Snapshot) -> list[Fact]:
        group = HERE.found(f"/proc/{process.pid}/cgroup")
        return self._once(("cgroup", group), lambda: [*programs.on_cgroups(process, found)])

    def _of_host(self, holders: Holders, found: Snapshot) -> list[Fact]:
        facts = [*programs.in_kernel(found), *tracing.look(self.own), *modules.look()]
        if holders.unread:
            what = f"descriptors of {count(holders.unread, 'process')}"
            facts.append(NotLooked(what, "there are too many to look at in time"))
        return facts

    def _in_netns(self, process: Process, found: Snapshot) -> list[Fact]:
        pid = process.pid

        def look() -> list[Fact]:
            return [*queues.look(pid), *nftables.look(), *xtables.look(pid), *devices.look(found)]

        try:
            number = os.stat(f"/proc/{pid}/ns/net").st_ino
            return self._once(("netns", number), lambda: in_netns_of(pid, look))
        except (OSError, PorttraceError) as error:
            why = str(getattr(error, "strerror", None) or error)
            return [NotLooked("netfilter, queues and network devices", why)]

    def _once(self, key: object, look: Callable[[], _T]) -> _T:
        now_s = time.monotonic()
        at_s, known = self._known.get(key, (0.0, None))
        if known is None or now_s - at_s > self.fresh_s:
            known = look()
            self._known[key] = time.monotonic(), known
        return known  # type: ignore[return-value]


def sorted_out(facts: Iterable[Fact]) -> Found:
    """Return what was found apart from what was not looked at, each once."""
    distinct = dict.fromkeys(facts)
    return Found(
        tuple(fact for fact in distinct if isinstance(fact, Suspect)),
        tuple(fact for fact in distinct if isinstance(fact, NotLooked)),
    )
