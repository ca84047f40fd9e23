"""What some stories need besides hosts and servers: a bad peer, a bad wire, a late name server.

Each is a context manager over an open site that yields words to put in front of the command.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from porttrace.lab.hosts import SERVER_V4
from porttrace.lab.peer import Peer
from porttrace.lab.site import Site
from porttrace.lab.throttles import rules

_BAD = "porttrace.lab.bad_peers"
_LOSS_PERCENT = 25
FEW_PORTS = "40000 40039"
"""The client's local ports in a story of exhaustion."""

# A sysctl of the namespace that the lab made for the client, and removes again.
_WITH_FEW_PORTS = 'echo "$0" >/proc/sys/net/ipv4/ip_local_port_range && exec "$@"'
# The kernel sends a SYN once more and then gives up: after 3 s, or 2 s with linear timeouts.
_WITH_ONE_RETRY = 'echo 1 >/proc/sys/net/ipv4/tcp_syn_retries && exec "$0" "$@"'
# ip netns exec gives the command mounts of its own, so this hides the file from it alone.
_WITH_RESOLVER = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


@contextmanager
def late_names(site: Site) -> Iterator[list[str]]:
    """Have names answered late, by the lab's own name server and no other."""
    with Peer(site.hosts, _BAD, "resolver", "--delay", "0.4"), _file() as path:
        path.write_text(f"nameserver {SERVER_V4}\noptions timeout:5 attempts:2\n")
        yield ["sh", "-c", _WITH_RESOLVER, str(path)]


@contextmanager
def full_queue(site: Site) -> Iterator[list[str]]:
    """Have a server that accepts too late: its queue is full, and SYNs to it are dropped."""
    with Peer(site.hosts, _BAD, "full-queue", "--delay", "0.3"):
        yield []


@contextmanager
def short_queue(site: Site) -> Iterator[list[str]]:
    """Have a slow server whose accept queue has a limit of three."""
    with Peer(site.hosts, _BAD, "full-queue", "--delay", "0.3", "--backlog", "3"):
        yield []


@contextmanager
def few_ports(_site: Site) -> Iterator[list[str]]:
    """Leave the client's host no more than 40 local ports."""
    yield ["sh", "-c", _WITH_FEW_PORTS, FEW_PORTS]


@contextmanager
def full_tracking(site: Site) -> Iterator[list[str]]:
    """Track the client's connections in a table that has no room until some found none."""
    with (
        rules.filtered(site.hosts.client, "output", "ct state new counter accept"),
        Peer(site.hosts, "porttrace.lab.tracking", beside=True),
    ):
        yield []


@contextmanager
def one_retry(_site: Site) -> Iterator[list[str]]:
    """Have the client's kernel give up a SYN that nobody answers after few seconds."""
    yield ["sh", "-c", _WITH_ONE_RETRY]


@contextmanager
def restarts(site: Site) -> Iterator[list[str]]:
    """Have a server that is away for a second, again and again."""
    with Peer(site.hosts, _BAD, "restarting"):
        yield []


@contextmanager
def loss(site: Site) -> Iterator[list[str]]:
    """Lose some SYNs by chance on their way, right before the server."""
    drop = f"{rules.SYN_ONLY} numgen random mod 100 < {_LOSS_PERCENT} counter drop"
    with rules.filtered(site.hosts.server, "input", drop):
        yield []


@contextmanager
def strace(_site: Site) -> Iterator[list[str]]:
    """Have strace stop the program at each of its system calls."""
    yield ["strace", "-f", "-qq", "-o", "/dev/null"]


@contextmanager
def nothing(_site: Site) -> Iterator[list[str]]:
    """Leave the site as it is."""
    yield []


@contextmanager
def _file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="porttrace-lab-") as folder:
        yield Path(folder) / "resolv.conf"


Surroundings = Callable[[Site], AbstractContextManager[list[str]]]
