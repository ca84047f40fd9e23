"""Who holds which descriptor of the kernel's own making, in one walk over /proc/*/fd.

Of interest are seccomp's notification descriptors, BPF programs and links, and the perf events
by which BPF programs are attached to kprobes.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from porttrace.tracer.census.host import HERE, HostFiles

_BUDGET_S = 0.4
_PREFIX = "anon_inode:"
_PROGRAM = re.compile(r"^prog_id:\s*(\d+)$", re.M)


@dataclass
class Holders:
    """What one walk found."""

    notify: set[int] = field(default_factory=set)  # pids
    programs: dict[int, set[int]] = field(default_factory=dict)  # program id -> pids
    perf_events: list[tuple[int, int]] = field(default_factory=list)  # (pid, descriptor)
    unread: int = 0  # processes that there was no time for


def walk(files: HostFiles = HERE, budget_s: float = _BUDGET_S) -> Holders:
    """Return who holds what now. Stops after `budget_s`: `unread` processes were left out."""
    found, until = Holders(), time.monotonic() + budget_s
    pids = list(files.pids())
    for done, pid in enumerate(pids):
        if time.monotonic() > until:
            found.unread = len(pids) - done
            break
        for descriptor, kind in _descriptors(pid, files):
            _add(found, pid, descriptor, kind, files)
    return found


def _descriptors(pid: int, files: HostFiles) -> Iterator[tuple[int, str]]:
    # A descriptor may be closed meanwhile; the others still count.
    folder = files.path(f"/proc/{pid}/fd")
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                link = os.readlink(f"{folder}/{name}")
                if link.startswith(_PREFIX):
                    yield int(name), link.removeprefix(_PREFIX).strip("[]")


def _add(found: Holders, pid: int, descriptor: int, kind: str, files: HostFiles) -> None:
    if kind.startswith("seccomp notify"):
        found.notify.add(pid)
    elif kind == "perf_event":
        found.perf_events.append((pid, descriptor))
    elif kind.startswith("bpf"):  # bpf-prog, bpf-link (bpf_link from 6.0 on), bpf-map
        info = files.found(f"/proc/{pid}/fdinfo/{descriptor}")
        for number in _PROGRAM.findall(info):
            found.programs.setdefault(int(number), set()).add(pid)
