"""`porttrace ports --check FILE`: each port that is wanted, fine or with its problems."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import click

from porttrace.analysis.may_bind import Here
from porttrace.analysis.port_check import Problem, Standing, Wanted, check, describe, is_served
from porttrace.analysis.port_ranges import reserve_command
from porttrace.analysis.render.escape import json_line, printable
from porttrace.analysis.render.wrap import wrapped
from porttrace.cli.portlook import claims
from porttrace.cli.wanted import read_wanted
from porttrace.tracer.facts import Holder
from porttrace.tracer.namespaces import in_netns
from porttrace.tracer.ports.addresses import is_local
from porttrace.tracer.ports.kubernetes import node_ports
from porttrace.tracer.ports.lookup import NameOf, holders_of, see
from porttrace.tracer.runtimes import Names

_WRONG = 5  # exit code


@dataclass(frozen=True)
class Checked:
    """A wanted port with what was found."""

    wanted: Wanted
    problems: tuple[Problem, ...]
    holders: tuple[Holder, ...]
    reserved: tuple[tuple[int, int], ...]


def run(path: str, netns: str, as_json: bool) -> int:
    """Check the file at `path` and print the result; return the exit code.

    Raises BadFile and PorttraceError.
    """
    wanted = read_wanted(path)
    checked = check_all(wanted, netns, Names().of)
    if as_json:
        for each in checked:
            click.echo(json_line(values(each)))
    else:
        click.echo("\n".join(text(checked)))
    return _WRONG if any(each.problems for each in checked) else 0


def check_all(wanted: Sequence[Wanted], netns: str, name_of: NameOf | None) -> list[Checked]:
    """Return each wanted port with its problems, in the order of the file."""
    nodes = node_ports()
    return [_checked(each, wanted[:i], netns, nodes, name_of) for i, each in enumerate(wanted)]


def _checked(
    wanted: Wanted,
    others: Sequence[Wanted],
    netns: str,
    nodes: tuple[int, int] | None,
    name_of: NameOf | None,
) -> Checked:
    seen = see(wanted.protocol, wanted.address, wanted.port, netns, v6only=wanted.v6only)
    host, holders = seen.settings, holders_of(seen, name_of)
    local = in_netns(netns, lambda: is_local(wanted.address))
    allowed = host.nonlocal_v6 if ":" in wanted.address else host.nonlocal_v4
    capable = wanted.capable or wanted.uid <= 0
    here = Here(host.unprivileged_from, capable, local, allowed)
    standing = Standing(holders, claims(seen), here, host.range, host.reserved, nodes)
    return Checked(wanted, tuple(check(wanted, others, standing)), holders, host.reserved)


def values(each: Checked) -> dict[str, object]:
    """Return one result as values for JSON."""
    return {
        "type": "wanted",
        **asdict(each.wanted),
        "ok": not each.problems,
        "problems": [asdict(problem) for problem in each.problems],
        "holders": [asdict(holder) for holder in each.holders],
    }


def text(checked: Sequence[Checked]) -> list[str]:
    """Return the results as lines of at most 80 columns."""
    lines = [line for each in checked for line in _lines(each)]
    wrong = [each for each in checked if each.problems]
    ports = [
        each.wanted.port for each in wrong if any(p.kind == "ephemeral" for p in each.problems)
    ]
    if len(ports) > 1:
        lines += wrapped(reserve_command(ports, wrong[0].reserved), "Reserve all at once: ", "  ")
    count = f"{len(wrong)} of {len(checked)} wanted ports have problems."
    return [*lines, count if wrong else f"All {len(checked)} wanted ports are fine."]


def _lines(each: Checked) -> list[str]:
    wanted = each.wanted
    local = f"[{wanted.address}]" if ":" in wanted.address else wanted.address
    name = f"{wanted.name}, " if wanted.name else ""
    owner = f" for {wanted.owner}" if wanted.owner else ""
    served = is_served(wanted, each.holders)
    state = f"served by {describe(served)}" if served else "not served now"
    said = f"{name}{local}:{wanted.port}/{wanted.protocol}{owner} (line {wanted.line}): {state}"
    lines = wrapped(printable(said), "ok    " if not each.problems else "WRONG ", " " * 6)
    for problem in each.problems:
        what = f"{problem.kind}: {problem.what}"
        lines += wrapped(printable(what), "      - ", " " * 8)
        lines += wrapped(printable(problem.advice), "        > ", " " * 10)
    return lines
