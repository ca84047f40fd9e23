"""The pages of the documentation, and what stands in them: commands, links, rows of tables."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from porttrace.cli import porttrace as program

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_OURS = re.compile(r"(?:\$ )?(?:sudo )?(porttrace(?: .*)?|scripts/[\w-]+(?: .*)?)$")
_COMMENT = re.compile(r"(?:^|\s+)# .*$")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Command:
    """A command line of a page, without sudo, comment, pipe and redirection."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {shlex.join(self.words)}"


@dataclass(frozen=True)
class Line:
    """A line of a block: its number in the page, and the word behind the fence ("" for none)."""

    number: int
    text: str
    language: str


def block_lines(page: Path) -> Iterator[Line]:
    """Yield the lines of fenced blocks, and those that are indented by four, without that."""
    language: str | None = None
    for number, text in enumerate(page.read_text().splitlines(), 1):
        if text.startswith("```"):
            language = text[3:].strip() if language is None else None
        elif language is not None:
            yield Line(number, text, language)
        elif text.startswith("    ") and text[4:5].strip():
            yield Line(number, text[4:], "")


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page that are porttrace's own: `porttrace ...`, `scripts/...`."""
    for line in joined(block_lines(page)):
        found = _OURS.match(line.text)
        if found and line.language in ("", "sh"):
            for words in split(found[1]):
                if words[0].partition("/")[0] in ("porttrace", "scripts"):
                    yield Command(page.name, line.number, tuple(words))


def joined(lines: Iterator[Line]) -> Iterator[Line]:
    """Yield lines with what follows a backslash at their end."""
    begun = ""
    for line in lines:
        if line.text.endswith("\\"):
            begun += line.text[:-1]
            continue
        yield Line(line.number, begun + line.text.strip() * bool(begun) or line.text, line.language)
        begun = ""


def split(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a line: what stands between |, &&, ; and without >."""
    lexer = shlex.shlex(_COMMENT.sub("", text), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    for word in (*lexer, ";"):
        if set(word) <= set("|&;") and word:
            if words:
                yield _before_redirection(words)
            words = []
        else:
            words.append(word)


def _before_redirection(words: list[str]) -> list[str]:
    at = [number for number, word in enumerate(words) if word and set(word) <= set("<>&")]
    return [word for word in words[: min(at, default=None)] if word != "sudo"]


def links(page: Path) -> Iterator[str]:
    """Yield where the links of a page go to, those in code left out."""
    inside = False
    for text in page.read_text().splitlines():
        inside ^= text.startswith("```")
        if not inside:
            yield from _LINK.findall(re.sub(r"`[^`]*`", "", text))


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def tables(page: Path, first: str) -> list[list[str]]:
    """Return the cells of the rows of the tables whose first heading is `first`."""
    rows, inside = [], False
    for text in page.read_text().splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", text)[1:-1]]
        if not text.startswith("|"):
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not set(text) <= set("|-: "):
            rows.append(cells)
    return rows


def parse(words: tuple[str, ...]) -> click.Context:
    """Read a command line as `porttrace` does, and do nothing."""
    context = program.make_context("porttrace", list(words))
    while isinstance(context.command, click.Group):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        assert rest, "a group needs the name of a command"
        name, command, left = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, left, parent=context)
    return context
