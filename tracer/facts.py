"""Facts that travel beside the events: plain values without behaviour.

Shared by the tracer, which finds them, and by analysis, which only reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Process:
    """What /proc said of a process at its first event; "" or 0 where it was gone."""

    pid: int
    ppid: int = 0
    comm: str = ""
    exe: str = ""
    cmdline: str = ""
    uid: int = 0
    user: str = ""
    cgroup: str = ""
    container: str = ""  # its id, 12 digits; of machines of systemd and LXC, the name
    netns: int = 0
    preloads: tuple[str, ...] = ()  # libraries preloaded into it that define connect()
    container_name: str = ""  # as its runtime calls it; outside of containers, the systemd service
    ns_pid: int = 0  # the pid in its own pid namespace; 0 where that is the host's
    image: str = ""  # what its container was made of, as the runtime says it


@dataclass(frozen=True)
class Held:
    """A thread that stands before SYN_SENT at this moment."""

    pid: int
    tid: int
    place: str  # gate or connect
    since_ns: int
    comm: str
    daddr: bytes  # 16 bytes, IPv4 mapped; all zero when not known
    dport: int
    frames: tuple[str, ...]  # kernel stack, innermost first
    stack: int = -1  # id of that stack, negative when there is none


@dataclass(frozen=True)
class Host:
    """Facts about the traced host that findings rest on."""

    name: str = ""
    kernel: str = ""
    mode: str = "tracepoint"
    wire: bool = False
    sysctls: Mapping[str, int] = field(default_factory=dict)  # tcp_syn_retries, ...
    drop_reasons: Mapping[str, str] = field(default_factory=dict)  # number: the kernel's own name


INHERITED = "it inherited the socket"
"""What `why` of a holder begins with where another process was seen to bind it."""
UNSEEN = "whose it is cannot be seen"
IN_QUEUE = "nobody has accepted yet"
"""What `why` of a holder says where a process has it that does not show, or none has it yet."""


@dataclass(frozen=True)
class Holder:
    """What keeps a port: one socket, or the reason why no socket can be shown."""

    # listener, client, accepted (a connection that a listener took), bound, time_wait, closing,
    # udp, descriptor (in flight), kernel, namespace, unknown
    kind: str
    protocol: str = "tcp"  # tcp or udp
    address: str = ""  # local address as the socket has it, "0.0.0.0" or "::" for the wildcard
    port: int = 0
    remote: str = ""  # "address:port" of the other end, "" for none
    state: str = ""  # ESTABLISHED, LISTEN, ... as ss(8) says it
    pid: int = 0  # 0: no process holds a descriptor that could be seen
    comm: str = ""
    uid: int = -1  # owner of the socket, -1 not known
    user: str = ""
    container: str = ""  # id or name as in Process
    netns: int = 0  # inode of the network namespace
    age_s: float = -1.0  # how long it has stood, -1 not known
    frees_in_s: float = -1.0  # time_wait and closing: when the timer ends it, -1 not known
    reuseport: bool | None = None  # None: the kernel does not tell
    v6only: bool | None = None
    why: str = ""  # one plain sentence: how it came to hold the port, or why nobody can be shown
    also: tuple[int, ...] = ()  # other processes that have its sockets open: workers, children
    queue: int = -1  # of a TCP listener: connections that wait for accept(2), -1 not known
    limit: int = -1  # of these: the kernel queues one more than that
    cmdline: str = ""  # its process's command line, the beginning of it


@dataclass(frozen=True)
class Looked:
    """What was looked up right after calls of bind(2) or listen(2) failed: one look for all `keys`.

    `facts` are those of the caller and of its network namespace; tracer/bindfacts.py names them.
    """

    keys: tuple[tuple[int, int], ...]  # (time_ns, tid) of the failed calls
    holders: tuple[Holder, ...] = ()
    facts: Mapping[str, int | str] = field(default_factory=dict)
    after_s: float = 0.0  # so long after the first of the calls


@dataclass(frozen=True)
class Suspect:
    """A thing on this host that can interpose on connect: a fact, with where it was read."""

    kind: str  # seccomp-notify, ptrace, preload, ...; docs/suspects.md lists them
    place: str  # the place it fits: user, gate, connect, egress, network, ingress
    what: str  # one plain sentence
    source: str  # e.g. /proc/12/status
    pid: int = 0  # process behind it, 0 none


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket whose accept queue was half full or more, or that somebody wanted."""

    address: str  # "0.0.0.0" or "[::]" for the wildcard
    port: int
    queue: int  # connections that wait for accept(2)
    limit: int  # of listen(2), capped by somaxconn; the kernel queues one more
    pid: int = 0  # owner, looked for only when the queue was near its limit; 0 not known
    comm: str = ""
    uid: int = -1


@dataclass(frozen=True)
class PortUse:
    """The local ports taken for one source and one destination: a range of its own."""

    source: str  # address
    destination: str  # address:port
    used: int  # within the range of local ports, in any state
    time_wait: int = 0  # of these
    reusable: int = 0  # of these, a second old: tcp_tw_reuse may give them away again
    frees_in_s: float = -1.0  # until the first TIME_WAIT ends, -1 none does
    fin_wait2: int = 0  # closed here, and not yet by the other end
    fin_wait2_ends_in_s: float = -1.0  # until the first of these gives up waiting, -1 not known


MOST_GROUPS = 32
"""So many pairs of source and destination are told of a count: the largest."""


@dataclass(frozen=True)
class Usage:
    """Who used the local ports when the namespace's sockets were last counted."""

    time_ns: int = 0  # 0: not counted, the sockets are too few for any shortage
    sockets: int = 0  # that were counted
    left_out: int = 0  # that were not: there were too many at once
    listening: int = 0  # ports of the range that listeners keep from every destination
    groups: tuple[PortUse, ...] = ()  # the largest


@dataclass(frozen=True)
class Towards:
    """The ports of the range that are taken from one source to one destination."""

    source: str  # address
    destination: str  # address:port
    states: Mapping[str, int]  # sockets, by state
    reusable: int = 0  # of those in TIME_WAIT: tcp_tw_reuse may give them away again
    frees_in_s: float = -1.0  # until the first TIME_WAIT ends, -1 none does
    whose: tuple[tuple[int, str, int], ...] = ()  # pid, comm and number of sockets, most first

    @property
    def used(self) -> int:
        """How many ports."""
        return sum(self.states.values())


@dataclass(frozen=True)
class RangeUse:
    """What is taken of the ephemeral range, by TCP."""

    taken: int = 0  # ports of it that any socket has
    kept: int = 0  # of these, by sockets that listen or are bound: from every destination
    towards: tuple[Towards, ...] = ()  # where it is nearly used up, the fullest first


@dataclass(frozen=True)
class Sample:
    """What one network namespace said at one moment; None and "" where that is as before."""

    time_ns: int
    netns: int  # inode
    pid: int = 0  # a process in it, by which to enter it
    counters: Mapping[str, int] | None = None  # TcpExt of netstat: ListenOverflows, ...
    sockets: Mapping[str, int] | None = None  # TCP of sockstat and sockstat6: inuse, tw, ...
    settings: Mapping[str, str] | None = None  # sysctls as the kernel writes them
    conntrack: Mapping[str, int] | None = None  # count, max, drop, ...; empty where there is none
    listeners: tuple[Listener, ...] | None = None
    usage: Usage | None = None
    serves: tuple[str, ...] | None = None  # "address:port" that lost SYNs and is in here
    name: str | None = None  # what `ip netns` calls it, "" nothing
    own: bool | None = None  # it is the one that the tracer was in


@dataclass(frozen=True)
class NotLooked:
    """Something that a census could not read on this host: absence of facts is no proof there."""

    what: str  # e.g. "nftables rules"
    reason: str  # one plain phrase


Fact = Suspect | NotLooked
"""What a look at one thing yields."""
