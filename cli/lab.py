"""`porttrace lab`: real throttles around a command, and whole stories that end in a verdict."""

from contextlib import ExitStack
from dataclasses import fields
from tempfile import TemporaryDirectory
from typing import Any

import click

from porttrace.analysis.model import Finding
from porttrace.cli.child import Child
from porttrace.cli.completion import files
from porttrace.cli.lab_binds import binds
from porttrace.cli.live import output_file, trace_live
from porttrace.cli.matrix import matrix
from porttrace.cli.options import Duration, mode_option
from porttrace.lab import scenarios
from porttrace.lab.expected import THROTTLE_RULES
from porttrace.lab.run import run_throttled
from porttrace.lab.story import Scenario, Settings
from porttrace.lab.throttle import (
    ANSWERS,
    DESCRIPTION_OF_KIND,
    SCOPES_OF_KIND,
    TIMED_KINDS,
    Throttle,
    default_scope,
)
from porttrace.tracer import features
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.parts import Parts

_SCOPES = sorted({scope for scopes in SCOPES_OF_KIND.values() for scope in scopes})


@click.group()
def lab() -> None:
    """Reproduce throttles for real, in network namespaces that are removed again.

    \b
    Example:
      sudo porttrace lab scenario serialized-logins
    """


lab.add_command(binds)


@lab.command(name="list")
def list_scenarios() -> None:
    """List the throttles with the scopes of each, and the stories with what a trace must find.

    \b
    Example:
      porttrace lab list
    """
    for kind, scopes in SCOPES_OF_KIND.items():
        click.echo(f"{kind:<20} throttle: {DESCRIPTION_OF_KIND[kind]}")
        click.echo(f"{'':<20} counts by {', '.join(scopes)}")
    click.echo()
    for name in list(scenarios.SCENARIOS):
        story = scenarios.find(name)
        click.echo(f"{name:<22} {story.description}")
        click.echo(f"{'':<22} must find: {story.finding or 'no throttle'}")


@lab.command(context_settings={"ignore_unknown_options": False})
@click.argument("throttle", type=click.Choice(sorted(SCOPES_OF_KIND)))
@click.option("--slots", type=click.IntRange(0),
              help="Attempts let through at once (default: 1); 0: all.")  # fmt: skip
@click.option("--scope", type=click.Choice(_SCOPES),
              help="Whom the throttle counts (default: the process, where it can).")  # fmt: skip
@click.option("--rate", "rate_per_s", type=click.FloatRange(min=0, min_open=True),
              help="Attempts a second, for rate and rate-hold (default: 2).")  # fmt: skip
@click.option("--answer", type=click.Choice(ANSWERS),
              help="How deny rejects (default: reset).")  # fmt: skip
@click.argument("command", nargs=-1, type=click.UNPROCESSED, shell_complete=files, required=True)
def run(throttle: str, command: tuple[str, ...], **chosen: Any) -> int:
    """Run COMMAND under a real throttle; its exit status is passed on.

    Throttles that change the packet filter do so in network namespaces of the lab's own: COMMAND
    runs there, with a server at 192.0.2.2:80 and nobody at 192.0.2.66.

    \b
    Example:
      sudo porttrace lab run gate --slots 2 -- curl http://127.0.0.1/
    """
    given = {name: value for name, value in chosen.items() if value is not None}
    _check_given(throttle, given)
    wanted = {"scope": default_scope(throttle), **given}
    return run_throttled(Throttle(throttle, **wanted), list(command))


# What would change nothing was meant for another throttle.
def _check_given(throttle: str, given: dict[str, Any]) -> None:
    timed = throttle in TIMED_KINDS
    if timed and "slots" in given:
        raise click.UsageError(f"{throttle} counts by time: use --rate instead of --slots.")
    if not timed and "rate_per_s" in given:
        raise click.UsageError(f"--rate is for {' and '.join(TIMED_KINDS)}, not for {throttle}.")
    if throttle != "deny" and "answer" in given:
        raise click.UsageError(f"--answer is for deny, not for {throttle}.")


@lab.command()
@click.argument("name", type=click.Choice(list(scenarios.SCENARIOS)))
@click.option(
    "--dead-time",
    type=Duration(),
    help="How long the dead peer keeps an attempt; longer than from a page to the next.",
)
@click.option("--slots", type=click.IntRange(0), help="Slots of the throttle.")
@click.option("--scope", type=click.Choice(_SCOPES), help="Whom the throttle counts.")
@click.option("--pages", type=click.IntRange(1, 10_000), help="Page views of the web site.")
@click.option("--threads", type=click.IntRange(1, 1000), help="Threads of the workload.")
@click.option("--connects", type=click.IntRange(1, 10_000), help="Connects of each thread.")
@mode_option
@click.option("--truth", type=click.Path(dir_okay=False), help="Write what really happened here.")
@click.option(
    "-o", "--output", metavar="FILE", shell_complete=files, help="Record the trace here, too."
)
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
def scenario(
    name: str,
    mode: str | None,
    truth: str | None,
    output: str | None,
    force: bool,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Run a whole story: hosts, workload, throttle, trace and verdict.

    \b
    Example:
      sudo porttrace lab scenario serialized-logins --dead-time 21s
    """
    if force and not output:
        raise click.UsageError("--force needs -o: it is about the file of the recording.")
    story, settings = scenarios.find(name), _settings(chosen)
    if not story.throttle_with(settings) and (chosen["slots"] is not None or chosen["scope"]):
        raise click.UsageError(f"{name} has no throttle: leave --slots and --scope out.")
    features.require()
    with ExitStack() as ends:
        parts = ends.enter_context(output_file(output, force)) if output else None
        private = ends.enter_context(TemporaryDirectory(prefix="porttrace-"))
        # With a file for the exact truth the workload speaks in plain words.
        truth = truth or f"{private}/truth.jsonl"
        prepared = ends.enter_context(scenarios.prepare(name, settings, truth))
        return _trace(story, prepared, mode or "", as_json, parts)


lab.add_command(matrix)


def _trace(
    story: Scenario,
    prepared: scenarios.Prepared,
    mode: str,
    as_json: bool,
    parts: Parts | None,
) -> int:
    click.echo(f"Story: {prepared.description}.", err=True)
    found: list[Finding] = []
    with Child(prepared.argv, prepared.env, output_to_stderr=as_json) as child:
        options = TraceOptions(pids=frozenset((child.pid,)), follow_children=True, mode=mode)
        code = trace_live(options, child, None, as_json, parts=parts, on_end=found.extend)
        if child.status is None:
            return code  # stopped in the middle: the story has not been told
    return code or _judge(story, {finding.rule for finding in found})


def _judge(story: Scenario, rules: set[str]) -> int:
    # A story knows what a trace of it must find, and what it must not.
    if story.finding and story.finding not in rules:
        click.echo(f"This story must find {story.finding}: NOT FOUND.", err=True)
        return 1
    if not story.throttled and rules & THROTTLE_RULES:
        click.echo("This story has no throttle, and one was found: WRONG.", err=True)
        return 1
    told = f"{story.finding}: found" if story.finding else "no throttle: none was found"
    click.echo(f"This story must find {told}.", err=True)
    return 0


def _settings(chosen: dict[str, Any]) -> Settings:
    # An option that was left out keeps the story's own number.
    renamed = {"dead_time": "dead_time_s"}
    given = {renamed.get(key, key): value for key, value in chosen.items() if value is not None}
    known = {field.name for field in fields(Settings)}
    return Settings(**{key: value for key, value in given.items() if key in known})
