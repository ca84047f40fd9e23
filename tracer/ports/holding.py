"""From sockets and their owners to holders: of what kind each is, and how it got the port."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from porttrace.tracer import diag
from porttrace.tracer.capabilities import may
from porttrace.tracer.facts import IN_QUEUE, UNSEEN, Holder
from porttrace.tracer.ports.overlap import overlaps
from porttrace.tracer.ports.owners import Elsewhere, Owners
from porttrace.tracer.ports.peek import Options
from porttrace.tracer.ports.settings import Settings
from porttrace.tracer.ports.socks import Sock

_TIME_WAIT_S = 60.0  # TCP_TIMEWAIT_LEN of include/net/tcp.h
_MOST_SHARERS = 64
_CLOSING = {
    diag.FIN_WAIT1: "closed here; what was sent last is not acknowledged yet",
    diag.FIN_WAIT2: "closed here; the other end has not closed yet",
    diag.CLOSE_WAIT: "the other end has closed; it stays until its process closes, too",
    diag.LAST_ACK: "closed by both ends; the last acknowledgement is missing",
    diag.CLOSING: "closed by both ends at once; the last acknowledgement is missing",
}


@dataclass(frozen=True)
class Seen:
    """All that one look found, which the kinds are told by."""

    socks: Sequence[Sock]
    owners: Owners = field(default_factory=Owners)
    settings: Settings = field(default_factory=Settings)
    options: dict[int, Options] = field(default_factory=dict)  # by inode, where they could be read
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    devices: dict[int, str] = field(default_factory=dict)  # UDP port -> tunnel that owns it
    searched: bool = True  # `elsewhere` is what a search found, not nothing for want of one
    passing: frozenset[int] = frozenset()  # inodes that came or went while we looked
    apart: bool = False  # we see the processes of our own pid namespace only

    def lost(self) -> set[int]:
        """Return the open sockets (inodes) that no process was seen to have."""
        return {each.inode for each in self.socks if each.inode} - self.owners.found.keys()

    @cached_property
    def listeners(self) -> tuple[Sock, ...]:
        """The TCP sockets that listen: few, where all are many."""
        return tuple(each for each in self.socks if each.state == diag.LISTEN)


def holder_of(sock: Sock, seen: Seen) -> Holder:
    """Return what a socket is as a holder, without what /proc says of its process."""
    kind, why = _kind(sock, seen)
    owner = seen.owners.first(sock.inode)
    if owner is None and sock.inode:
        kind, why = _nobodys(sock, kind, why, seen)
    options = seen.options.get(sock.inode)
    listens = sock.state == diag.LISTEN
    return Holder(
        kind=kind,
        protocol=sock.protocol,
        address=sock.address,
        port=sock.sport,
        remote=sock.remote,
        state=diag.STATES[sock.state] if sock.protocol == "tcp" else _udp_state(sock),
        pid=owner.pid if owner else _stray_owner(sock, seen),
        uid=-1 if _uid_is_unknown(sock) else sock.uid,
        netns=seen.settings.netns,
        age_s=_age_s(sock),
        frees_in_s=_frees_in_s(sock),
        reuseport=options.reuseport if options else _shares(sock, seen.listeners),
        v6only=sock.v6only,
        why=why,
        also=_sharers(sock, seen),
        queue=sock.queued if listens else -1,
        limit=sock.backlog if listens else -1,
    )


def _sharers(sock: Sock, seen: Seen) -> tuple[int, ...]:
    # A server that forks leaves its socket with every child: it stands until the last one ends.
    pids = sorted({each.pid for each in seen.owners.found.get(sock.inode, ())})
    return tuple(pids[1 : 1 + _MOST_SHARERS])


def _udp_state(sock: Sock) -> str:
    return "ESTABLISHED" if sock.state == diag.ESTABLISHED else "UNCONN"


def _uid_is_unknown(sock: Sock) -> bool:
    # inet_twsk_diag_fill answers 0 for all; the process is long gone.
    return sock.timer == diag.TIMER_TIME_WAIT or sock.state == diag.TIME_WAIT


def _kind(sock: Sock, seen: Seen) -> tuple[str, str]:
    if sock.protocol == "udp":
        to = f", connected to {sock.remote}" if sock.remote else ""
        return "udp", f"a UDP socket is bound to it{to}"
    if sock.state == diag.LISTEN:
        return "listener", "it listens there"
    if sock.state == diag.BOUND:
        return "bound", "bound to it, and neither listening nor connected"
    if sock.state == diag.TIME_WAIT:
        return "time_wait", (
            "the connection is over; the kernel keeps the port for packets that come late"
        )
    if sock.state == diag.CLOSE_WAIT and not sock.inode:
        # Every connection in CLOSE_WAIT has a descriptor, but for those that wait for accept(2).
        return "accepted", (
            f"in the accept queue of the listener on this port: {IN_QUEUE}, and the other end has "
            "closed it already"
        )
    if sock.state in _CLOSING:
        return "closing", _CLOSING[sock.state]
    return _connected(sock, seen)


def _connected(sock: Sock, seen: Seen) -> tuple[str, str]:
    # sock_diag does not tell who called whom; a listener on the port or the range do.
    if any(overlaps(each, sock.address) for each in seen.listeners):
        waits = "" if sock.inode else f", which {IN_QUEUE}"
        return "accepted", f"a connection of the listener on this port{waits}"
    low, high = seen.settings.range
    if low <= sock.sport <= high:
        return "client", (
            f"an outgoing connection; the kernel picks their ports from the range {low}-{high}"
        )
    if low <= sock.dport <= high:
        return "accepted", "an accepted connection, older than the end of its listener"
    return "client", "an outgoing connection that was bound to this port before"


def _nobodys(sock: Sock, kind: str, why: str, seen: Seen) -> tuple[str, str]:
    # The socket is open, and no process that could be looked into has a descriptor of it.
    where = seen.elsewhere
    tunnel = seen.devices.get(sock.sport) if sock.protocol == "udp" else None
    if tunnel:
        return "kernel", f"the kernel's own socket, of network device {tunnel}"
    if sock.inode in where.rings:
        return "descriptor", "kept by an io_uring of the process, which has no descriptor of it"
    if sock.inode in where.threads:
        return kind, f"{why}; one thread of the process has it for itself"
    if seen.owners.hidden and not may("CAP_SYS_PTRACE"):
        return kind, (
            f"{why}; {UNSEEN}: {seen.owners.hidden} processes may not be looked into (root may)"
        )
    if seen.apart:
        return kind, (
            f"{why}; {UNSEEN}: porttrace runs in a pid namespace of its own (--pid=host shows all)"
        )
    if sock.inode in seen.passing:
        return kind, f"{why}; whose it was cannot be seen: it came or went while we looked"
    if not seen.searched:
        return kind, f"{why}; no process had it open at that moment"
    if where.receivers:
        named = ", ".join(map(str, where.receivers[:4]))
        return "descriptor", (
            "open, but no process has it: its descriptor was sent over a UNIX socket and not "
            f"received yet (descriptors wait for pid {named})"
        )
    if seen.owners.hidden:
        return kind, (
            f"{why}; no process that shows has it: the kernel's own, or of one of "
            f"{seen.owners.hidden} that are closed to root, too"
        )
    return "kernel", "open, but no process has it and none is about to get it: the kernel's own"


def _stray_owner(sock: Sock, seen: Seen) -> int:
    where = seen.elsewhere
    return where.rings.get(sock.inode) or where.threads.get(sock.inode, 0)


def _age_s(sock: Sock) -> float:
    if sock.state == diag.TIME_WAIT:
        return max(0.0, _TIME_WAIT_S - sock.expires_ms / 1000)
    return sock.age_ms / 1000 if sock.age_ms >= 0 else -1.0


def _frees_in_s(sock: Sock) -> float:
    # An orphan in FIN_WAIT2 runs on the keepalive timer until less than a TIME_WAIT is left.
    orphan = sock.state == diag.FIN_WAIT2 and sock.timer == diag.TIMER_KEEPALIVE and not sock.inode
    ends = sock.protocol == "tcp" and (sock.timer == diag.TIMER_TIME_WAIT or orphan)
    return sock.expires_ms / 1000 if ends else -1.0


def _shares(sock: Sock, listeners: Iterable[Sock]) -> bool | None:
    # Two listeners on addresses that meet exist with SO_REUSEPORT on both only.
    if sock.protocol != "tcp" or sock.state != diag.LISTEN:
        return None
    return True if any(_beside(each, sock) for each in listeners) else None


def _beside(other: Sock, sock: Sock) -> bool:
    # Across the families Linux 6.1 lets sockets in that have no option set (docs/ports.md).
    if (other.sport, other.family) != (sock.sport, sock.family) or other.cookie == sock.cookie:
        return False
    if other.device and sock.device and other.device != sock.device:
        return False
    return overlaps(other, sock.address, bool(sock.v6only))
