"""Options that several commands share, spelt the same everywhere, and their types."""

import ipaddress
import os
import pwd
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from porttrace.tracer.hooks import MODES
from porttrace.tracer.options import AF_INET, AF_INET6, BINDS, TraceOptions
from porttrace.tracer.targets import Targets, choose
from porttrace.tracer.words import endpoint

_F = TypeVar("_F", bound=Callable[..., Any])
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

_NO_UID = 2**32 - 1  # (uid_t)-1
MAX_CGROUPS = 16  # places in wanted_cgroups of bpf/maps.h

RECORDING = click.Path(allow_dash=True, readable=False)
"""A recording to be read. One that cannot be read fails as one that is not there: exit code 1."""


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A length of time: 30, 30s, 1.5m, 500ms, 2h. Seconds as a float."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value))
        if not match or match[2] not in _UNITS or float(match[1]) == 0:
            self.fail(f"{value!r} is no length of time; write 30, 30s, 1.5m or 500ms", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


class Pid(click.ParamType):  # type: ignore[type-arg]
    """A process's number, as ps shows it. An int."""

    name = "pid"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        text = str(value)
        if not (text.isdecimal() and len(text) < 10 and int(text) > 0):
            self.fail(f"{value!r} is no process's number; pgrep NAME shows them", param, ctx)
        return int(text)


class Ports(click.ParamType):  # type: ignore[type-arg]
    """Ports with commas: 80,443. A frozenset of ints."""

    name = "ports"

    def convert(self, value: Any, param: Any, ctx: Any) -> frozenset[int]:
        words = str(value).split(",")
        if not all(word.isdecimal() and len(word) < 6 and 0 < int(word) < 65536 for word in words):
            self.fail(f"{value!r} is no list of ports; write 80 or 80,443", param, ctx)
        return frozenset(map(int, words))


class Address(click.ParamType[str]):
    """An address, or one with a port, as reports write it: 192.0.2.2, [2001:db8::1]:389.

    The text as the tables have it: an address by itself has no brackets.
    """

    name = "address"
    with_port = False  # whether the port may not be left out
    example = "192.0.2.2 or 192.0.2.2:389"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        text = str(value)
        alone = _ip(text.removeprefix("[").removesuffix("]"))
        if alone and not self.with_port:
            return str(alone)
        host, colon, port = text.rpartition(":")
        ip = _ip(host.removeprefix("[").removesuffix("]"))
        if ip is None or not colon:
            named = re.fullmatch(r"[\w.-]*[A-Za-z][\w.-]*(:\d+)?", text)
            why = "; names are not looked up" if named else ""
            self.fail(f"{value!r} is no address{why}: write {self.example}", param, ctx)
        if not (port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
            self.fail(f"{value!r} has no port; write {self.example}", param, ctx)
        return endpoint(str(ip), int(port))


class Endpoint(Address):
    """An address with a port: 192.0.2.2:389 or [2001:db8::1]:389."""

    name = "address:port"
    with_port = True

    def __init__(self, example: str = "192.0.2.2:389") -> None:
        self.example = example


def _ip(text: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class Comm(click.ParamType[str]):
    """A thread's name as the kernel keeps it: 1 to 15 bytes."""

    name = "name"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        raw = os.fsencode(str(value))
        if not raw:
            self.fail("a name is needed, as in --comm nginx", param, ctx)
        if len(raw) > 15:
            short = os.fsdecode(raw[:15])
            self.fail(f"the kernel keeps 15 characters of a name: write {short!r}", param, ctx)
        return str(value)


class User(click.ParamType):  # type: ignore[type-arg]
    """A user by name or number. The number."""

    name = "user"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        text = str(value)
        try:
            uid = int(text) if text.isdecimal() else pwd.getpwnam(text).pw_uid
        except (KeyError, ValueError):
            uid = _NO_UID
        if uid >= _NO_UID:
            self.fail(f"there is no user {value!r} on this host", param, ctx)
        return uid


def filters(command: _F) -> _F:
    """Add the filters of a trace; the command gets them as keyword arguments."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


mode_option = click.option(
    "--mode",
    type=click.Choice(MODES),
    help="Hook the kernel in this way only; default: the best that works.",
)
"""How to hook the kernel: a keyword argument `mode`, None for the best."""

wire_option = click.option(
    "--wire/--no-wire",
    default=True,
    help="See SYNs and their answers on the wire (every packet passes a small filter).",
)
"""Whether to watch the wire: a keyword argument `wire`."""

keep_root_option = click.option(
    "--keep-root", is_flag=True, help="Keep all rights while tracing (docs/security.md)."
)
"""Whether to drop nothing once attached: a keyword argument `keep_root`."""

binds_option = click.option(
    "--binds",
    type=click.Choice(BINDS),
    help="Which binds and listens: all; fixed (without clients that take any port); failed; none.",
)
"""Of which calls of bind(2) to tell: a keyword argument `binds`, None for the default."""

_FILTERS = (
    click.option("-p", "--pid", "pids", multiple=True, type=Pid(), metavar="PID",
                 help="This process; may be given several times."),
    click.option("--children/--no-children", default=None,
                 help="Follow children too; default for -- COMMAND."),
    click.option("--comm", "comms", multiple=True, type=Comm(), metavar="NAME",
                 help="Threads of this name (15 characters, as the kernel has it)."),
    click.option("-u", "--uid", "uids", multiple=True, type=User(), help="Processes of this user."),
    click.option("-P", "--port", "remote_ports", type=Ports(), help="To these remote ports."),
    click.option("-L", "--local-port", "local_ports", type=Ports(),
                 help="From these local ports (known only when an attempt ends, unless bound)."),
    click.option("-4", "--ipv4", "ipv4", is_flag=True, help="IPv4 only, also in IPv6 sockets."),
    click.option("-6", "--ipv6", "ipv6", is_flag=True, help="IPv6 only."),
    mode_option,
    wire_option,
    binds_option,
    click.option("--no-binds", is_flag=True, help="No binds: as --binds none."),
    click.option("--cgroup", "cgroups", multiple=True, metavar="PATH",
                 help="Processes in this cgroup v2 directory or below."),
    click.option("--container", "containers", multiple=True, metavar="ID_OR_NAME",
                 help="Processes in this container, machine or systemd service."),
    click.option("--netns", "netns", multiple=True, metavar="NAME|PATH|PID",
                 help="Processes in this network namespace now, and their children."),
)  # fmt: skip


def trace_options(
    *,
    pids: tuple[int, ...],
    children: bool | None,
    comms: tuple[str, ...],
    uids: tuple[int, ...],
    remote_ports: frozenset[int] | None,
    local_ports: frozenset[int] | None,
    ipv4: bool,
    ipv6: bool,
    cgroups: tuple[str, ...],
    mode: str | None,
    wire: bool = True,
    binds: str | None = None,
    no_binds: bool = False,
    containers: tuple[str, ...] = (),
    netns: tuple[str, ...] = (),
    command_pid: int = 0,
) -> TraceOptions:
    """Turn the filter options into what the tracer takes.

    Raises click.UsageError, and TargetError when a container or namespace is not there.
    """
    if no_binds and binds not in (None, "none"):
        raise click.UsageError("--binds and --no-binds exclude each other.")
    if ipv4 and ipv6:
        raise click.UsageError("-4 and -6 exclude each other; leave both out to trace both.")
    if children and not (pids or command_pid or containers or netns):
        raise click.UsageError("--children follows those of a process: name it with --pid.")
    targets = frozenset(pids) | ({command_pid} if command_pid else frozenset())
    options = TraceOptions(
        pids=targets,
        follow_children=bool(command_pid) if children is None else children,
        comms=frozenset(comms),
        uids=frozenset(uids),
        remote_ports=remote_ports or frozenset(),
        local_ports=local_ports or frozenset(),
        family=AF_INET if ipv4 else AF_INET6 if ipv6 else 0,
        cgroups=cgroups,
        mode=mode or "",
        wire=wire,
        binds="none" if no_binds else binds or "all",
    )
    if not containers and not netns:
        return options
    if command_pid or (containers and cgroups):
        raise click.UsageError(_AMBIGUOUS["command" if command_pid else "cgroups"])
    return _narrowed(options, children, choose(pids, containers, netns))


_AMBIGUOUS = {
    "command": "--container and --netns choose among processes that run already: leave them out "
               "to trace a command.",
    "cgroups": "--cgroup and --container both choose control groups: use one of them.",
}  # fmt: skip


def _narrowed(options: TraceOptions, children: bool | None, found: Targets) -> TraceOptions:
    if len(found.cgroups) > MAX_CGROUPS:
        raise click.UsageError(f"at most {MAX_CGROUPS} containers can be traced at once.")
    # Who are chosen for where they are, and not by number, bring their children with them.
    by_place = found.pids is not None and not options.pids
    return replace(
        options,
        pids=found.pids or frozenset(),
        follow_children=by_place if children is None else children,
        cgroups=found.cgroups or options.cgroups,
        pids_called=found.pids_called,
        cgroups_called=found.cgroups_called,
        netns=found.netns,
        notes=found.notes,
    )
