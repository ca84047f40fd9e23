"""`porttrace top`: who waits for what right now, a line a process, until somebody ends it."""

import os
import shutil
import sys
import time
from contextlib import ExitStack
from typing import Any

import click

from porttrace.analysis.render.top import plain
from porttrace.analysis.top import SORTS
from porttrace.cli.hearing import note
from porttrace.cli.options import Duration, filters, keep_root_option, trace_options
from porttrace.cli.running import check_targets, over, say_what_names_leave_out, stop_flag
from porttrace.cli.watching import PIPE_WIDTH, Lines, Output, Watch
from porttrace.tracer import features
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.privileges import lesser


@click.command(name="top")
@filters
@click.option(
    "-i",
    "--interval",
    type=Duration(),
    default=2.0,
    metavar="TIME",
    help="From one screen to the next (default: 2s).",
)
@click.option(
    "-s",
    "--sort",
    type=click.Choice(list(SORTS)),
    default="worst",
    show_default=True,
    help="Order of the processes; its first letter, pressed, chooses it, too.",
)
@click.option(
    "--window",
    type=Duration(),
    default=300.0,
    metavar="TIME",
    help="Verdicts are about so much time (default: 5m).",
)
@click.option("--once", is_flag=True, help="One look after one interval, then the end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a look, and no screen.")
@click.option("-d", "--duration", type=Duration(), help="Stop after this time (30, 30s, 5m).")
@keep_root_option
def top(
    interval: float,
    sort: str,
    window: float,
    once: bool,
    as_json: bool,
    duration: float | None,
    keep_root: bool,
    **chosen: Any,
) -> None:
    """Show who waits for connections right now, a line a process, and why.

    Each line has the sockets in SYN_SENT, all attempts that are wanted, those that are
    held on this host, the longest wait of this moment and where that stands, attempts
    and failures a second, and the verdict. Letters choose the order; q or Ctrl-C ends it.
    In a pipe it prints tables. docs/top.md tells how to read it.

    \b
    Example:
      sudo porttrace top
      sudo porttrace top --pid 1234 --children --sort held
      sudo porttrace top --once --json --interval 5s | jq .processes
    """
    features.require()
    check_targets(chosen["pids"])
    options = trace_options(**chosen)
    say_what_names_leave_out(options)  # the screen itself says what is not seen without a target
    with ExitStack() as ends:
        stopped = ends.enter_context(stop_flag())
        output = Lines(sort, as_json) if once or as_json or not _has_screen() else _screen(sort)
        rights = None if keep_root else lesser()
        live_trace = ends.enter_context(LiveTrace(options, features.compile_flags(), rights))
        ends.enter_context(output)
        watch = Watch(live_trace, output, interval, window)
        until = time.monotonic() + duration if duration else float("inf")
        ended = False
        while not (ended or stopped() or output.over or time.monotonic() >= until):
            watch.turn()
            ended = over(options, None) or (once and watch.last is not None)
        if ended and not once:
            watch.end()
    if ended and not once:
        _say_ended(watch, output)


# By its name and not by rich, which is imported only where there is a screen.
def _has_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def _screen(sort: str) -> Output:
    from porttrace.cli.screen import OnScreen

    return OnScreen(sort)


def _say_ended(watch: Watch, output: Output) -> None:
    if watch.last and not isinstance(output, Lines):
        # The screen is gone, and with it what was seen in the end.
        width = min(shutil.get_terminal_size().columns, PIPE_WIDTH)
        click.echo(plain(watch.last, watch.about, width))
    note("note: all processes that were traced have ended")
