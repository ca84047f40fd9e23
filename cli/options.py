"""Options that several commands share, spelt the same everywhere, and their types."""

import os
import pwd
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from porttrace.tracer.options import AF_INET, AF_INET6, TraceOptions

_F = TypeVar("_F", bound=Callable[..., Any])
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

_NO_UID = 2**32 - 1  # (uid_t)-1


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A length of time: 30, 30s, 1.5m, 500ms, 2h. Seconds as a float."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value))
        if not match or match[2] not in _UNITS or float(match[1]) == 0:
            self.fail(f"{value!r} is no length of time; write 30, 30s, 1.5m or 500ms", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


class Ports(click.ParamType):  # type: ignore[type-arg]
    """Ports with commas: 80,443. A frozenset of ints."""

    name = "ports"

    def convert(self, value: Any, param: Any, ctx: Any) -> frozenset[int]:
        words = str(value).split(",")
        if not all(word.isdecimal() and len(word) < 6 and 0 < int(word) < 65536 for word in words):
            self.fail(f"{value!r} is no list of ports; write 80 or 80,443", param, ctx)
        return frozenset(map(int, words))


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


_FILTERS = (
    click.option("-p", "--pid", "pids", multiple=True, type=click.IntRange(1),
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
    click.option("--cgroup", "cgroups", multiple=True, metavar="PATH",
                 help="Processes in this cgroup v2 directory or below."),
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
    command_pid: int = 0,
) -> TraceOptions:
    """Turn the filter options into what the tracer takes. Raises click.UsageError."""
    if ipv4 and ipv6:
        raise click.UsageError("-4 and -6 exclude each other; leave both out to trace both.")
    if children and not pids and not command_pid:
        raise click.UsageError("--children follows those of a process: name it with --pid.")
    targets = frozenset(pids) | ({command_pid} if command_pid else frozenset())
    return TraceOptions(
        pids=targets,
        follow_children=bool(command_pid) if children is None else children,
        comms=frozenset(comms),
        uids=frozenset(uids),
        remote_ports=remote_ports or frozenset(),
        local_ports=local_ports or frozenset(),
        family=AF_INET if ipv4 else AF_INET6 if ipv6 else 0,
        cgroups=cgroups,
    )
