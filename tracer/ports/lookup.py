"""Who keeps a port in a network namespace: `holders` for one bind, `see` with all that was seen."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from porttrace.tracer import diag, links, processes
from porttrace.tracer.capabilities import may
from porttrace.tracer.containers import Container
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.facts import Holder
from porttrace.tracer.namespaces import in_netns, sees_host_pids
from porttrace.tracer.ports import socks
from porttrace.tracer.ports.holding import Seen, holder_of
from porttrace.tracer.ports.overlap import overlaps
from porttrace.tracer.ports.owners import Descriptor, Owners, elsewhere, owners
from porttrace.tracer.ports.peek import Options, options, unlisted
from porttrace.tracer.ports.settings import settings
from porttrace.tracer.ports.socks import Sock

MOST = 32
"""So many holders are told at most; of the last one, `why` says how many more there are."""

_ORDER = ("listener", "bound", "client", "accepted", "closing", "time_wait", "udp", "descriptor",
          "kernel", "namespace", "unknown")  # fmt: skip
_HALF_OPEN = (diag.SYN_RECV, diag.NEW_SYN_RECV)  # requests that wait at a listener keep no port
_SETTLE_S = 0.02  # until a process that ends has closed what it had
_MOST_CMDLINE = 200  # characters
_SMALL = 64  # sockets that are looked into one by one


@dataclass(frozen=True)
class Look:
    """What a look-up may do."""

    # Copy descriptors for a moment, to read SO_REUSEPORT and the like. Who closes his listener in
    # that very moment still has the port taken: a restart fails then (seen at one look of 40, of a
    # program that did nothing else). So only for a person who asks for what depends on it.
    options: bool = False
    strays: bool = True  # search queues and rings for sockets that no process has
    unlisted: bool = True  # on kernels before 6.8, ask each socket that sock_diag does not list


EVERYTHING = Look()
NameOf = Callable[[Container], str]


def holders(
    protocol: str,
    address: str,
    port: int,
    netns: str = "",
    *,
    v6only: bool = False,
    look: Look = EVERYTHING,
    name_of: NameOf | None = None,
) -> tuple[Holder, ...]:
    """Return what keeps `port` for `address`, the most telling first; never nothing.

    `protocol` is tcp or udp; `address` the one that a bind asks for ("" is any), `v6only` its
    option. Looked for in the network namespace at the path `netns`, "" is our own. Sockets of one
    process that differ in their remote end only are one holder. Where nobody can be shown, the only
    one has kind `unknown` and says why. `name_of` names containers as in processes.read_process.
    """
    nobody = Holder("unknown", protocol, address, port)
    try:
        seen = see(protocol, address, port, netns, v6only=v6only, how=look)
        told = holders_of(seen, name_of)
        why = f"no socket has this port now: whoever had it has let go of it{unseen(protocol)}"
    except PorttraceError as error:
        return (replace(nobody, why=error.message),)
    return told or (replace(nobody, netns=seen.settings.netns, why=why),)


def see(
    protocol: str,
    address: str,
    port: int,
    netns: str = "",
    *,
    v6only: bool = False,
    how: Look = EVERYTHING,
) -> Seen:
    """Return the sockets in the way of a bind, with their owners; arguments as of `holders`.

    `netns` is the path of a network namespace, "" our own. Raises PorttraceError when it cannot be
    entered, or the kernel does not answer.
    """

    def once() -> Seen:
        seen = in_netns(
            netns, lambda: Seen(socks.dump(protocol, port, closer=True), settings=settings())
        )
        standing = [each for each in seen.socks if each.state not in _HALF_OPEN]
        meeting = [each for each in standing if overlaps(each, address, v6only)]
        having = owners(each.inode for each in meeting)
        if not meeting and protocol == "tcp" and how.unlisted and not socks.lists_bound():
            meeting, having = _by_asking(port, address, v6only, seen)
        return replace(seen, socks=meeting, owners=having, apart=sees_host_pids() is False)

    seen, lost = twice_lost(once)
    seen = replace(seen, options=_options(seen) if how.options else {})
    seen = replace(seen, searched=how.strays)
    return _with_strays(seen, lost, netns) if lost and how.strays else seen


def twice_lost(once: Callable[[], Seen]) -> tuple[Seen, set[int]]:
    """Return a look, and the sockets (inodes) in it that truly no process has.

    A process that ends, or hands a socket on, while we look leaves it for a moment without one. So
    where sockets seem to be nobody's it is looked once more; what is lost then that was not there
    before is `passing`: it comes and goes.
    """
    first = once()
    lost = first.lost()
    if not lost or (first.owners.hidden and not may("CAP_SYS_PTRACE")):
        return first, lost
    time.sleep(_SETTLE_S)
    seen = once()
    return replace(seen, passing=frozenset(seen.lost() - lost)), seen.lost() & lost


def holders_of(seen: Seen, name_of: NameOf | None = None) -> tuple[Holder, ...]:
    """Return the holders that `see` found, the most telling first; () for none."""
    return tuple(named(each, name_of) for each in _grouped(seen))


def unseen(protocol: str) -> str:
    """Return what else could have a port that no socket seems to have, to be put behind a sentence.

    "" where that cannot be.
    """
    if protocol == "udp" or may("CAP_SYS_PTRACE") or socks.lists_bound():
        return ""
    return (
        ", or a socket has it that is bound and does nothing yet: this kernel does not list those, "
        "and only root may look for them in the processes"
    )


def _by_asking(port: int, address: str, v6only: bool, seen: Seen) -> tuple[list[Sock], Owners]:
    known = frozenset(each.inode for each in seen.socks)
    pairs = unlisted(port, known, seen.settings.netns)
    meeting = [(sock, at) for sock, at in pairs if overlaps(sock, address, v6only)]
    found: dict[int, list[Descriptor]] = {sock.inode: [at] for sock, at in meeting}
    return [sock for sock, _ in meeting], Owners(found)


def _options(seen: Seen) -> dict[int, Options]:
    # Those that decide most come first: one listener says what 10,000 connections have from it.
    ordered = sorted(seen.socks, key=lambda each: each.state not in (diag.LISTEN, diag.BOUND))
    firsts = {each.inode: seen.owners.first(each.inode) for each in ordered[:_SMALL]}
    read = {inode: options(at) for inode, at in firsts.items() if at}
    return {inode: each for inode, each in read.items() if each}


def _with_strays(seen: Seen, lost: set[int], netns: str) -> Seen:
    seen = replace(seen, elsewhere=elsewhere(lost))
    with contextlib.suppress(PorttraceError):
        if seen.socks[0].protocol == "udp":
            seen = replace(seen, devices=in_netns(netns, links.tunnels))
    return seen


def _grouped(seen: Seen) -> list[Holder]:
    # One of each kind, process and address, with the longest wait: the port is free after that.
    groups: dict[tuple[str, int, int, str], list[Holder]] = {}
    for sock in seen.socks:
        each = holder_of(sock, seen)
        groups.setdefault((each.kind, each.pid, each.uid, each.address), []).append(each)
    first = [_of_group(group) for group in groups.values()]
    first.sort(key=lambda each: (_ORDER.index(each.kind), -each.frees_in_s, each.pid))
    if len(first) > MOST:
        last = first[MOST - 1]
        more = f"{last.why}; {len(first) - MOST} more holders are not listed"
        first[MOST - 1 :] = [replace(last, why=more)]
    return first


def _of_group(group: Sequence[Holder]) -> Holder:
    last = max(group, key=lambda each: (each.frees_in_s, each.queue - each.limit))
    if len(group) == 1:
        return last
    also = sorted({pid for each in group for pid in each.also} - {last.pid})
    why = f"{last.why} (the last of {len(group)} such sockets)"
    return replace(last, why=why, also=tuple(also))


def named(holder: Holder, name_of: NameOf | None) -> Holder:
    """Return a holder with the names of its user, process and container."""
    user = processes.user_name(holder.uid) if holder.uid >= 0 else ""
    if not holder.pid:
        return replace(holder, user=user)
    process = processes.read_process(holder.pid, name_of=name_of)
    container = process.container_name if process.container else ""
    container = container or process.container
    cmdline = process.cmdline[:_MOST_CMDLINE]
    return replace(holder, user=user, comm=process.comm, container=container, cmdline=cmdline)
