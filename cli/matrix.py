"""The command `porttrace lab matrix`: how often a trace tells the truth, counted."""

from functools import partial
from pathlib import Path

import click

from porttrace.lab.matrix import cases
from porttrace.lab.matrix_dropped import judge_again
from porttrace.lab.matrix_run import run_case, run_matrix, unrelated
from porttrace.lab.matrix_table import table
from porttrace.tracer import features


@click.command()
@click.option("--runs", type=click.IntRange(1, 1000), default=1, show_default=True,
              help="How often each throttle and each control is run.")  # fmt: skip
@click.option("--short", is_flag=True, help="Fewer scopes, and 1 and 2 slots only.")
@click.option("--seed", type=int, default=1, show_default=True, help="Draws all the timing.")
@click.option("--only", metavar="WORD", default="", help="Only runs with this in their name.")
@click.option("--controls", type=click.IntRange(1, 1000),
              help="How often each control is run, if not as often as each throttle.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
              help="A line of JSON per run; runs that it holds are not made again.")  # fmt: skip
@click.option("--background", type=click.IntRange(0, 10_000), default=0, metavar="RATE",
              help="So many unrelated connects a second go on meanwhile.")  # fmt: skip
@click.option("--keep", "folder", type=click.Path(file_okay=False, path_type=Path),
              help="Keep the recording of each run in this folder.")  # fmt: skip
@click.option("--again", type=click.Path(file_okay=False, exists=True, path_type=Path),
              help="Run nothing: judge the recordings that --keep left here.")  # fmt: skip
@click.option("--drop", type=click.FloatRange(0, 99), default=0, metavar="PERCENT",
              help="With --again: take so many of their events out, at random.")  # fmt: skip
@click.option("--uncounted", is_flag=True, help="With --drop: nothing says that they were lost.")
def matrix(
    runs: int,
    short: bool,
    seed: int,
    only: str,
    controls: int | None,
    output: Path | None,
    background: int,
    folder: Path | None,
    again: Path | None,
    drop: float,
    uncounted: bool,
) -> int:
    """Run every throttle and every control, and print how often the trace told the truth.

    This takes about ten seconds a run; with -o it can be interrupted and goes on where it was.

    \b
    Example:
      sudo porttrace lab matrix --controls 5 -o matrix.ndjson --keep recordings
      sudo porttrace lab matrix --controls 5 --again recordings --drop 10
    """
    if (drop or uncounted) and not again:
        raise click.UsageError("--drop and --uncounted are for the recordings of --again.")
    chosen = [case for case in cases(runs, seed, short, controls) if only in case.key]
    if not chosen:
        raise click.BadParameter(f"no run has {only!r} in its name.", param_hint="'--only'")
    if again:
        run = partial(judge_again, folder=again, share=drop / 100, counted=not uncounted)
    else:
        features.require()
        run = partial(run_case, keep=folder)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with unrelated(background):
        rows = run_matrix(chosen, output, lambda line: click.echo(line, err=True), run)
    click.echo(table(rows))
    return int(any(row["error"] for row in rows))
