"""porttrace port: who has a port, what this host says of it, and whether a bind would work."""

import os
from dataclasses import asdict
from typing import Any

import click

from porttrace.cli.iptext import ip_text
from porttrace.cli.options import User

_PROTOCOLS = ("tcp", "udp")


class Address(click.ParamType):  # type: ignore[type-arg]
    """An IP address, as text."""

    name = "address"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Return the address; names are none: which of their addresses was meant?"""
        import ipaddress

        try:
            return ip_text(ipaddress.ip_address(str(value)))
        except ValueError:
            self.fail(f"{value!r} is no IP address; write 127.0.0.1 or ::", param, ctx)


class PortWord(click.ParamType):  # type: ignore[type-arg]
    """A port, alone or as findings write it: 80, 80/tcp, 53/udp. A number and a protocol or ""."""

    name = "port"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, str]:
        """Return number and protocol."""
        number, slash, protocol = str(value).partition("/")
        right = number.isdecimal() and number.isascii() and len(number) < 6
        if not right or not 0 < int(number) < 65536 or (slash and protocol not in _PROTOCOLS):
            self.fail(
                f"{value!r} is no port from 1 to 65535; write 80, 80/tcp or 53/udp", param, ctx
            )
        return int(number), protocol


@click.command(name="port")
@click.argument("ports", nargs=-1, required=True, type=PortWord(), metavar="N[/tcp|/udp]…")
@click.option("--udp", "protocol", flag_value="udp", help="UDP only.")
@click.option("--tcp", "protocol", flag_value="tcp", help="TCP only.")
@click.option("-u", "--user", "uid", type=User(), help="A bind of this user; default: you.")
@click.option("--address", type=Address(), default="0.0.0.0", show_default=True,
              help="A bind to this address of the host.")  # fmt: skip
@click.option("--reuseaddr", is_flag=True, help="A bind with SO_REUSEADDR.")
@click.option("--reuseport", is_flag=True, help="A bind with SO_REUSEPORT.")
@click.option("--v6only", is_flag=True, help="A bind with IPV6_V6ONLY.")
@click.option("--try-bind", is_flag=True, help="Do that bind for real, and close it at once.")
@click.option("--listen", is_flag=True,
              help="Listen in the trial, too: who connects in that moment is reset.")  # fmt: skip
@click.option("--netns", metavar="NAME|PATH|PID", help="In this network namespace.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def port(
    ports: tuple[tuple[int, str], ...],
    protocol: str | None,
    uid: int | None,
    address: str,
    reuseaddr: bool,
    reuseport: bool,
    v6only: bool,
    try_bind: bool,
    listen: bool,
    netns: str | None,
    as_json: bool,
) -> None:
    """Tell who has a port, and whether a bind to it would work.

    Also why nobody is shown: time left in TIME_WAIT, bound and idle, another network namespace, a
    socket of the kernel. Without root it tells what it could not see. UDP is told of where
    somebody has the port.

    \b
    Example:
      sudo porttrace port 8080
      sudo porttrace port 443 --user www-data --address :: --try-bind
    """
    from porttrace.analysis.render.escape import json_line
    from porttrace.analysis.render.ports import port_text
    from porttrace.cli.portlook import Wish, look_at
    from porttrace.tracer.namespaces import netns_path
    from porttrace.tracer.runtimes import Names

    if listen and not try_bind:
        raise click.UsageError("--listen is for the trial: say --try-bind, too.")
    wish = Wish(address, os.geteuid() if uid is None else uid, reuseaddr, reuseport, v6only,
                netns_path(netns) if netns else "", listen)  # fmt: skip
    name_of = Names().of
    printed = False
    for number, named in dict.fromkeys(ports):
        if protocol and named not in ("", protocol):
            raise click.UsageError(f"--{protocol} and {number}/{named} exclude each other.")
        only = named or protocol
        for each in (only,) if only else ("tcp", "udp"):
            view = look_at(each, number, wish, try_bind, name_of)
            if as_json:
                click.echo(json_line(values(view)))
            elif only or each == "tcp" or view.holders or view.beside:
                click.echo(("\n" if printed else "") + port_text(view))
                printed = True


def values(view: Any) -> dict[str, Any]:
    """Return what is told of a port as values for JSON; docs/json.md has its keys."""
    from porttrace.analysis.render.ports import called, class_of

    def verdict(of: Any) -> dict[str, Any] | None:
        names = [called(number) for number in sorted(of.errnos)] if of else []
        return {"works": of.works, "outcomes": names, "why": of.why} if of else None

    tried = view.tried
    return {
        "type": "port",
        "port": view.port,
        "protocol": view.protocol,
        "netns": view.netns,
        "service": view.service,
        "class": class_of(view.port),
        "range": list(view.ephemeral),
        "ephemeral": view.ephemeral[0] <= view.port <= view.ephemeral[1],
        "reserved": view.is_reserved,
        "privileged": view.port < view.unprivileged_from,
        "holders": [asdict(each) for each in view.holders],
        "in_the_way": list(view.in_the_way),
        "to_do": list(view.to_do),
        "elsewhere": [asdict(each) for each in view.beside],
        "asked": {"user": view.user, **asdict(view.asked)},
        "bind": verdict(view.bind),
        "listen": verdict(view.listen),
        "tried": tried and {"failed": tried[0], "outcome": called(tried[1])},
        "not_seen": list(view.not_seen),
    }
