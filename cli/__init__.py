"""The command line: one module a command, this one the door.

`porttrace [options] [-- COMMAND]` without a command's name is the live trace.
Here, and only here, errors become messages and exit codes.
"""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from porttrace.cli import hearing

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# In the environment where a shell asks what could come next; its name is click's choice.
COMPLETE = "_PORTTRACE_COMPLETE"

# name -> one line for the overview; the module porttrace.cli.<name> is imported when used.
COMMANDS = {
    "live": "trace attempts now (the command when none is named)",
    "top": "who waits right now, a line a process, until q",
    "record": "record attempts to a file, with the least overhead",
    "report": "what a recording shows: findings, processes, trust",
    "show": "the tables of a recording, filtered and sorted",
    "export": "a recording as Parquet, CSV, NDJSON or for Perfetto",
    "fleet": "many hosts' recordings together, on Dask",
    "whatif": "the waits behind a recorded throttle, if it were changed",
    "port": "who has a port, and whether a bind to it would work",
    "ports": "the ports that are served here, and what is risky; checks a list",
    "serve": "metrics for Prometheus, for as long as it runs",
    "suspects": "what on this host can interpose on the connects of a process",
    "probe": "measure a throttle by a few connects of our own (asks first)",
    "doctor": "what this host lacks, and the command that mends it",
    "lab": "real throttles and stories to try porttrace on",
}


class _Commands(click.Group):
    # Imports a command's module only when that command is used: --help stays quick.
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"porttrace.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say what a word that is none may have been meant as."""
        word = args[0]
        if word not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"No such command {word!r}. {_meant(word)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read options without a command as those of `live`."""
        if not args and ctx.resilient_parsing:
            return super().parse_args(ctx, args)  # a shell asks which commands there are
        if args and args[-1] == "--" and not ctx.resilient_parsing:
            raise click.UsageError("There is no command behind the two dashes.", ctx)
        named = args and (args[0] in COMMANDS or args[0] in ("--help", "-h", "--version"))
        looks_like_name = args and not args[0].startswith("-")
        return super().parse_args(ctx, args if named or looks_like_name else ["live", *args])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """Complete names of commands without importing them, and options as those of `live`."""
        from porttrace.cli import completion

        return completion.of_commands(self, COMMANDS, ctx, incomplete)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="porttrace", prog_name="porttrace")
def porttrace() -> None:
    """Why does connecting wait? Trace TCP connection attempts and prove what holds them.

    \b
    sudo porttrace --pid 1234              trace a process until Ctrl-C
    sudo porttrace -d 30 -- curl URL       trace a command from its first connect
    porttrace live --help                  filters and options of the live trace

    --debug, anywhere before "--", shows where an error came from.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; no traceback without --debug."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and COMPLETE in os.environ:
        from porttrace.cli import completion

        return completion.answer(porttrace, COMPLETE)
    debug = _take_debug(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A name may hold what the terminal's encoding does not have.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # Not porttrace.main(): click would turn a closed pipe into exit code 1.
        with porttrace.make_context("porttrace", arguments) as context:
            result = porttrace.invoke(context)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        with hearing.unless_gone():
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        hearing.note("Interrupted.")
        return 130
    except Exception as error:
        # Who read our output left (`| head`), or the terminal: nobody is there to be told.
        if isinstance(error, OSError) and hearing.is_gone(error):
            hearing.silence()
            return 0
        if debug:
            hearing.note(getattr(error, "detail", ""))
            raise
        return _complain(error)


def _meant(word: str) -> str:
    import difflib  # for who typed something wrong

    near = difflib.get_close_matches(word, COMMANDS, 1)
    if word.isdecimal():
        return f"A process is traced by --pid {word}."
    if near:
        return f"Is it {near[0]!r}?"
    return f"A program is traced behind two dashes: porttrace -- {word} ..."


def _take_debug(arguments: list[str]) -> bool:
    # Before "--" only: behind it stands somebody else's command line.
    until = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" not in arguments[:until]:
        return False
    arguments.remove("--debug")
    return True


def _complain(error: Exception) -> int:
    # Our own errors carry a hint and a code; any other one is a defect of porttrace.
    hint = getattr(error, "hint", None)
    if isinstance(error, OSError) and hint is None:
        where = f" ({error.filename})" if error.filename else ""
        _say(f"error: {error.strerror or error}{where}")
        _say("hint: where does the output go? --debug shows what failed")
        return 1
    if isinstance(error, ImportError) and not os.path.exists(__file__):
        _say(f"error: porttrace was removed or replaced while it ran ({error})")
        _say("hint: start it again; end traces before an upgrade")
        return 1
    if hint is None:
        _say(f"error: {type(error).__name__}: {error}")
        _say("hint: this is a defect of porttrace; --debug shows where it happened")
        return 1
    _say(f"error: {error}")
    if hint:
        _say(f"hint: {hint}")
    # The lab's errors stand apart from the tracer's and call their code otherwise.
    return int(getattr(error, "exit_code", getattr(error, "exit_status", 1)))


def _say(text: str) -> None:
    # A file's name, or what a file says of itself, may hold what acts on a terminal.
    from porttrace.analysis.render.escape import printable

    hearing.note(printable(text))
