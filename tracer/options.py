"""What to trace: the one value that filters, flags and buffer sizes are taken from."""

from dataclasses import dataclass, field

from porttrace.tracer.sysctls import sysctl

AF_INET = 2
AF_INET6 = 10

BINDS = ("all", "fixed", "failed", "none")
"""Which calls of bind(2) and listen(2) are traced.

`fixed` leaves out those that the kernel chose a port for and that do not listen (clients).
"""


@dataclass(frozen=True)
class TraceOptions:
    """Which attempts leave the kernel; empty means no restriction.

    Filters of different kinds must all hold, values of one kind are alternatives.
    """

    pids: frozenset[int] = frozenset()
    follow_children: bool = False
    comms: frozenset[str] = frozenset()
    uids: frozenset[int] = frozenset()
    remote_ports: frozenset[int] = frozenset()
    local_ports: frozenset[int] = frozenset()
    family: int = 0  # AF_INET, AF_INET6, or 0 for both
    cgroups: tuple[str, ...] = ()  # paths in the cgroup v2 tree
    pids_called: str = ""  # how `pids` were chosen, when not by their numbers: "netns blue"
    cgroups_called: str = ""  # the same of `cgroups`: "container web"
    netns: frozenset[int] = frozenset()  # `pids` are all processes of these network namespaces
    notes: tuple[str, ...] = ()  # what such a choice leaves out, in plain sentences
    wire: bool = True  # watch the wire for SYNs and their answers
    binds: str = "all"  # of bind(2) and listen(2), one of BINDS
    mode: str = ""  # hook mode, one of hooks.MODES; "": the best that works
    pages: int = 0  # of the perf buffer, per CPU; a power of two; 0: as many as are reasonable
    max_attempts: int = 65536  # sockets in SYN_SENT that can be told apart
    extra_flags: tuple[str, ...] = field(default=())
    round_ms: int = 50  # events are read so often, or when a quarter of a buffer is full
    backlog_bytes: int = 256 << 20  # of events that may wait in memory to be handled
    sample_s: float = 1.0  # network namespaces are sampled so often
    most_new: int = 0  # of those that attempt something, read from /proc in a round; 0: of all, all

    @property
    def targeted(self) -> bool:
        """Whether the tasks of interest are few enough to watch the scheduler for them."""
        return bool(self.pids or self.comms or self.uids or self.cgroups)

    def wants_peer(self, daddr: bytes, dport: int) -> bool:
        """Return whether a remote end (16 bytes, IPv4 mapped) passes the filters on it.

        The same test as wanted_peer in bpf/common.h. An address that is not known passes.
        """
        if not any(daddr):
            return True
        mapped = daddr[:12] == bytes(10) + b"\xff\xff"
        right_family = not self.family or mapped == (self.family == AF_INET)
        return right_family and (not self.remote_ports or dport in self.remote_ports)

    def describe(self) -> str:
        """Return the filter in words, "" when everything is traced."""
        parts = [
            self.pids_called
            or _words("pid", sorted(self.pids), " and children" if self.follow_children else ""),
            _words("comm", sorted(self.comms)),
            _words("uid", sorted(self.uids)),
            _words("remote port", sorted(self.remote_ports)),
            _words("local port", sorted(self.local_ports)),
            {AF_INET: "IPv4", AF_INET6: "IPv6"}.get(self.family, ""),
            self.cgroups_called or _words("cgroup", list(self.cgroups)),
        ]
        return ", ".join(part for part in parts if part)

    def cflags(self) -> list[str]:
        """Return the -D flags that switch the filters on in the kernel program."""
        flags = [f"-DMAX_ATTEMPTS={self.max_attempts}"]
        for name, on in (
            ("FILTER_PID", self.pids),
            ("FILTER_COMM", self.comms),
            ("FILTER_UID", self.uids),
            ("FILTER_RPORT", self.remote_ports),
            ("FILTER_LPORT", self.local_ports),
            ("FOLLOW_CHILDREN", self.follow_children),
            ("GATE", self.targeted),
            ("WIRE", self.wire),
            # a filter on the other end leaves out what has no other end
            ("BINDS", self.binds != "none" and not self.remote_ports),
            ("BINDS_FIXED", self.binds == "fixed"),
            ("BINDS_FAILED", self.binds == "failed"),
            ("V6ONLY_BY_DEFAULT", sysctl("net.ipv6.bindv6only") == "1"),
        ):
            if on:
                flags.append(f"-D{name}")
        if self.family:
            flags.append(f"-DFILTER_FAMILY={self.family}")
        if self.cgroups:
            flags.append(f"-DFILTER_CGROUP={len(self.cgroups)}")
        return flags + list(self.extra_flags)


def _words(name: str, values: list[int] | list[str], tail: str = "") -> str:
    return f"{name} {','.join(map(str, values))}{tail}" if values else ""
