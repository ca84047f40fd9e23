"""porttrace suspects: what on this host can interpose on the connects of a process."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import click

from porttrace.analysis.render.escape import json_line
from porttrace.analysis.render.suspects import census_text
from porttrace.cli.options import Pid
from porttrace.cli.running import check_targets
from porttrace.tracer import cgroups, features, namespaces, processes
from porttrace.tracer.census import Census, Found
from porttrace.tracer.errors import NotPermittedError
from porttrace.tracer.facts import Process
from porttrace.tracer.runtimes import Names
from porttrace.tracer.targets import in_containers

_MOST = 20  # processes of containers


@click.command(name="suspects")
@click.option("-p", "--pid", "pids", multiple=True, type=Pid(), metavar="PID",
              help="This process; may be given several times.")  # fmt: skip
@click.option("--container", "containers", multiple=True, metavar="ID_OR_NAME",
              help="The processes in this container, machine or systemd service.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def suspects(pids: tuple[int, ...], containers: tuple[str, ...], as_json: bool) -> None:
    """Tell what on this host can interpose on the connects of a process.

    Facts by the place where each acts, with where it was read, and last what could not be looked
    at. None is proof, and nothing is changed: a trace shows where connects really stand still.

    \b
    Example:
      sudo porttrace suspects --pid 1234
    """
    if not pids and not containers:
        raise click.UsageError("name a process with --pid, or a container with --container.")
    if os.geteuid() != 0:
        raise NotPermittedError(
            "only root may look into other processes, BPF programs and network namespaces",
            features.sudo_line(),
        )
    namespaces.require_host_pids()
    check_targets(pids)
    census = Census()
    chosen = dict.fromkeys((*pids, *_inside(containers)))
    for number, pid in enumerate(chosen):
        process = processes.read_process(pid, name_of=Names().of)
        found = census.of(process)
        if as_json:
            for line in json_lines(process, found):
                click.echo(line)
        else:
            text = census_text(process, found.suspects, found.not_looked)
            click.echo(("\n" if number else "") + text)


def _inside(containers: Sequence[str]) -> list[int]:
    if not containers:
        return []
    targets = in_containers(containers)
    pids = set(targets.pids or ()).union(*map(cgroups.pids_below, targets.cgroups))
    if len(pids) > _MOST:
        left_out = f"note: {_MOST} of {len(pids)} processes are looked at; --pid names others"
        click.echo(left_out, err=True)
    return sorted(pids)[:_MOST]


def json_lines(process: Process, found: Found) -> Iterator[str]:
    """Yield a census as lines of JSON: suspects, then what was not looked at.

    `target` is the process that was looked at, `pid` the one behind a suspect, 0 for none.
    """
    rows: list[tuple[str, Any]] = [("suspect", each) for each in found.suspects]
    rows += [("not_looked", each) for each in found.not_looked]
    for kind, each in rows:
        yield json_line({"type": kind, "target": process.pid, **vars(each)})
