"""`porttrace lab binds`: who may share a port, tried out and compared with the rules."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from porttrace.analysis.export.sharing import parquet_file, row
from porttrace.analysis.render import sharing
from porttrace.analysis.sharing import Claim
from porttrace.analysis.sharing_matrix import Trial, disagreements
from porttrace.cli.completion import files
from porttrace.cli.writing import write_file
from porttrace.lab.binds import Ask, Tried, try_all
from porttrace.tracer.errors import PorttraceError

# To the kernel these are connections like any other.
_CONNECTED = ("client", "accepted")


@click.command(name="binds")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line, one per combination."
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    shell_complete=files,
    help="Write all combinations here, as Parquet.",
)
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
@click.option("--into", "page", metavar="PAGE", type=click.Path(dir_okay=False, path_type=Path),
              help="Put the tables into this page, between its two marker lines.")  # fmt: skip
def binds(as_json: bool, output: str | None, force: bool, page: Path | None) -> int:
    """Try who may share a port: a first socket holds it, and a second one wants it.

    Every combination of protocol, state, address, option and user is made for real, in a network
    namespace of its own, and compared with what porttrace predicts. Exit status 1 if any differs.

    \b
    Example:
      sudo porttrace lab binds
      sudo porttrace lab binds --json | jq 'select(.errno != .predicted)'
    """
    trials = [trial_of(tried) for tried in try_all()]
    if page:
        _put_into(page, trials)
    if output:
        write_file(output, parquet_file(trials), force)
    if as_json:
        print_json(trials)
    else:
        click.echo(f"{sharing.text(trials)}\n\n{sharing.verdict(trials)}")
    return int(bool(disagreements(trials)))


def trial_of(tried: Tried) -> Trial:
    """Return what the lab tried in the words of the analysis."""
    cell = tried.cell
    state = "connected" if cell.state in _CONNECTED else cell.state
    return Trial(
        "listen" if cell.call == "listen" else "bind",
        cell.state,
        _claim(tried, cell.first),
        _claim(tried, cell.first, state, tried.address),
        _claim(tried, cell.second),
        cell.first.place.name,
        cell.second.place.name,
        tried.errno,
        tried.first_errno,
    )


def _claim(tried: Tried, ask: Ask, state: str = "bound", address: str = "") -> Claim:
    place = ask.place
    return Claim(
        protocol=tried.cell.protocol,
        address=address or place.address,
        port=tried.port,
        v6only=place.v6only or place.ipv6_proper,
        reuseaddr=ask.reuseaddr,
        reuseport=ask.reuseport,
        uid=ask.uid,
        state=state,
    )


def print_json(trials: Sequence[Trial]) -> None:
    """Print an object a trial, and how many differ from the rules."""
    for trial in trials:
        click.echo(json.dumps({"type": "combination", **row(trial)}))
    wrong = len(disagreements(trials))
    click.echo(json.dumps({"type": "summary", "combinations": len(trials), "differ": wrong}))


def _put_into(page: Path, trials: Sequence[Trial]) -> None:
    try:
        changed = sharing.between_markers(page.read_text(), sharing.markdown(trials))
        page.write_text(changed)
    except OSError as error:
        raise PorttraceError(
            f"the page {page} cannot be changed: {error.strerror}", "name another one with --into"
        ) from error
    except ValueError as error:
        raise PorttraceError(f"nothing was put into {page}: {error}", "add them") from error
