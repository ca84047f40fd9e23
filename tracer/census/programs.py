"""BPF programs in the way of a connect: on control groups, on security hooks, on kernel functions.

A `Snapshot` is taken of all programs of the host; porttrace's own are left out.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from porttrace.tracer.census import bpf, btf
from porttrace.tracer.census.bpf import Link, Program
from porttrace.tracer.census.holders import Holders
from porttrace.tracer.census.host import HERE, HostFiles
from porttrace.tracer.census.path import PLACES, place_of
from porttrace.tracer.cgroups import directory_of
from porttrace.tracer.facts import Fact, NotLooked, Process, Suspect
from porttrace.tracer.words import count

# enum bpf_attach_type: what is said of it, and its place
_ON_GROUPS = {
    10: ("connect4", "connect"),
    11: ("connect6", "connect"),
    43: ("lsm_cgroup", "connect"),
    1: ("inet_egress", "egress"),
    0: ("inet_ingress", "ingress"),
    3: ("sock_ops", "network"),
    14: ("sendmsg4", "user"),
    15: ("sendmsg6", "user"),
}
_LSM_HOOK = "bpf_lsm_"
_LSM_OF_CONNECT = ("socket_connect", "socket_create", "socket_post_create", "inet_conn_established",
                   "inet_csk_clone", "socket_sendmsg", "socket_sock_rcv_skb")  # fmt: skip
_PERF_EVENTS = 1000  # looked at, at most
_HOOK_PLACES = {0: "ingress", 1: "ingress", 3: "egress", 4: "egress"}  # enum nf_inet_hooks
_SOURCE = "bpf(2)"


@dataclass
class Snapshot:
    """All programs and links of the host, and who holds them."""

    holders: Holders
    files: HostFiles = HERE
    programs: Mapping[int, Program] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    missing: tuple[NotLooked, ...] = ()

    def is_own(self, number: int) -> bool:
        """Whether a program belongs to porttrace: to this process or another run of it."""
        pids = self.holders.programs.get(number, set())
        return os.getpid() in pids or any(_is_porttrace(pid, self.files) for pid in pids)

    def called(self, number: int, more: str = "") -> str:
        """Return a program's name and number, `more`, and who holds it."""
        name = self.programs[number].name if number in self.programs else ""
        pids = sorted(self.holders.programs.get(number, ()))[:3]
        held = " and ".join(f"{self.files.process(pid).comm} (pid {pid})" for pid in pids)
        whose = f"held by {held}" if held else "no process holds it"
        return f"the BPF program {name or 'without a name'} (id {number}{more}; {whose})"

    def holder(self, number: int) -> int:
        """Return the first process that holds a program, 0 when none does."""
        return min(self.holders.programs.get(number, {0}), default=0)


def snapshot(holders: Holders, files: HostFiles = HERE) -> Snapshot:
    """Ask the kernel for its BPF programs and links."""
    found = Snapshot(holders, files)
    try:
        found.programs = {each.number: each for each in bpf.programs()}
    except OSError as error:
        found.missing += (NotLooked("BPF programs", _reason(error)),)
    try:
        found.links = tuple(bpf.links())
    except OSError as error:
        found.missing += (NotLooked("BPF links", _reason(error)),)
    return found


def _reason(error: OSError) -> str:
    return f"{_SOURCE}: {(error.strerror or str(error)).lower()}"


def _is_porttrace(pid: int, files: HostFiles) -> bool:
    words = files.process(pid).cmdline.split(" ")[:4]
    return any(word.rpartition("/")[2] == "porttrace" or word == "porttrace.cli" for word in words)


# -- control groups ----------------------------------------------------------------


def on_cgroups(process: Process, found: Snapshot) -> Iterator[Fact]:
    """Yield the programs on the control group of `process` and on those above it."""
    lines = found.files.found(f"/proc/{process.pid}/cgroup").split("\n")
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    directory = directory_of(path, [process.pid]) if path else ""
    if not directory:
        why = f"its group {path} is not in a tree that is mounted here" if path else "it has none"
        yield NotLooked("BPF programs on the control group (v2)", why)
        return
    try:
        seen: set[tuple[int, int]] = set()
        for place in _upwards(directory):
            for fact, key in _on_group(place, found):
                if key not in seen:
                    seen.add(key)
                    yield fact
    except OSError as error:
        yield NotLooked(f"BPF programs on the control group {directory}", _reason(error))


def _upwards(directory: str) -> Iterator[str]:
    # From the group itself to the root of its tree, which is where the file system begins.
    device = os.stat(directory).st_dev
    while True:
        yield directory
        parent = os.path.dirname(directory)
        if parent == directory or os.stat(parent).st_dev != device:
            return
        directory = parent


def _on_group(directory: str, found: Snapshot) -> Iterator[tuple[Suspect, tuple[int, int]]]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for kind, (hook, place) in _ON_GROUPS.items():
            for number in _attached(handle, kind):
                if not found.is_own(number):
                    what = f"{found.called(number)} is on the hook {hook} of {directory}"
                    source = f"{_SOURCE} of {directory}"
                    fact = Suspect("bpf-cgroup", place, what, source, found.holder(number))
                    yield fact, (kind, number)
    finally:
        os.close(handle)


def _attached(handle: int, kind: int) -> tuple[int, ...]:
    try:
        return bpf.attached(handle, kind)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a younger hook than this kernel
            return ()
        raise


# -- hooks inside the kernel ---------------------------------------------------------


def in_kernel(found: Snapshot) -> Iterator[Fact]:
    """Yield the programs on security hooks and on functions that a connect runs through."""
    yield from found.missing
    yield from _typed(found)
    yield from _probes(found)
    for link in found.links:
        if link.type == "netfilter" and not found.is_own(link.program):
            place = _HOOK_PLACES.get(link.values[1], "")
            if place:
                what = f"{found.called(link.program)} is a netfilter hook"
                yield _inside("bpf-netfilter", place, what, found, link.program)


def _typed(found: Snapshot) -> Iterator[Fact]:
    # What tracing and LSM programs are on is a number in the kernel's description of its types.
    attached = {link.program for link in found.links}
    mine = [
        each
        for each in found.programs.values()
        if each.type in ("tracing", "lsm") and (each.number in attached or not found.links)
    ]
    mine = [_with_target(each, found) for each in mine if not found.is_own(each.number)]
    if not mine:
        return
    names, reason = _targets(mine, found)
    unnamed = [each.number for each in mine if each.number not in names]
    if unnamed:
        numbers = ", ".join(map(str, unnamed))
        yield NotLooked(f"what the BPF programs {numbers} are attached to", reason)
    for program in mine:
        yield from _typed_fact(program, names.get(program.number, ""), found)


def _with_target(program: Program, found: Snapshot) -> Program:
    # Before Linux 6.0 a program does not tell; since 5.13 its link does.
    for link in found.links:
        if not program.target and link.type == "tracing" and link.program == program.number:
            return replace(program, target_object=link.values[1], target=link.values[2])
    return program


def _targets(mine: list[Program], found: Snapshot) -> tuple[dict[int, str], str]:
    wanted = {each.number: each.target for each in mine if each.target}
    try:
        objects = {each.target_object for each in mine if each.target}
        kernel = {number for number in objects if bpf.is_vmlinux(number)}
        data = found.files.path(str(btf.VMLINUX)).read_bytes()
    except OSError as error:
        return {}, _reason(error)
    by_type = btf.names(set(wanted.values()), data)
    of_kernel = {each.number for each in mine if each.target_object in kernel}
    names = {n: by_type.get(target, "") for n, target in wanted.items() if n in of_kernel}
    return names, "they are on a module or another program, or the kernel does not tell"


def _typed_fact(program: Program, function: str, found: Snapshot) -> Iterator[Fact]:
    called = found.called(program.number)
    hook = function.removeprefix(_LSM_HOOK)
    if program.type == "lsm" and hook in _LSM_OF_CONNECT:
        what = f"{called} is on the security hook {hook}"
        yield _inside("bpf-lsm", "connect", what, found, program.number)
    elif program.type == "tracing" and place_of(function):
        what = f"{called} is on the kernel's {function}"
        yield _inside("bpf-probe", place_of(function), what, found, program.number)


def _probes(found: Snapshot) -> Iterator[Fact]:
    on = [(link.program, link.function) for link in found.links if link.function]
    on += [pair for link in found.links for pair in _multi(link, found)]
    for pid, descriptor in found.holders.perf_events[:_PERF_EVENTS]:
        probe = None if pid == os.getpid() else bpf.probe_of(pid, descriptor)
        if probe and probe.is_kprobe:
            on.append((probe.program, probe.function))
            found.holders.programs.setdefault(probe.program, set()).add(pid)
    for program, function in dict.fromkeys(on):
        if place_of(function) and not found.is_own(program):
            what = f"{found.called(program)} is a kprobe on the kernel's {function}"
            yield _inside("bpf-probe", place_of(function), what, found, program)
    unread = len(found.holders.perf_events) - _PERF_EVENTS
    if unread > 0:
        yield NotLooked(count(unread, "perf event"), "too many to ask what each is on")


def _multi(link: Link, found: Snapshot) -> Iterator[tuple[int, str]]:
    if link.addresses:
        wanted = set(link.addresses)
        for line in found.files.found("/proc/kallsyms").split("\n"):
            words = line.split()
            if len(words) > 2 and words[2] in PLACES and int(words[0], 16) in wanted:
                yield link.program, words[2]


def _inside(kind: str, place: str, what: str, found: Snapshot, number: int) -> Suspect:
    return Suspect(kind, place, what, f"{_SOURCE}, program {number}", found.holder(number))
