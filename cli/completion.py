"""What a shell asks for when Tab is pressed: click's own completion, and the live trace's options.

The scripts that ask are click's, too (packages/completions.py makes them). No callback of an
option is called on the way, no file is opened, and what goes wrong is not told: a shell would
print it into the line that somebody types.
"""

import os
from collections.abc import Mapping

import click
from click.shell_completion import CompletionItem, shell_complete


def answer(group: click.Group, variable: str) -> int:
    """Print what the shell asks for in that variable of the environment; return the exit code."""
    try:
        return shell_complete(group, {}, "porttrace", variable, os.environ[variable])
    except click.ClickException as error:
        return error.exit_code


def of_commands(
    group: click.Group, overview: Mapping[str, str], ctx: click.Context, incomplete: str
) -> list[CompletionItem[str]]:
    """Return the names that begin so; in their place, behind a dash, options, `live`'s included."""
    if not incomplete.startswith("-"):
        return [CompletionItem(name, help=line) for name, line in overview.items()
                if name.startswith(incomplete)]  # fmt: skip
    found = click.Command.shell_complete(group, ctx, incomplete)
    live = group.get_command(ctx, "live")
    assert live
    with live.make_context("live", [], parent=ctx, resilient_parsing=True) as inner:
        mine = {item.value for item in found}
        theirs = live.shell_complete(inner, incomplete)
    return found + [item for item in theirs if item.value not in mine]


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Tell the shell to complete the name of a file: `shell_complete=` of an option."""
    return [CompletionItem(incomplete, type="file")]
