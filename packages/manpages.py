"""Manual pages from click's help: porttrace.1 and one for each command below it.

    python -m packages.manpages FOLDER

Not click-man: it takes neither commands that are imported when they are used, nor text that
is not to be wrapped (click's mark, a line with a backspace), and does not quote what troff would
read as a request. The date is SOURCE_DATE_EPOCH's: the same help gives the same bytes.
"""

import datetime
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from inspect import cleandoc
from pathlib import Path

import click

from porttrace.cli import COMMANDS, porttrace

_VERBATIM = "\b\n"  # click's mark at the head of a paragraph: leave its lines as they are
_EXAMPLE = "Example:\n"
_QUOTED = str.maketrans({
    "\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti",
    "\N{HORIZONTAL ELLIPSIS}": "...",
})  # fmt: skip
EXITS = (
    ("0", "done"),
    ("1", "failed, also when the process to trace is not there"),
    ("2", "usage"),
    ("3", "not permitted; the message names what is missing"),
    ("4", "this host cannot do it"),
    ("5", "--fail-on was met, or ports --check found something wrong"),
    ("126, 127", "the command behind -- cannot be run; else its own status is passed on"),
)


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file, such as `porttrace-lab-run.1`."""
    return {f"{'-'.join(words)}.1": _page(words, context) for words, context in _contexts()}


def write(folder: Path) -> list[Path]:
    """Write all pages to a folder, which is made; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, text in pages().items():
        files.append(folder / name)
        files[-1].write_text(text, encoding="ascii")
    return files


def quote(text: str) -> str:
    """Return text as troff takes it literally, in ASCII: it begins no request, hides no dash."""
    text = text.translate(_QUOTED)
    text = "".join(char if ord(char) < 128 else f"\\[u{ord(char):04X}]" for char in text)
    return f"\\&{text}" if text.startswith(".") else text


def _contexts(
    group: click.Group = porttrace, parent: click.Context | None = None, name: str = "porttrace"
) -> Iterator[tuple[tuple[str, ...], click.Context]]:
    context = click.Context(group, info_name=name, parent=parent, **group.context_settings)
    words = tuple(context.command_path.split())
    yield words, context
    for below in group.list_commands(context):
        command = group.get_command(context, below)
        if isinstance(command, click.Group):
            yield from _contexts(command, context, below)
        elif command and not command.hidden:
            settings = command.context_settings
            inner = click.Context(command, info_name=below, parent=context, **settings)
            yield (*words, below), inner


def _page(words: tuple[str, ...], context: click.Context) -> str:
    text, _, example = cleandoc(context.command.help or "").partition(f"{_VERBATIM}{_EXAMPLE}")
    paragraphs = text.strip().split("\n\n")
    lines = [*_head(words, context, paragraphs), *_description(paragraphs), *_options(context)]
    if isinstance(context.command, click.Group):
        lines += _commands(words, context)
    if example:
        lines += [".SH EXAMPLES", *_as_it_is(cleandoc(example))]
    if len(words) == 1:
        lines += _exits()
    return "\n".join([*lines, *_see_also(words)]) + "\n"


def _head(words: tuple[str, ...], context: click.Context, paragraphs: list[str]) -> Iterator[str]:
    title = quote("-".join(words))
    source = f"porttrace {version('porttrace')}"
    yield f'.TH {title.upper()} 1 "{_date()}" "{source}" "User Commands"'
    yield from (".ad l", ".nh")  # ragged on the right, and names stay whole
    yield ".SH NAME"
    yield rf"{title} \- {quote(_short(words, paragraphs))}"
    yield ".SH SYNOPSIS"
    yield f".B {quote(' '.join(words))}"
    yield _breakable(" ".join(context.command.collect_usage_pieces(context)))


# A long list of choices may go on in the next line.
def _breakable(text: str) -> str:
    return quote(text).replace("|", "|\\:")


def _short(words: tuple[str, ...], paragraphs: list[str]) -> str:
    if len(words) == 2:
        return COMMANDS[words[1]]
    sentence = paragraphs[0].replace("\n", " ").partition(". ")[0].rstrip(".")
    return sentence[0].lower() + sentence[1:]


def _date() -> str:
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()


def _description(paragraphs: list[str]) -> Iterator[str]:
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        if paragraph.startswith(_VERBATIM):
            yield from _as_it_is(paragraph.removeprefix(_VERBATIM))
        else:
            yield from map(quote, paragraph.splitlines())


# Lines that stand as they were typed.
def _as_it_is(text: str) -> Iterator[str]:
    yield from (".RS 2", ".nf")
    yield from (quote(line) for line in text.splitlines())
    yield from (".fi", ".RE")


def _options(context: click.Context) -> Iterator[str]:
    yield ".SH OPTIONS"
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record and record[1]:  # arguments stand in the synopsis
            yield from (".TP", f".B {_breakable(record[0])}", quote(record[1]))


def _commands(words: tuple[str, ...], context: click.Context) -> Iterator[str]:
    assert isinstance(context.command, click.Group)
    yield ".SH COMMANDS"
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        assert command
        text = COMMANDS[name] if len(words) == 1 else command.get_short_help_str(200)
        yield from (".TP", f".BR {quote('-'.join((*words, name)))} (1)", quote(text))


def _exits() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in EXITS:
        yield from (".TP", f".B {quote(code)}", quote(meaning))


def _see_also(words: tuple[str, ...]) -> Iterator[str]:
    others = [words[:-1]] if len(words) > 1 else [("porttrace", name) for name in COMMANDS]
    names = [f".BR {quote('-'.join(other))} (1)" for other in others]
    yield from (".SH SEE ALSO", *(f"{name} ," for name in names[:-1]), names[-1])


if __name__ == "__main__":
    write(Path(sys.argv[1]))
