"""porttrace probe: connects of our own from the place of a process; opt-in, bounded."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import click

from porttrace.analysis.render.escape import printable
from porttrace.analysis.render.wrap import wrapped
from porttrace.cli.options import Pid
from porttrace.cli.running import check_targets
from porttrace.tracer import features, namespaces, processes
from porttrace.tracer.errors import NotPermittedError
from porttrace.tracer.trial import (
    MOST_ATTEMPTS,
    MOST_S,
    Conclusion,
    Measured,
    Place,
    Trial,
    conclude,
    place_of,
)


class Numeric(click.ParamType):  # type: ignore[type-arg]
    """An address and a port, 192.0.2.66:9100 or [2001:db8::66]:9100. A tuple (host, port)."""

    name = "address:port"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        """Return the pair; names are no addresses: looking them up would connect, too."""
        import ipaddress

        match = re.fullmatch(r"\[?([0-9a-fA-F:.]+?)\]?:(\d{1,5})", str(value))
        try:
            host = str(ipaddress.ip_address(match[1] if match else ""))
            port = int(match[2]) if match else 0
        except ValueError:
            port = 0
        if not 0 < port < 65536:
            self.fail(f"{value!r} is no address and port; write 192.0.2.66:9100", param, ctx)
        return host, port


@click.command(name="probe")
@click.option("-p", "--pid", required=True, type=Pid(), metavar="PID",
              help="From the network, user and control group of this process.")  # fmt: skip
@click.option("--dead", type=Numeric(),
              help="An address that never answers: attempts to it stay open.")  # fmt: skip
@click.option("--live", type=Numeric(), help="A port that somebody listens on.")
@click.option(
    "--lab", is_flag=True, help="To hosts of the lab, made for it: nothing leaves this machine."
)
@click.option("--slots", type=click.IntRange(2, MOST_ATTEMPTS), default=8, show_default=True,
              help="Open so many attempts at once to DEAD.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def probe(
    pid: int,
    dead: tuple[str, int] | None,
    live: tuple[str, int] | None,
    lab: bool,
    slots: int,
    yes: bool,
    as_json: bool,
) -> None:
    """Measure a throttle by a few connects of our own, from the place of a process.

    Says first what it will do, and asks. It connects: to DEAD, which must be an address that never
    answers and that you may send SYNs to, and to LIVE, whose connections are closed at once. What
    only the process itself has (a preloaded library, a seccomp filter, a tracer) cannot be measured
    so: trace it instead. With --lab it keeps user and control group, and leaves the network: what
    counts those shows there, too.

    \b
    Example:
      sudo porttrace probe --pid 1234 --dead 192.0.2.66:9100 --live 192.0.2.2:80
      sudo porttrace probe --pid 1234 --lab
    """
    if lab == bool(dead or live) or not (lab or (dead and live)):
        raise click.UsageError("name both --dead and --live, or --lab and neither of them.")
    if dead and dead == live:
        raise click.UsageError("--dead and --live are the same: DEAD must not answer, LIVE must.")
    if os.geteuid() != 0:
        raise NotPermittedError(
            "only root may put a process in the place of another", features.sudo_line()
        )
    namespaces.require_host_pids()
    check_targets([pid])
    place, cannot = place_of(pid)
    with _lab_of(place) if lab else nullcontext((place, dead, live)) as (there, to_dead, to_live):
        assert to_dead and to_live
        _agree(announcement(place, to_dead, to_live, slots, cannot, lab), yes)
        measured = Trial(there, to_dead, to_live, slots).run()
    result = conclude(measured)
    if as_json:
        click.echo(json.dumps(values(measured, result)))
    else:
        click.echo("\n".join(lines(measured, result)))


@contextmanager
def _lab_of(place: Place) -> Iterator[tuple[Place, tuple[str, int], tuple[str, int]]]:
    # The same user and control group, on the client host of the lab.
    from porttrace.lab.site import DEAD, LIVE, open_site

    number = Numeric()
    with open_site() as site:
        words = site.hosts.in_client(["sh", "-c", "echo up; exec sleep 600"])
        with subprocess.Popen(words, stdout=subprocess.PIPE) as stay:
            try:
                assert stay.stdout is not None
                stay.stdout.readline()
                dead, live = (number.convert(each, None, None) for each in (DEAD, LIVE))
                yield replace(place, pid=stay.pid), dead, live
            finally:
                stay.kill()


def announcement(
    place: Place,
    dead: tuple[str, int],
    live: tuple[str, int],
    slots: int,
    cannot: tuple[str, ...],
    lab: bool = False,
) -> str:
    """Return what will be done, in words."""
    known = processes.read_process(place.pid)
    group = f", control group {place.cgroup}" if place.cgroup else ""
    text = [
        f"{'From a host of the lab, as' if lab else 'From the network namespace of'} {known.comm} "
        f"(pid {place.pid}), user {known.user}{group}:",
        f"- up to {slots} attempts to {dead[0]} port {dead[1]}, one after the other, kept open;",
        f"- a connect to {live[0]} port {live[1]} after each, reset at once; when one waits, four "
        "more (another process, user, control group, neither);",
        f"- all over within {MOST_S:.0f} s. A firewall that counts tracked connections may count "
        "them for two minutes more.",
        *(f"The probe cannot have {what}." for what in cannot),
        *(["Nor its network: what is in the way only there does not show."] if lab else []),
    ]
    return "\n".join(line for each in text for line in wrapped(printable(each), "", "  "))


def _agree(text: str, yes: bool) -> None:
    click.echo(text, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to be asked: say --yes to go ahead.")
    click.confirm("Go ahead?", abort=True, err=True)


def lines(measured: Measured, result: Conclusion) -> list[str]:
    """Return the result as text."""
    out = []
    for step in measured.steps:
        live = f"connected in {1000 * step.live_s:.1f} ms"
        live = live if step.live == "connected" else _WAITED[step.live].format(step.live_errno)
        last = f", the last one {_LAST[step.state]}" if step.open else ""
        out += wrapped(f"{step.open:>2} open{last}; the live connect {live}", "  ", " " * 6)
    for who, waits in measured.held.items():
        out += wrapped(f"{_WHO[who]}: {_ALSO[waits]}", "  meanwhile ", " " * 6)
    return [*out, *wrapped(result.sentence)]


_LAST = {"through": "in SYN_SENT", "before": "held before its SYN", "ended": "ended at once"}
_WAITED = {
    "before": "was held before its SYN",
    "through": "sent its SYN and waited",
    "ended": "failed (errno {})",
}
_WHO = {
    "process": "in another process of the same user and control group",
    "user": "as the same user, in our control group",
    "cgroup": "as root, in the same control group",
    "netns": "as root, in our control group, in the same network namespace",
}
_ALSO = {True: "a connect waits or fails, too", False: "a connect goes through"}


def values(measured: Measured, result: Conclusion) -> dict[str, Any]:
    """Return the result as values for JSON."""
    steps = [vars(step) for step in measured.steps]
    return {"type": "probe", **vars(result), "steps": steps, "held": measured.held}
