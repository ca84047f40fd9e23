"""Two hosts on one machine: network namespaces `client` and `server`, joined by a veth pair.

With a router there is a third one, `router`, between the two; the addresses stay the same.

Their names carry the process that made them (`porttrace-PID-STARTTIME-client`), so that whatever a
killed run left behind is recognised and removed by the next one, and nothing else is ever touched.
The blackhole address answers nothing: packets to it go out to a MAC address that nobody has.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from porttrace.lab.errors import LabError

CLIENT_V4, CLIENT_V6 = "192.0.2.1", "2001:db8::1"
SERVER_V4, SERVER_V6 = "192.0.2.2", "2001:db8::2"
BLACKHOLE_V4, BLACKHOLE_V6 = "192.0.2.66", "2001:db8::66"

_NOBODYS_MAC = "02:00:00:00:00:66"
_DEVICE = "veth0"
_TO_CLIENT, _TO_SERVER = "veth1", "veth2"
_ROUTER_V4 = "192.0.2.254"
_NETNS_FOLDER = Path("/run/netns")
_NAME = re.compile(r"porttrace-(\d+)-(\d+)-(client|server|router)\d*")


@dataclass(frozen=True)
class Owner:
    """The process that made a pair of hosts; the start time tells it from a later one."""

    pid: int
    start_ticks: int

    @classmethod
    def this_process(cls) -> Owner:
        """Return the owner that stands for the calling process."""
        return cls(os.getpid(), _start_ticks(os.getpid()) or 0)

    def alive(self) -> bool:
        """Tell whether the process still runs (and is not merely a number used again)."""
        return _start_ticks(self.pid) == self.start_ticks

    def name(self, role: str) -> str:
        """Return a name for this owner's namespace for `role`, numbered where one exists."""
        first = f"porttrace-{self.pid}-{self.start_ticks}-{role}"
        taken = namespaces()
        numbered = (f"{first}{number}" for number in range(2, len(taken) + 3))
        return next(name for name in (first, *numbered) if name not in taken)


class Hosts:
    """Context manager: the two hosts exist inside of it, and are removed at its end."""

    def __init__(self, with_router: bool = False) -> None:
        self._with_router = with_router
        self.client = ""
        self.server = ""
        self.router = ""

    def __enter__(self) -> Hosts:
        require_root()
        clean_leftovers()
        owner = Owner.this_process()
        self.client = owner.name("client")
        self.server = owner.name("server")
        # The same number as the client's, so that each is found from the other.
        self.router = self.client.replace("-client", "-router") if self._with_router else ""
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def in_client(self, command: list[str]) -> list[str]:
        """Return the argv that runs `command` on the client host."""
        return ["ip", "netns", "exec", self.client, *command]

    def in_server(self, command: list[str]) -> list[str]:
        """Return the argv that runs `command` on the server host."""
        return ["ip", "netns", "exec", self.server, *command]

    def _build(self) -> None:
        for name in self._names():
            _ip("netns", "add", name)
        if self.router:
            _join(self.client, _DEVICE, self.router, _TO_CLIENT)
            _join(self.server, _DEVICE, self.router, _TO_SERVER)
        else:
            _join(self.client, _DEVICE, self.server, _DEVICE)
        _bring_up(self.client, CLIENT_V4, CLIENT_V6)
        _bring_up(self.server, SERVER_V4, SERVER_V6)
        if self.router:
            self._route()
        else:
            _know(self.client, _DEVICE, _NOBODYS_MAC, BLACKHOLE_V4, BLACKHOLE_V6)

    # Both hosts take the other one for a neighbour: the router's MAC stands in for it.
    def _route(self) -> None:
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            switch_on = ["sh", "-c", f"echo 1 > /proc/sys/net/{path}"]
            _ip("netns", "exec", self.router, *switch_on)
        beyond = (SERVER_V4, SERVER_V6, BLACKHOLE_V4, BLACKHOLE_V6)
        for device, addresses in ((_TO_CLIENT, (CLIENT_V4, CLIENT_V6)), (_TO_SERVER, beyond)):
            _ip("-n", self.router, "link", "set", device, "up")
            for address in addresses:
                _ip("-n", self.router, "route", "add", address, "dev", device)
        _ip("-n", self.router, "addr", "add", f"{_ROUTER_V4}/32", "dev", _TO_CLIENT)
        _know(self.client, _DEVICE, _mac(self.router, _TO_CLIENT), *beyond)
        _know(self.server, _DEVICE, _mac(self.router, _TO_SERVER), CLIENT_V4, CLIENT_V6)
        _know(self.router, _TO_CLIENT, _mac(self.client, _DEVICE), CLIENT_V4, CLIENT_V6)
        _know(self.router, _TO_SERVER, _mac(self.server, _DEVICE), SERVER_V4, SERVER_V6)
        _know(self.router, _TO_SERVER, _NOBODYS_MAC, BLACKHOLE_V4, BLACKHOLE_V6)

    def _names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.client, self.server, self.router) if name)

    def _remove(self) -> None:
        for name in self._names():
            if name in namespaces():
                remove(name)


def namespaces() -> list[str]:
    """List the names of this machine's network namespaces that carry the lab's mark."""
    try:
        names = sorted(entry.name for entry in _NETNS_FOLDER.iterdir())
    except FileNotFoundError:
        return []
    return [name for name in names if _NAME.fullmatch(name)]


def remove(name: str) -> None:
    """Remove a namespace of this process, or one whose owner is dead; refuse any other."""
    owner = _owner_of(name)
    if owner is None or (owner != Owner.this_process() and owner.alive()):
        raise LabError(
            f"the namespace {name!r} was not made by this run of the lab, so it stays",
            f"if nobody needs it: ip netns del {name}",
        )
    _ip("netns", "del", name)


def clean_leftovers() -> list[str]:
    """Remove the namespaces of runs that were killed, and return their names."""
    leftovers = [name for name in namespaces() if _is_leftover(name)]
    for name in leftovers:
        remove(name)
    return leftovers


def _is_leftover(name: str) -> bool:
    owner = _owner_of(name)
    return owner is not None and not owner.alive()


def _owner_of(name: str) -> Owner | None:
    match = _NAME.fullmatch(name)
    return Owner(int(match[1]), int(match[2])) if match else None


# Field 22 of /proc/PID/stat, counted behind the command name, which may contain anything.
def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def _join(first: str, first_device: str, second: str, second_device: str) -> None:
    peer = ["peer", "name", second_device, "netns", second]
    _ip("link", "add", first_device, "netns", first, "type", "veth", *peer)


# Permanent: without it the kernel gives up after an unanswered ARP, and sends no SYN.
def _know(name: str, device: str, mac: str, *addresses: str) -> None:
    for address in addresses:
        neighbour = ["neigh", "add", address, "lladdr", mac, "nud", "permanent"]
        _ip("-n", name, *neighbour, "dev", device)


def _mac(name: str, device: str) -> str:
    shown = _ip("-n", name, "-o", "link", "show", "dev", device)
    return shown.split("link/ether ", 1)[1].split(None, 1)[0]


def _bring_up(name: str, address_v4: str, address_v6: str) -> None:
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "link", "set", _DEVICE, "up")
    _ip("-n", name, "addr", "add", f"{address_v4}/24", "dev", _DEVICE)
    # nodad: duplicate address detection would make the address unusable for its first second.
    _ip("-n", name, "addr", "add", f"{address_v6}/64", "dev", _DEVICE, "nodad")


def require_root() -> None:
    """Raise LabError where namespaces cannot be made: by anybody but root."""
    if os.geteuid() != 0:
        raise LabError(
            "the lab makes network namespaces, which only root may do",
            "run the same command with sudo",
        )


def _ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError(
            "the lab needs the command ip, which is not installed", "apt-get install iproute2"
        ) from error
    if done.returncode != 0:
        raise LabError(
            f"ip {' '.join(words)} failed: {done.stderr.strip()}",
            "the lab needs CAP_SYS_ADMIN and CAP_NET_ADMIN and a kernel with veth",
        )
    return done.stdout
