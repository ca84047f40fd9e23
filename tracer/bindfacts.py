"""What one look finds out about a bind(2) or listen(2) that failed: who has the port, and why.

Facts, by name, as they stand in `Looked.facts`; those of no meaning for the errno are left out:

    range_first, range_last   net.ipv4.ip_local_port_range of its network namespace
    taken                     how many ports of that range were taken for the address
    takers                    by whom most of them, in words
    reserved                  net.ipv4.ip_local_reserved_ports there, as the kernel writes it
    unprivileged_from         net.ipv4.ip_unprivileged_port_start there
    may_bind_low              1: the process has CAP_NET_BIND_SERVICE, 0: it has not
    nonlocal_bind             1: net.ipv4.ip_nonlocal_bind there, or that of ipv6
    address_is_local          1: the address is one of that namespace's own
    exe                       the program, as setcap takes it
    holder_exe                the program of the first holder
    holder_cmdline            its command line
    netns                     the number of that namespace
    own_netns                 1: that namespace is the tracer's own, 0: it is another
    netns_name                what `ip netns` calls it
    netns_pid                 a process in it other than the caller, the oldest
    netns_by                  "unknown": nobody knows which it was, and nobody was looked for
                              (older traces: "cgroup", "own"), "closed": nobody is in it any more
"""

import contextlib
import errno
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from porttrace.tracer import processes
from porttrace.tracer.containers import Container
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.facts import Holder
from porttrace.tracer.namespaces import in_netns
from porttrace.tracer.netplace import way_in, words
from porttrace.tracer.ports import EVERYTHING, Look, holders
from porttrace.tracer.ports.settings import Settings, port_text, settings
from porttrace.tracer.ports.taken import taken

_CAP_NET_BIND_SERVICE = 10
_CAP_EFF = re.compile(r"^CapEff:\s*([0-9a-f]+)$", re.M)
Facts = dict[str, int | str]
# For a trace: what takes long is for those who ask one question only.
QUICK = Look(strays=False)
_UNKNOWN = (
    "who holds the port could not be looked up: before its network namespace could be read the "
    "process was gone, or in another one; the kernel did not tell it (for that it needs BTF)"
)
_CLOSED = (
    "who holds the port could not be looked up: the network namespace of the process was gone "
    "before anybody could look"
)


@dataclass(frozen=True)
class Failure:
    """One call as it is looked into. `errno` is positive, `address` as text.

    With errno 0 it worked, and may share its port with others.
    """

    pid: int
    protocol: str
    address: str
    port: int
    errno: int
    v6only: bool = False
    reuseport: bool = False
    netns: int = 0  # its network namespace, 0 not known: never guessed


def look_into(
    failure: Failure,
    thorough: bool = True,
    name_of: Callable[[Container], str] | None = None,
) -> tuple[tuple[Holder, ...], Facts]:
    """Return who holds the port, and the facts that decide. Never raises for what is gone."""
    number, facts = failure.netns, _of_process(failure)
    if not number:
        return _nowhere(failure, _UNKNOWN), facts | {"netns_by": "unknown"}
    with way_in(number, failure.pid) as path:
        if path is None:
            return _nowhere(failure, _CLOSED), facts | {"netns_by": "closed"}
        facts |= {"netns": number, "own_netns": int(not path)}
        if path:
            facts |= words(number, failure.pid)
        with contextlib.suppress(PorttraceError):
            facts |= in_netns(path, lambda: _settings(failure))
            if thorough and failure.errno == errno.EADDRINUSE and not failure.port:
                facts |= in_netns(path, lambda: _range(failure, facts))
        found = _holders(failure, path, thorough, name_of)
        return found, facts | _of_holder(found)


def _of_holder(found: tuple[Holder, ...]) -> Facts:
    pid = found[0].pid if found else 0
    process = processes.read_process(pid) if pid else None
    if process is None or not process.exe:
        return {}
    return {"holder_exe": process.exe, "holder_cmdline": process.cmdline}


def _nowhere(failure: Failure, why: str) -> tuple[Holder, ...]:
    if not _wants_holders(failure):
        return ()
    return (Holder("unknown", failure.protocol, failure.address, failure.port, why=why),)


def _wants_holders(failure: Failure) -> bool:
    return failure.errno in (0, errno.EADDRINUSE) and bool(failure.port)


def _holders(
    failure: Failure, path: str, thorough: bool, name_of: Callable[[Container], str] | None
) -> tuple[Holder, ...]:
    if not _wants_holders(failure):
        return ()
    look = partial(
        holders,
        failure.protocol or "tcp",
        failure.address,
        failure.port,
        path,
        v6only=failure.v6only,
        # Options of the others matter only to who wants to share: to read them copies descriptors.
        look=replace(EVERYTHING if thorough else QUICK, options=failure.reuseport),
        name_of=name_of,
    )
    found = look()
    # A process that ends while we look leaves its socket for a moment without one.
    return look() if any(each.kind == "kernel" for each in found) else found


def _settings(failure: Failure) -> Facts:
    said = settings()
    facts: Facts = {"range_first": said.range[0], "range_last": said.range[1]}
    if said.reserved:
        facts["reserved"] = port_text(said.reserved)
    if failure.errno in (errno.EACCES, errno.EPERM):
        facts["unprivileged_from"] = said.unprivileged_from
    if failure.errno == errno.EADDRNOTAVAIL:
        facts |= _of_address(failure.address, said)
    return facts


def _range(failure: Failure, facts: Facts) -> Facts:
    first, last = int(facts["range_first"]), int(facts["range_last"])
    protocol = failure.protocol or "tcp"
    number, takers = taken(protocol, failure.address, first, last, failure.v6only)
    return {"taken": number, "takers": takers}


def _of_address(address: str, said: Settings) -> Facts:
    six = ":" in address
    facts: Facts = {"nonlocal_bind": int(said.nonlocal_v6 if six else said.nonlocal_v4)}
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind((address, 0))
            facts["address_is_local"] = 1
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                facts["address_is_local"] = 0
    return facts


def _of_process(failure: Failure) -> Facts:
    if failure.errno not in (errno.EACCES, errno.EPERM):
        return {}
    facts: Facts = {}
    with contextlib.suppress(OSError):
        found = _CAP_EFF.search(Path(f"/proc/{failure.pid}/status").read_text(errors="replace"))
        if found:
            facts["may_bind_low"] = int(found[1], 16) >> _CAP_NET_BIND_SERVICE & 1
        facts["exe"] = os.readlink(f"/proc/{failure.pid}/exe")
    return facts
