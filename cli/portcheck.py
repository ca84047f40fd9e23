"""`porttrace ports --check FILE`: each port that is wanted, fine or with its problems."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import click

from porttrace.analysis.may_bind import Here
from porttrace.analysis.port_check import (
    Problem,
    Standing,
    Wanted,
    asks_for_options,
    check,
    describe,
    doubts,
    is_served,
    unserved_state,
)
from porttrace.analysis.port_ranges import reserve_command
from porttrace.analysis.render.escape import json_line, printable
from porttrace.analysis.render.wrap import wrapped
from porttrace.cli.portlook import claims
from porttrace.cli.wanted import read_wanted
from porttrace.tracer.facts import Holder
from porttrace.tracer.namespaces import enter_command, in_netns
from porttrace.tracer.ports.addresses import is_local
from porttrace.tracer.ports.holding import Seen
from porttrace.tracer.ports.kubernetes import node_ports
from porttrace.tracer.ports.lookup import Look, NameOf, holders_of, see
from porttrace.tracer.runtimes import Names
from porttrace.tracer.words import endpoint

_WRONG = 5  # exit code


@dataclass(frozen=True)
class Checked:
    """A wanted port with what was found."""

    wanted: Wanted
    problems: tuple[Problem, ...]
    not_verified: tuple[Problem, ...]
    holders: tuple[Holder, ...]
    reserved: tuple[tuple[int, int], ...]


def run(path: str, netns: str, as_json: bool, strict: bool = False) -> int:
    """Check the file at `path` and print the result; return the exit code.

    What could not be verified is wrong when `strict`, else a note. Raises BadFile and
    PorttraceError.
    """
    wanted = read_wanted(path)
    checked = check_all(wanted, netns, Names().of)
    if as_json:
        for each in checked:
            click.echo(json_line(values(each)))
    else:
        click.echo("\n".join(text(checked, enter_command(netns))))
    unsure = sum(map(is_unsure, checked))
    if unsure and not strict:
        click.echo(
            f"note: {unsure} of {len(checked)} wanted ports could not be verified; --strict makes "
            "that exit code 5",
            err=True,
        )
    wrong = any(each.problems for each in checked) or (strict and unsure)
    return _WRONG if wrong else 0


def is_unsure(each: Checked) -> bool:
    """Return whether nothing is wrong with a port, but not all could be verified."""
    return bool(each.not_verified) and not each.problems


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
    seen, holders = _look(wanted, netns, name_of)
    host = seen.settings
    local = in_netns(netns, lambda: is_local(wanted.address))
    allowed = host.nonlocal_v6 if ":" in wanted.address else host.nonlocal_v4
    capable = wanted.capable or wanted.uid <= 0
    here = Here(host.unprivileged_from, capable, local, allowed)
    standing = Standing(holders, claims(seen), here, host.range, host.reserved, nodes,
                        enter_command(netns))  # fmt: skip
    problems, unsure = check(wanted, others, standing), doubts(wanted, standing)
    return Checked(wanted, tuple(problems), tuple(unsure), holders, host.reserved)


def _look(wanted: Wanted, netns: str, name_of: NameOf | None) -> tuple[Seen, tuple[Holder, ...]]:
    # Reading options copies descriptors for a moment; a service that runs is left alone.
    seen = see(wanted.protocol, wanted.address, wanted.port, netns, v6only=wanted.v6only)
    told = holders_of(seen, name_of)
    if not told or not asks_for_options(wanted, told):
        return seen, told
    seen = see(wanted.protocol, wanted.address, wanted.port, netns, v6only=wanted.v6only,
               how=Look(options=True))  # fmt: skip
    return seen, holders_of(seen, name_of)


def values(each: Checked) -> dict[str, object]:
    """Return one result as values for JSON."""
    return {
        "type": "wanted",
        **asdict(each.wanted),
        "ok": None if is_unsure(each) else not each.problems,
        "problems": [asdict(problem) for problem in each.problems],
        "not_verified": [asdict(problem) for problem in each.not_verified],
        "holders": [asdict(holder) for holder in each.holders],
    }


def text(checked: Sequence[Checked], within: str = "") -> list[str]:
    """Return the results as lines of at most 80 columns; `within` as for reserve_command."""
    lines = [line for each in checked for line in _lines(each)]
    wrong = [each for each in checked if each.problems]
    ports = [
        each.wanted.port for each in wrong if any(p.kind == "ephemeral" for p in each.problems)
    ]
    if len(ports) > 1:
        command = reserve_command(ports, wrong[0].reserved, within)
        lines += wrapped(command, "Reserve all at once: ", "  ")
    return [*lines, _sum(len(checked), len(wrong), sum(map(is_unsure, checked)))]


def _sum(count: int, wrong: int, unsure: int) -> str:
    if not wrong and not unsure:
        return f"All {count} wanted ports are fine."
    told = [f"{wrong} of {count} wanted ports have problems"] if wrong else []
    told += [f"{unsure} of {count} could not be verified"] if unsure else []
    return f"{', '.join(told)}."


def _lines(each: Checked) -> list[str]:
    wanted = each.wanted
    local = endpoint(wanted.address, wanted.port)
    name = f"{wanted.name}, " if wanted.name else ""
    owner = f" for {wanted.owner}" if wanted.owner else ""
    served = is_served(wanted, each.holders)
    state = f"served by {describe(served)}" if served else unserved_state(wanted, each.holders)
    said = f"{name}{local}/{wanted.protocol}{owner} (line {wanted.line}): {state}"
    mark = "WRONG " if each.problems else "?     " if each.not_verified else "ok    "
    lines = wrapped(printable(said), mark, " " * 6)
    told = [(f"{problem.kind}: {problem.what}", problem) for problem in each.problems]
    told += [(f"not verified: {doubt.what}", doubt) for doubt in each.not_verified]
    for what, problem in told:
        lines += wrapped(printable(what), "      - ", " " * 8)
        lines += wrapped(printable(problem.advice), "        > ", " " * 10)
    return lines
