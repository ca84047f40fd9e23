"""What the commands that read recordings share when they write: files, pieces, and a note."""

from collections.abc import Iterable

import click

from porttrace.analysis.recording import Recording
from porttrace.analysis.render.escape import printable
from porttrace.tracer.output import open_output


def write_file(path: str, pieces: Iterable[bytes], force: bool = False) -> None:
    """Write `pieces` into a new file at `path`; for `-` to standard output that is no terminal.

    A file that could not be finished is removed. Raises OutputError.
    """
    out = open_output(path, force)
    try:
        for piece in pieces:
            out.write(piece)
    except BaseException:
        out.discard()
        raise
    out.close()


def print_pieces(pieces: Iterable[bytes]) -> None:
    """Print pieces of text to standard output, which may be a terminal."""
    for piece in pieces:
        click.echo(piece, nl=False)


def say_incomplete(recording: Recording) -> None:
    """Say on standard error that a recording has no end, and why."""
    if not recording.complete:
        why = printable(recording.why_incomplete)
        click.echo(f"note: the recording is incomplete: {why}", err=True)
