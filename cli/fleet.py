"""`porttrace fleet PATH...`: many hosts' recordings on Dask, findings per host and across them."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import click

from porttrace.analysis.render.escape import printable
from porttrace.analysis.render.fleet import fleet_text
from porttrace.analysis.render.fleet_values import fleet_values
from porttrace.cli.writing import write_file
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.words import count

_T = TypeVar("_T")

_FAILED = 1


@click.command(name="fleet")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Use this Dask cluster, as tcp://HOST:8786; without it, processes here.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="So many processes here; default: one for each CPU.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--html", type=click.Path(dir_okay=False), metavar="OUT",
              help="Write a page for a browser here, instead of text.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite OUT when it is there.")
def fleet(
    paths: tuple[str, ...],
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
    html: str | None,
    force: bool,
) -> int:
    """Tell what the recordings of many hosts show: what they share, and who is unlike the rest.

    PATH is a recording (.ptrace, or what 'export -f parquet' wrote), a folder of them, a
    pattern, or any of these in a store that fsspec knows: s3://bucket/folder. A recording that
    cannot be read is named and left out, and the exit code is 1.

    \b
    Example:
      porttrace fleet recordings/
      porttrace fleet 'recordings/web*.ptrace' --html web.html
      porttrace fleet s3://traces/2026-11-21 --scheduler tcp://dask:8786 --json
    """
    if force and not html:
        raise click.UsageError("--force needs --html: it is about that file.")
    if workers and scheduler:
        raise click.UsageError("--workers are processes here: leave it out with --scheduler.")
    values = _values(paths, scheduler or "", workers or 0)
    if html:
        _write_page(values, html, force)
    if as_json:
        click.echo(json.dumps(values))
    elif not html:
        click.echo(fleet_text(values))
    return _told_skipped(values)


def _values(paths: tuple[str, ...], scheduler: str, workers: int) -> dict[str, Any]:
    # Dask takes a second to import: not for --help, nor for who typed something wrong.
    from porttrace.analysis.fleet.merge import Fleet
    from porttrace.analysis.fleet.spread import recordings_at, spread

    found = recordings_at(paths)
    if not found:
        raise PorttraceError("there is no recording", "name files that 'porttrace record' wrote")
    whole = Fleet()
    with _progress(spread(found, scheduler, workers), len(found)) as parts:
        for part in parts:
            whole.add(part)
    return fleet_values(whole)


def _progress(parts: Iterator[_T], number: int) -> AbstractContextManager[Iterable[_T]]:
    # For whoever looks at a terminal; its output may go to a file.
    notes = sys.stderr
    return click.progressbar(
        parts, length=number, label="recordings", file=notes, hidden=not notes.isatty()
    )


def _write_page(values: dict[str, Any], path: str, force: bool) -> None:
    from porttrace.analysis.render.html.fleet import fleet_page

    write_file(path, [fleet_page(values).encode(errors="backslashreplace")], force)


def _told_skipped(values: dict[str, Any]) -> int:
    skipped = values["skipped"]
    if not skipped:
        return 0
    many = f"{count(len(skipped), 'recording')} cannot be read"
    click.echo(f"error: {many}: {printable(skipped[0]['why'])}", err=True)
    if skipped[0]["hint"]:
        click.echo(f"hint: {printable(skipped[0]['hint'])}", err=True)
    return _FAILED
