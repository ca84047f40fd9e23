"""`porttrace show FILE TABLE`: the rows of a recording, chosen, sorted and cut."""

import dataclasses
import difflib
import errno
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
import pandas as pd

from porttrace.analysis import names, tables
from porttrace.analysis import show as rows
from porttrace.analysis.concurrency import SCOPES
from porttrace.analysis.export.csv import csv
from porttrace.analysis.model import Outcome
from porttrace.analysis.recording import Recording, load
from porttrace.analysis.show import Filter
from porttrace.cli.options import RECORDING, Address, Duration, Pid, Ports
from porttrace.cli.writing import print_pieces, say_incomplete

_F = TypeVar("_F", bound=Callable[..., Any])
_OUTCOMES = [outcome.name for outcome in Outcome]
_EITHER = [*_OUTCOMES, "ok", *sorted(errno.errorcode.values())]
# Events know neither how their attempt ended nor how long it was held.
_OF_ATTEMPTS = {"outcomes": "--outcome", "held_ns": "--held", "containers": "--container"}


class _HowItEnded(click.Choice[str]):
    """An outcome of attempts or of binds; of its many names a mistake is told the nearest."""

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if value in _EITHER:
            return str(value)
        near = difflib.get_close_matches(str(value), _EITHER, 3)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        self.fail(
            f"{value!r} is no outcome: {', '.join(_OUTCOMES)}; of binds ok, or the name of an "
            f"errno such as EADDRINUSE.{meant}",
            param,
            ctx,
        )


def _filters(command: _F) -> _F:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


_FILTERS = (
    click.option("-p", "--pid", "pids", multiple=True, type=Pid(), metavar="PID",
                 help="Of this process; may be given several times."),
    click.option("--container", "containers", multiple=True, metavar="ID_OR_NAME",
                 help="Of this container, machine or systemd service."),
    click.option("--comm", "comms", multiple=True, metavar="NAME", help="Of threads of this name."),
    click.option("-P", "--port", "ports", type=Ports(),
                 help="To these remote ports; of binds, these local ones."),
    click.option("--destination", "destinations", multiple=True, type=Address(),
                 metavar="ADDRESS[:PORT]", help="To this address; [ADDRESS]:PORT for IPv6."),
    click.option("--outcome", "outcomes", multiple=True, type=_HowItEnded(_EITHER),
                 metavar="OUTCOME", help=f"That ended so: {', '.join(_OUTCOMES)}; of binds an "
                                         "errno's name, or ok."),
    click.option("--held", "held_s", type=Duration(),
                 help="Held on this host for at least this time, wherever."),
)  # fmt: skip


@click.command(name="show")
@click.argument("file", type=RECORDING)
@click.argument(
    "table", type=click.Choice(("attempts", "binds", "accepts", "events", "concurrency"))
)
@_filters
@click.option("--scope", type=click.Choice(SCOPES), metavar="SCOPE",
              help=f"Whom concurrency counts: {', '.join(SCOPES)}.")  # fmt: skip
@click.option(
    "--sort",
    metavar="COLUMN",
    default="",
    help="Sort by a column, of the JSON or of the text: held, took, where.",
)
@click.option("--reverse", is_flag=True, help="The last, or the greatest, first.")
@click.option("--limit", type=click.IntRange(0), metavar="N", help="At most so many rows.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, all columns.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV, all columns.")
def show(
    file: str,
    table: str,
    scope: str | None,
    sort: str,
    reverse: bool,
    limit: int | None,
    as_json: bool,
    as_csv: bool,
    **chosen: Any,
) -> None:
    """Print a table of a recording: attempts, binds, accepts, events, or how many were open.

    FILE is what 'porttrace record -o FILE' wrote, or - for standard input. Filters choose
    attempts, also those that concurrency counts. Times are seconds since the recording began,
    columns in _ns nanoseconds.

    \b
    Example:
      porttrace show login.ptrace attempts --held 1s --sort held --reverse
      porttrace show login.ptrace attempts --sort took --reverse --limit 10
      porttrace show login.ptrace binds --outcome EADDRINUSE
      porttrace show login.ptrace events --pid 1234 --json
      porttrace show login.ptrace concurrency --scope destination --csv
    """
    wanted = _filter(**chosen)
    _check(table, wanted, scope, as_json and as_csv)
    if table in _FROM_EVENTS and file == "-":
        raise click.UsageError(f"{table} are read in a second pass; name a file instead of -.")
    recording = load(file)
    say_incomplete(recording)
    if table == "accepts" and recording.header.host.mode == "tracepoint":
        click.echo(_NO_ACCEPTS, err=True)
    frame = _frame(recording, table, wanted, scope or "process")
    if frame.empty:
        click.echo(_nothing(recording, table, wanted), err=True)
    frame = _ordered(frame, sort, reverse, limit)
    if as_csv:
        print_pieces(csv(frame, on_terminal=sys.stdout.isatty()))
        return
    start_ns = recording.trace.start_ns
    lines = rows.json_lines(_ROW[table], frame) if as_json else _LINES[table](frame, start_ns)
    _print(lines)


def _ordered(frame: pd.DataFrame, sort: str, reverse: bool, limit: int | None) -> pd.DataFrame:
    try:
        return rows.ordered(frame, sort, reverse, limit)
    except rows.UnknownColumnError as error:
        raise click.BadParameter(f"{error}; {error.hint}.", param_hint="'--sort'") from None


def _nothing(recording: Recording, table: str, wanted: Filter) -> str:
    if not wanted.set_fields():
        return f"note: there are no {table} in this recording."
    whole = names.count(len(recording.trace.attempts), "attempt")
    took = " --held is of waits on this host; --sort took --reverse begins with the slowest of all."
    return f"note: nothing matches; the recording has {whole} in all.{took * bool(wanted.held_ns)}"


_NO_ACCEPTS = (
    "note: recorded in tracepoint mode, which does not see accept(2); 'porttrace doctor' on that "
    "host tells why no better mode was used."
)
_FROM_EVENTS = {"events": tables.events, "accepts": tables.accepts}
_ROW = {
    "attempts": "attempt",
    "binds": "bind",
    "accepts": "accept",
    "events": "event",
    "concurrency": "concurrency",
}
_LINES: dict[str, Callable[[pd.DataFrame, int], Iterator[str]]] = {
    "attempts": rows.attempt_lines,
    "accepts": rows.accept_lines,
    "binds": rows.bind_lines,
    "events": rows.event_lines,
    "concurrency": rows.concurrency_lines,
}


def _filter(held_s: float | None, ports: frozenset[int] | None, **chosen: Any) -> Filter:
    return Filter(ports=ports or frozenset(), held_ns=int((held_s or 0) * 1e9), **chosen)


def _check(table: str, wanted: Filter, scope: str | None, both: bool) -> None:
    if both:
        raise click.UsageError("--json and --csv exclude each other.")
    if scope and table != "concurrency":
        raise click.UsageError(f"--scope is for concurrency, not for {table}.")
    unknown = [option for name, option in _OF_ATTEMPTS.items() if name in wanted.set_fields()]
    if table in _FROM_EVENTS and unknown:
        raise click.UsageError(f"{' and '.join(unknown)}: {table} do not know that; show attempts.")
    if table == "binds" and wanted.set_fields() & {"held_ns", "destinations"}:
        raise click.UsageError("--held and --destination: binds do not know that; use -P.")
    if table != "binds" and set(wanted.outcomes) - set(_OUTCOMES):
        raise click.UsageError(f"--outcome of {table} is one of {', '.join(_OUTCOMES)}.")
    if table == "accepts" and wanted.destinations:
        raise click.UsageError(
            "--destination: accepts have a peer and a listener; use -P or --pid."
        )


def _frame(recording: Recording, table: str, wanted: Filter, scope: str) -> pd.DataFrame:
    if table == "binds":
        return rows.chosen(tables.binds(recording.trace), wanted)
    if table in _FROM_EVENTS:
        return rows.chosen(_FROM_EVENTS[table](recording.events), wanted)
    attempts = rows.chosen(tables.attempts(recording.trace), wanted)
    if table == "attempts":
        return attempts
    # The steps of the chosen attempts alone: a count of others would say nothing about them.
    kept = recording.trace.attempts[attempts.index.to_numpy()]
    trace = dataclasses.replace(recording.trace, attempts=kept)
    return tables.concurrency(trace, scope)


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
