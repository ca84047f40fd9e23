"""`porttrace report FILE`: what a live trace says at its end, of a recording."""

import json
import os
from collections.abc import Iterable

import click

from porttrace.analysis.model import SEVERITIES
from porttrace.analysis.recording import Recording, load
from porttrace.analysis.render import report as plain
from porttrace.analysis.render import text
from porttrace.analysis.windows import BYTES_FOR_BYTE, summed
from porttrace.cli.options import RECORDING, Duration
from porttrace.cli.writing import say_incomplete, write_file
from porttrace.tracer.memory import spare_bytes

_MET = 5


@click.command(name="report")
@click.argument("file", type=RECORDING)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False),
    metavar="OUT",
    help="Write a page for a browser here, instead of text.",
)
@click.option("--force", is_flag=True, help="Overwrite OUT when it is there.")
@click.option(
    "--window",
    type=Duration(),
    metavar="TIME",
    help="Judge every such span by itself, in memory that does not grow with FILE.",
)
@click.option("--fail-on", type=click.Choice(SEVERITIES),
              help="Exit with code 5 when a finding is at least this severe.")  # fmt: skip
def report(
    file: str,
    as_json: bool,
    html: str | None,
    force: bool,
    window: float | None,
    fail_on: str | None,
) -> int:
    """Tell what a recording shows: findings, processes, and how far to trust it.

    FILE is what 'porttrace record -o FILE' wrote, or - for standard input. One that is too
    large for the memory that is left is read in windows.

    \b
    Example:
      porttrace report login.ptrace
      porttrace report login.ptrace --json | jq .findings
      porttrace report login.ptrace --html login.html --fail-on critical
      porttrace report week.ptrace --window 1h
    """
    if force and not html:
        raise click.UsageError("--force needs --html: it is about that file.")
    if window and html:
        raise click.UsageError("--html shows the whole recording: leave --window out.")
    if window or (not html and _too_large(file)):
        severities = _in_windows(file, window or 0, as_json)
        return _found(severities, fail_on)
    recording = load(file)
    if html:
        _write_page(recording, html, force)
    if as_json:
        say_incomplete(recording)
        click.echo(json.dumps(_values(recording)))
    elif not html:
        click.echo(_text(recording))
    return _found([finding.severity for finding in recording.findings], fail_on)


def _found(severities: Iterable[str], fail_on: str | None) -> int:
    if not fail_on:
        return 0
    bad = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    return _MET if any(severity in bad for severity in severities) else 0


def _too_large(file: str) -> bool:
    spare = spare_bytes()
    try:
        wanted = os.stat(file).st_size * BYTES_FOR_BYTE
    except OSError:
        return False  # who reads it says what is wrong
    if wanted < spare:
        return False
    click.echo(
        f"note: to read it whole would take up to {wanted >> 20} MB, and {spare >> 20} MB are left:"
        " it is read in windows. --window TIME says how long they are",
        err=True,
    )
    return True


def _in_windows(file: str, length_s: float, as_json: bool) -> list[str]:
    from porttrace.analysis.render import windows as rendered

    whole = summed(file, int(length_s * 1e9))
    click.echo(json.dumps(rendered.values(whole)) if as_json else rendered.text(whole))
    return [each.finding.severity for each in whole.found]


def _text(recording: Recording) -> str:
    ending = text.ending(recording.trace, recording.findings)
    if recording.complete:
        return ending
    return f"INCOMPLETE: this recording has no end; Trust says why.\n\n{ending}"


def _values(recording: Recording) -> dict[str, object]:
    values = plain.report(recording.trace, recording.findings)
    # A file that was cut is not complete either, though no event was lost before.
    return {**values, "trust": {**values["trust"], "complete": recording.trust.complete}}


def _write_page(recording: Recording, path: str, force: bool) -> None:
    # The page brings its own style and script; who prints text does without them.
    from porttrace.analysis.render.html import html_report

    say_incomplete(recording)
    page = html_report(recording.trace, recording.findings)
    write_file(path, [page.encode(errors="backslashreplace")], force)
