"""`porttrace whatif FILE`: the waits behind a recorded throttle, if something were changed."""

import json
from typing import Any

import click

from porttrace.analysis import whatif as model
from porttrace.analysis.recording import load
from porttrace.analysis.render.whatif import whatif_json, whatif_text
from porttrace.analysis.replay import Demand
from porttrace.analysis.whatif import Prediction
from porttrace.cli.options import RECORDING, Duration, Endpoint
from porttrace.cli.writing import say_incomplete

_MOST_SLOTS = 10_000


class _Slots(click.ParamType):  # type: ignore[type-arg]
    # Numbers of slots with commas: 2,4.
    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        words = str(value).split(",")
        good = all(w.isdecimal() and len(w) < 6 and 0 < int(w) <= _MOST_SLOTS for w in words)
        if not good:
            self.fail(f"{value!r} are no numbers of slots; write 2 or 2,4", param, ctx)
        return tuple(map(int, words))


@click.command(name="whatif")
@click.argument("file", type=RECORDING)
@click.option("--slots", type=_Slots(), metavar="N,...", help="With so many slots instead.")
@click.option(
    "--connect-timeout",
    "timeout_s",
    type=Duration(),
    help="If programs gave up each attempt after this time.",
)
@click.option(
    "--probe-first",
    "probes",
    multiple=True,
    type=Endpoint(),
    metavar="HOST:PORT",
    help="If a cheap probe came before each connect there; may be given several times.",
)
@click.option(
    "--probe-time",
    "probe_s",
    type=Duration(),
    help="How long such a probe takes where nothing answers (default: 200ms).",
)
@click.option("--restart", is_flag=True, help="If everything connected again at once, now.")
@click.option(
    "--pool",
    type=click.IntRange(1, 1000),
    help="Connections that a restart opens to each destination (default: 1).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def whatif(file: str, as_json: bool, **changes: Any) -> None:
    """Predict the waits behind a recorded throttle, if something were changed.

    The throttle that 'porttrace report FILE' names (serialized-connects) is replayed as a queue.
    First stands how well that, unchanged, gives the waits of the recording itself; where it does
    not, nothing is predicted and the exit code is 1. Without an option: twice and four times the
    slots.

    \b
    Example:
      porttrace whatif login.ptrace --slots 2,4 --connect-timeout 3s
      porttrace whatif login.ptrace --probe-first 192.0.2.66:9100 --restart
      porttrace whatif login.ptrace --json | jq .predictions
    """
    if changes["probe_s"] and not changes["probes"]:
        raise click.UsageError("--probe-time needs --probe-first: it is about that probe.")
    if changes["pool"] and not changes["restart"]:
        raise click.UsageError("--pool needs --restart: it is about that restart.")
    recording = load(file)
    say_incomplete(recording)
    throttle = model.throttle_of(recording.trace)
    fit = model.believable(throttle)
    demand = throttle.demand
    told = [model.as_traced(demand), model.unchanged(demand), *_predictions(demand, **changes)]
    if as_json:
        click.echo(json.dumps(whatif_json(throttle, fit, told)))
    else:
        click.echo(whatif_text(throttle, fit, told))


def _predictions(
    demand: Demand,
    slots: tuple[int, ...] | None,
    timeout_s: float | None,
    probes: tuple[str, ...],
    probe_s: float | None,
    restart: bool,
    pool: int | None,
) -> list[Prediction]:
    if not (slots or timeout_s or probes or restart):
        slots = (2 * demand.slots, 4 * demand.slots)
    told = [model.with_slots(demand, number) for number in slots or ()]
    if timeout_s:
        told.append(model.with_timeout(demand, timeout_s))
    if probes:
        told.append(model.with_probe(demand, probes, probe_s or model.PROBE_S))
    if restart:
        told.append(model.restart(demand, pool or 1))
    return told
