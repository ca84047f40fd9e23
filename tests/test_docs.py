"""Every command explains itself, with an example, and README names it."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from porttrace.cli import main, porttrace

README = Path(__file__).parent.parent / "README.md"


def commands(
    group: click.Group = porttrace, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below `group` with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())
each_command = pytest.mark.parametrize("path", ALL, ids=" ".join)


@each_command
def test_help_and_an_example(path: tuple[str, ...]) -> None:
    text = ALL[path].help or ""
    assert text.strip().split("\n")[0].endswith("."), "the first line is a sentence"
    before, found, example = text.partition("Example:\n")
    assert found, "no 'Example:' block"
    assert before.rstrip(" ").endswith("\b\n"), "click would re-wrap the example without \\b"
    lines = [line.strip() for line in example.strip().splitlines()]
    assert lines
    for line in lines:
        assert line.removeprefix("sudo ").startswith("porttrace"), line


@each_command
def test_the_example_is_of_this_command(path: tuple[str, ...]) -> None:
    example = (ALL[path].help or "").partition("Example:\n")[2]
    # the live trace needs no name
    assert path == ("live",) or f"porttrace {' '.join(path)}" in example


@each_command
def test_every_option_says_what_it_does(path: tuple[str, ...]) -> None:
    for option in ALL[path].params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert option.help.endswith("."), option.name


@each_command
def test_help_can_be_asked_for(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: porttrace {' '.join(path)}" in out
    assert "Example:" in out
    assert max(map(len, out.splitlines())) <= 80


@each_command
def test_readme_names_it(path: tuple[str, ...]) -> None:
    if not README.exists():
        pytest.skip("there is no README.md yet")
    called = "porttrace -" if path == ("live",) else f"porttrace {' '.join(path)}"
    assert called in README.read_text()


PAGES = (README, *sorted((README.parent / "docs").glob("*.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_command_is_called_porttrace_everywhere(page: Path) -> None:
    # GIVEN that README says at one place how the command gets onto the PATH
    head, where, after = page.read_text().partition("## Start\n")
    start, _, rest = after.partition("\n## ") if where else ("", "", head)
    if page == README:
        assert 'ln -s "$PWD/.venv/bin/porttrace" /usr/local/bin/porttrace' in start
    # THEN no other page or section calls it by its path, but for the guests of scripts/vm
    lines = [line for line in f"{head}{rest}".splitlines() if ".venv/bin/porttrace" in line]
    assert all("scripts/vm" in line for line in lines), lines
