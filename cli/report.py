"""`porttrace report FILE`: what a live trace says at its end, of a recording."""

import json

import click

from porttrace.analysis.recording import Recording, load
from porttrace.analysis.render import report as plain
from porttrace.analysis.render import text
from porttrace.cli.options import RECORDING
from porttrace.cli.writing import say_incomplete, write_file

_SEVERITIES = ("info", "warning", "critical")
_FOUND = 5


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
@click.option("--fail-on", type=click.Choice(_SEVERITIES[::-1]),
              help="Exit with code 5 when a finding is at least this severe.")  # fmt: skip
def report(file: str, as_json: bool, html: str | None, force: bool, fail_on: str | None) -> int:
    """Tell what a recording shows: findings, processes, and how far to trust it.

    FILE is what 'porttrace record -o FILE' wrote, or - for standard input.

    \b
    Example:
      porttrace report login.ptrace
      porttrace report login.ptrace --json | jq .findings
      porttrace report login.ptrace --html login.html --fail-on critical
    """
    if force and not html:
        raise click.UsageError("--force needs --html: it is about that file.")
    recording = load(file)
    if html:
        _write_page(recording, html, force)
    if as_json:
        say_incomplete(recording)
        click.echo(json.dumps(_values(recording)))
    elif not html:
        click.echo(_text(recording))
    return _FOUND if fail_on and _worst(recording) >= _SEVERITIES.index(fail_on) else 0


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


def _worst(recording: Recording) -> int:
    found = (_SEVERITIES.index(finding.severity) for finding in recording.findings)
    return max(found, default=-1)
