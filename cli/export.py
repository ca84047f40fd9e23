"""`porttrace export FILE`: a recording in the formats of other tools."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from porttrace.analysis import tables
from porttrace.analysis.export import csv, ndjson, parquet, perfetto
from porttrace.analysis.recording import Recording, load
from porttrace.analysis.render.escape import printable
from porttrace.cli.options import RECORDING
from porttrace.cli.writing import print_pieces, say_incomplete, write_file
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.words import count

_FORMATS = ("parquet", "csv", "ndjson", "perfetto", "otel")
_WITHOUT_BINDS = ("csv", "perfetto", "otel")


@click.command(name="export")
@click.argument("file", type=RECORDING)
@click.option(
    "-f", "--format", "kind", type=click.Choice(_FORMATS), required=True, help="Format of OUT."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="OUT",
    help="File to write, or - for standard output.",
)
@click.option("--endpoint", metavar="URL", help="With -f otel: send there (OTLP/HTTP), no file.")
@click.option("--force", is_flag=True, help="Overwrite OUT when it is there.")
def export(file: str, kind: str, output: str | None, endpoint: str | None, force: bool) -> None:
    """Write the attempts and binds of a recording for notebooks, jq, spreadsheets or Perfetto.

    \b
    parquet   attempts; beside OUT: x.binds.parquet, x.events.parquet
    csv       attempts; text that a spreadsheet would compute gets an ' in front
    ndjson    attempts, then binds: an object a line, as live --json prints them
    perfetto  threads, slices and counters, to be opened in ui.perfetto.dev
    otel      OpenTelemetry spans: OTLP/JSON lines, or sent to --endpoint

    Marks (columns in _ns) are nanoseconds of CLOCK_MONOTONIC.

    \b
    Example:
      porttrace export login.ptrace -f parquet -o login.parquet
      porttrace export login.ptrace -f perfetto -o login.perfetto
      porttrace export login.ptrace -f ndjson -o - | jq .outcome
      porttrace export login.ptrace -f otel --endpoint http://127.0.0.1:4318
    """
    _check_where(kind, file, output, endpoint)
    if kind == "otel":
        _require_otel(endpoint)
    recording = load(file)
    say_incomplete(recording)
    if kind in _WITHOUT_BINDS and len(recording.trace.binds):
        _without_binds(recording, file, kind)
    if endpoint is not None:
        _send(recording, endpoint)
    elif output is not None:
        _write(recording, kind, output, force)


def _check_where(kind: str, file: str, output: str | None, endpoint: str | None) -> None:
    if endpoint is not None and kind != "otel":
        raise click.UsageError(f"--endpoint is for -f otel; {kind} is written with -o OUT.")
    if (output is None) == (endpoint is None):
        either = "-o OUT or --endpoint URL" if kind == "otel" else "-o OUT"
        raise click.UsageError(
            f"Where to? One of {either} is needed."
            if output is None
            else "-o and --endpoint exclude each other: use one of them."
        )
    if kind == "parquet" and output == "-":
        raise click.UsageError("-f parquet writes several files; name the first with -o OUT.")
    if kind == "parquet" and file == "-":
        raise click.UsageError("events are read in a second pass; name a file instead of -.")


def _write(recording: Recording, kind: str, output: str, force: bool) -> None:
    if kind == "parquet":
        _write_parquet(recording, output, force)
    elif kind == "perfetto":
        pieces = perfetto.perfetto(recording.trace, recording.findings)
        write_file(output, pieces, force)
    elif output == "-":
        print_pieces(_text(recording, kind, on_terminal=sys.stdout.isatty()))
    else:
        write_file(output, _text(recording, kind), force)


def _send(recording: Recording, endpoint: str) -> None:
    from porttrace.analysis.export.otel import batches
    from porttrace.cli.otlp import send

    sent = send(batches(recording.trace, recording.findings), endpoint)
    click.echo(f"{count(sent, 'span')} sent to {printable(endpoint)}", err=True)


def _require_otel(endpoint: str | None) -> None:
    # Before a large recording is read: is the extra there, and can the endpoint be meant?
    try:
        import porttrace.analysis.export.otel  # noqa: F401
        from porttrace.cli.otlp import traces_url
    except ImportError as error:
        missing = f"the OpenTelemetry SDK is not installed (no module {error.name})"
        raise PorttraceError(missing, "pip install 'porttrace[otel]'") from None
    if endpoint is not None:
        traces_url(endpoint)


def _without_binds(recording: Recording, file: str, kind: str) -> None:
    # A file of column names alone helps nobody.
    number = f"{len(recording.trace.binds)} calls of bind(2) and listen(2)"
    instead = "-f parquet or ndjson writes them, too"
    if kind == "csv":
        instead = f"porttrace show {shlex.quote(file)} binds --csv writes them"
    if not len(recording.trace.attempts):
        raise PorttraceError(
            f"{file} has {number} and no attempt, and {kind} has attempts alone: no file is made",
            instead,
        )
    note = f"note: {number} are left out: {kind} has attempts alone; {instead}"
    click.echo(printable(note), err=True)


def _text(recording: Recording, kind: str, on_terminal: bool = False) -> Iterator[bytes]:
    if kind == "csv":
        return csv.csv(tables.attempts(recording.trace), on_terminal)
    if kind == "otel":
        from porttrace.analysis.export.otel import batches, json_lines

        return json_lines(batches(recording.trace, recording.findings))
    return ndjson.ndjson(recording.trace)


def _write_parquet(recording: Recording, output: str, force: bool) -> None:
    write_file(output, parquet.attempts_file(recording.trace), force)
    path = Path(output)
    for name, pieces in (
        ("binds", parquet.binds_file(recording.trace)),
        ("events", parquet.events_file(recording.events)),
    ):
        write_file(str(path.with_name(f"{path.stem}.{name}{path.suffix}")), pieces, force)
