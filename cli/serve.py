"""`porttrace serve`: what is traced as metrics for Prometheus, for as long as it runs."""

import dataclasses
import gc
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from porttrace.analysis.render.escape import printable
from porttrace.cli import serving
from porttrace.cli.hearing import note
from porttrace.cli.options import Duration, Endpoint, filters, keep_root_option, trace_options
from porttrace.cli.running import (
    Pace,
    check_targets,
    over,
    say_what_is_left_out,
    stop_flag,
    what_is_traced,
)
from porttrace.tracer import features
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.memory import release
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.privileges import lesser

if TYPE_CHECKING:
    from porttrace.cli.exporter import Exporter, Textfile

_LISTEN = "127.0.0.1:9747"
_TEXTFILE_S = 15.0


@click.command(name="serve")
@click.option("--listen", type=Endpoint(_LISTEN), metavar="ADDR:PORT",
              help=f"Answer here; default {_LISTEN}, with --textfile nowhere.")  # fmt: skip
@click.option("--textfile", metavar="DIR",
              help="Write porttrace.prom into this folder for node_exporter.")  # fmt: skip
@filters
@click.option("-d", "--duration", type=Duration(), help="Stop after this time (30, 30s, 5m).")
@keep_root_option
def serve(
    listen: str | None,
    textfile: str | None,
    duration: float | None,
    keep_root: bool,
    **chosen: Any,
) -> int:
    """Export metrics for Prometheus until Ctrl-C, SIGTERM or -d.

    Everything is counted in bounded memory, so that it can run for months. Names of threads and
    ports of listeners are labels, the busiest of them; no pid and no address ever is. Findings are
    those of the live trace, over the last 5 minutes. docs/metrics.md has every metric.

    \b
    Example:
      sudo porttrace serve
      sudo porttrace serve --container web --listen 192.0.2.1:9747
      sudo porttrace serve --textfile /var/lib/prometheus/node-exporter
    """
    from porttrace.cli import exporter

    features.require()
    check_targets(chosen["pids"])
    with ExitStack() as ends:
        where = listen or ("" if textfile else _LISTEN)
        door = ends.enter_context(exporter.Endpoint(*ends_of(where))) if where else None
        file = exporter.Textfile(textfile) if textfile else None
        rights = None if keep_root else lesser(textfile)
        options = bounded(trace_options(**chosen), chosen)
        stopped = ends.enter_context(stop_flag())
        live = ends.enter_context(LiveTrace(options, features.compile_flags(), rights))
        watcher = serving.Watcher(live)
        made = exporter.Exporter(watcher.families)
        if file:
            file.write(made.text())  # now: what is wrong with the folder shows
            ends.callback(file.remove)
        if door:
            door.serve(made)
        places = [f"http://{door.name}/metrics"] if door else []
        places += [f"{file.folder}/{exporter.FILE}"] if file else []
        begin_note(options, places)
        until = time.monotonic() + duration if duration else float("inf")
        _run(watcher, lambda: stopped() or over(options, None), until, made, file)
    return 0


def ends_of(where: str) -> tuple[str, int]:
    """Return address and port of `127.0.0.1:9747` or `[::1]:9747`."""
    address, _, port = where.rpartition(":")
    return address.strip("[]"), int(port)


def bounded(options: TraceOptions, chosen: dict[str, Any]) -> TraceOptions:
    """Return the options with the bounds of a trace that lasts for months.

    Clients that bind any port are left out unless --binds asks for them: they are of no metric.
    """
    asked = chosen.get("binds") or chosen.get("no_binds")
    return dataclasses.replace(
        options,
        binds=options.binds if asked else "fixed",
        round_ms=serving.ROUND_MS,
        backlog_bytes=serving.BACKLOG_BYTES,
        most_new=serving.MOST_NEW,
        sample_s=serving.SAMPLE_S,
        max_attempts=serving.MOST_ATTEMPTS,
    )


def begin_note(options: TraceOptions, places: list[str]) -> None:
    """Say what is traced, and where the metrics are."""
    what = what_is_traced(options, None)
    text = f"Serving {what} at {' and '.join(places)}. Ctrl-C ends it."
    note(printable(text))
    say_what_is_left_out(options)


def _run(
    watcher: serving.Watcher,
    ended: Callable[[], bool],
    until_s: float,
    made: "Exporter",
    file: "Textfile | None",
) -> None:
    gc.freeze()  # what is there by now stays: it need not be looked at again and again
    release()
    pace = Pace(_TEXTFILE_S)
    while not ended() and time.monotonic() < until_s:
        watcher.round()
        if file:
            pace.run(lambda: _write(file, made))
    watcher.finish()


# A full disk is no reason to end: what stood in the file stays until there is room again.
def _write(file: "Textfile", made: "Exporter") -> None:
    try:
        file.write(made.text())
    except PorttraceError as error:
        note(f"warning: {error}")
