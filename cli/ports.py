"""porttrace ports: what serves which port here, and what is risky about it; --check for a file."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click


@click.command(name="ports")
@click.option("--check", "check", metavar="FILE", type=click.Path(),
              help="Compare with the ports that services want, a YAML file; exit code 5 when "
              "something is wrong.")  # fmt: skip
@click.option("--strict", is_flag=True,
              help="With --check: what could not be verified is wrong, too.")  # fmt: skip
@click.option("--netns", metavar="NAME|PATH|PID", help="In this network namespace.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def ports(check: str | None, strict: bool, netns: str | None, as_json: bool) -> int:
    """List the ports that are served here, with what is risky about them.

    First what the kernel does with ports: the ephemeral range, reserved and privileged ports.
    Without root whose a socket is does not show for other users' processes.

    \b
    Example:
      sudo porttrace ports
      sudo porttrace ports --check /etc/porttrace/ports.yaml
    """
    from porttrace.tracer.namespaces import netns_path

    if strict and check is None:
        raise click.UsageError("--strict is for --check FILE.")
    path = netns_path(netns) if netns else ""
    if check is not None:
        from porttrace.cli.portcheck import run

        return run(check, path, as_json, strict)
    for line in _json(path) if as_json else _text(path):
        click.echo(line)
    return 0


def _json(netns: str) -> Iterator[str]:
    from porttrace.analysis.port_risks import risks_of
    from porttrace.analysis.render.escape import json_line
    from porttrace.analysis.render.report import finding_json
    from porttrace.tracer.ports.inventory import inventory
    from porttrace.tracer.runtimes import Names

    seen = inventory(netns, Names().of)
    host = seen.settings
    words = {"type": "ports", **asdict(host), "states": dict(seen.states), "taken": seen.use.taken}
    rows: list[dict[str, Any]] = [words]
    for each in seen.holders:
        risks = risks_of(each, seen.holders, host.range, host.reserved, host.unprivileged_from)
        rows.append({"type": "socket", **asdict(each), "risks": list(risks)})
    rows += [{"type": "finding", **finding_json(each)} for each in _found(seen, netns)]
    rows += [{"type": "not_seen", "what": what} for what in _not_seen(seen)]
    yield from map(json_line, rows)


def _text(netns: str) -> Iterator[str]:
    from porttrace.analysis.port_risks import risks_of
    from porttrace.analysis.port_use import in_use
    from porttrace.analysis.render.ports import inventory_lines, settings_lines
    from porttrace.analysis.render.wrap import wrapped
    from porttrace.tracer.netplace import called
    from porttrace.tracer.ports.inventory import inventory
    from porttrace.tracer.runtimes import Names

    seen = inventory(netns, Names().of)
    host = seen.settings
    place = called(host.netns, netns) or str(host.netns)
    yield from settings_lines(place, host.range, host.reserved, host.unprivileged_from,
                              seen.states, in_use(seen.use, _ports_of(host)))  # fmt: skip
    risks = [risks_of(each, seen.holders, host.range, host.reserved, host.unprivileged_from)
             for each in seen.holders]  # fmt: skip
    yield ""
    yield from inventory_lines(seen.holders, risks)
    for each in _found(seen, netns):
        yield ""
        yield from _finding(each)
    for what in _not_seen(seen):
        yield from wrapped(what, "Not seen: ", "  ")


def _found(seen: Any, netns: str) -> list[Any]:
    from porttrace.analysis.findings.fixed_port import fixed_port_at_risk, listening
    from porttrace.analysis.port_use import short_of_ports
    from porttrace.tracer.namespaces import enter_command

    host, within = seen.settings, enter_command(netns)
    short = short_of_ports(seen.use, _ports_of(host), seen.reuse, within)
    return [
        *short,
        *fixed_port_at_risk(listening(seen.holders), host.range, host.reserved, within),
    ]


def _ports_of(host: Any) -> Any:
    from porttrace.analysis.render.ports import clipped_ranges
    from porttrace.analysis.samples import Ports

    (low, high), kept = host.range, clipped_ranges(host.reserved, host.range)
    return Ports(low, high, sum(last - first + 1 for first, last in kept))


def _finding(finding: Any) -> Iterator[str]:
    from porttrace.analysis.render.escape import printable
    from porttrace.analysis.render.wrap import wrapped

    sure = "firm" if finding.confidence > 0.8 else "likely"
    yield f"[{finding.severity.upper()}] {finding.rule}: {sure}"
    yield from wrapped(printable(finding.summary), "  ")
    for advice in finding.advice:
        yield from wrapped(printable(advice), "    - ")


def _not_seen(seen: Any) -> list[str]:
    from porttrace.cli.portlook import hidden

    told = []
    if seen.closed:
        told.append(hidden(seen.closed))
    if not seen.lists_bound:
        told.append("TCP sockets that are bound and idle (Linux 6.8 and newer list them)")
    if seen.left_out:
        told.append(f"{seen.left_out} more sockets: too many for a list")
    return told
