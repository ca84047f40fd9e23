"""Who reads packets from netfilter's queues, and how full connection tracking is."""

from collections.abc import Iterator

from porttrace.tracer.census.host import HERE, HostFiles, UnreadError
from porttrace.tracer.facts import Fact, NotLooked, Suspect
from porttrace.tracer.sockets import owners

_NETFILTER = "12"  # NETLINK_NETFILTER of <linux/netlink.h>
_TRACKED = "/proc/sys/net/netfilter/nf_conntrack_"
_NEARLY_FULL = 0.9


def look(pid: int, files: HostFiles = HERE) -> Iterator[Fact]:
    """Yield the queues of the network namespace of process `pid`, and its connection tracking.

    Must run in that namespace: sysctls are those of whoever reads them.
    """
    yield from _queues(pid, files)
    yield from _tracking(files)


def _queues(pid: int, files: HostFiles) -> Iterator[Fact]:
    source = f"/proc/{pid}/net/netfilter/nfnetlink_queue"
    try:
        lines = files.text(source).splitlines()
    except UnreadError as unread:
        yield NotLooked("netfilter queues", f"{unread} (a kernel without them has none)")
        return
    # queue portid waiting copy_mode copy_range dropped user_dropped sequence 1
    for fields in (line.split() for line in lines):
        if len(fields) < 7:
            continue
        reader = _reader(pid, fields[1], files)
        who = f"{files.who(reader)} reads" if reader else f"somebody (port {fields[1]}) reads"
        dropped = int(fields[5]) + int(fields[6])
        yield Suspect(
            "nfqueue",
            "egress",
            f"{who} netfilter queue {fields[0]} and decides on each packet in it; {fields[2]} wait "
            f"there now, {dropped} were dropped",
            f"{source}, /proc/{pid}/net/netlink",
            reader,
        )


def _reader(pid: int, port: str, files: HostFiles) -> int:
    # A port is often the pid of its owner, in the owner's own pid namespace. The inode is exact.
    inodes = {
        int(fields[-1])
        for fields in map(str.split, files.found(f"/proc/{pid}/net/netlink").split("\n"))
        if len(fields) > 9 and fields[1:3] == [_NETFILTER, port]
    }
    if inodes and files.is_here():
        return next(iter(owners(inodes, frozenset()).values()), 0)
    return 0


def _tracking(files: HostFiles) -> Iterator[Fact]:
    count, most = (files.found(f"{_TRACKED}{name}").strip() for name in ("count", "max"))
    if not (count.isdigit() and most.isdigit() and int(most)):
        return  # connections are not tracked here
    if int(count) >= _NEARLY_FULL * int(most):
        yield Suspect(
            "conntrack",
            "egress",
            f"the connection tracking table holds {count} of at most {most}: when it is full, "
            "packets of new connections are dropped",
            f"{_TRACKED}count, {_TRACKED}max",
        )
