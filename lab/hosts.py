"""Two hosts on one machine: network namespaces `client` and `server`, joined by a veth pair.

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
from types import TracebackType

from porttrace.lab.errors import LabError

CLIENT_V4, CLIENT_V6 = "192.0.2.1", "2001:db8::1"
SERVER_V4, SERVER_V6 = "192.0.2.2", "2001:db8::2"
BLACKHOLE_V4, BLACKHOLE_V6 = "192.0.2.66", "2001:db8::66"

_NOBODYS_MAC = "02:00:00:00:00:66"
_DEVICE = "veth0"
_NETNS_FOLDER = Path("/run/netns")
_NAME = re.compile(r"porttrace-(\d+)-(\d+)-(client|server)\d*")


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

    def __init__(self) -> None:
        self.client = ""
        self.server = ""

    def __enter__(self) -> Hosts:
        _require_root()
        clean_leftovers()
        owner = Owner.this_process()
        self.client = owner.name("client")
        self.server = owner.name("server")
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def in_client(self, command: list[str]) -> list[str]:
        """Return the argv that runs `command` on the client host."""
        return ["ip", "netns", "exec", self.client, *command]

    def in_server(self, command: list[str]) -> list[str]:
        """Return the argv that runs `command` on the server host."""
        return ["ip", "netns", "exec", self.server, *command]

    def _build(self) -> None:
        for name in (self.client, self.server):
            _ip("netns", "add", name)
        peer = ["peer", "name", _DEVICE, "netns", self.server]
        _ip("link", "add", _DEVICE, "netns", self.client, "type", "veth", *peer)
        _bring_up(self.client, CLIENT_V4, CLIENT_V6)
        _bring_up(self.server, SERVER_V4, SERVER_V6)
        for address in (BLACKHOLE_V4, BLACKHOLE_V6):
            # Permanent: without it the kernel gives up after an unanswered ARP, and sends no SYN.
            neighbour = ["neigh", "add", address, "lladdr", _NOBODYS_MAC, "nud", "permanent"]
            _ip("-n", self.client, *neighbour, "dev", _DEVICE)

    def _remove(self) -> None:
        for name in (self.client, self.server):
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


def _bring_up(name: str, address_v4: str, address_v6: str) -> None:
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "link", "set", _DEVICE, "up")
    _ip("-n", name, "addr", "add", f"{address_v4}/24", "dev", _DEVICE)
    # nodad: duplicate address detection would make the address unusable for its first second.
    _ip("-n", name, "addr", "add", f"{address_v6}/64", "dev", _DEVICE, "nodad")


def _require_root() -> None:
    if os.geteuid() != 0:
        raise LabError(
            "the lab makes network namespaces, which only root may do",
            "run the same command with sudo",
        )


def _ip(*words: str) -> None:
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
