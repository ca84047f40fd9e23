"""Runs a command under a throttle: `python -m porttrace.lab.run gate --slots 1 -- COMMAND ...`.

`run_throttled` is the library's door; the command line here is what a scenario's argv calls.
"""

from __future__ import annotations

import argparse
import sys

from porttrace.lab.errors import LabError, WrongUsageError
from porttrace.lab.site import DEAD, LIVE, open_site
from porttrace.lab.throttle import (
    ANSWERS,
    PACKET_KINDS,
    ROUTED_KINDS,
    SCOPES_OF_KIND,
    Throttle,
    default_scope,
)
from porttrace.lab.throttles import (
    child,
    deny,
    deny_cgroup,
    egress_drop,
    egress_hold,
    gate,
    gateway,
    ingress_hold,
    netns,
    preload,
    rate,
)
from porttrace.tracer.errors import PorttraceError

SITE = f"{LIVE} answers there, and {DEAD} never does"

_RUNNERS = {
    "gate": gate.run,
    "preload": preload.run,
    "egress-hold": egress_hold.run,
    "egress-drop": egress_drop.run,
    "rate": rate.run,
    "rate-hold": rate.run_holding,
    "deny": deny.run,
    "deny-cgroup": deny_cgroup.run,
    "gateway": gateway.run,
    "gateway-drop": gateway.run_dropping,
    "ingress-hold": ingress_hold.run,
}


def run_throttled(throttle: Throttle, command: list[str]) -> int:
    """Run `command` under `throttle` and return its exit status (128 + signal when killed).

    A throttle of packets changes the packet filter of a whole network namespace, so it does that
    in the lab's own only: called anywhere else, it makes a site and runs the command there.

    Raises LabError, whose `exit_status` is 127 or 126 when the command could not be started.
    """
    if not command:
        raise WrongUsageError(
            "there is no command to throttle", "put it behind two dashes: -- COMMAND"
        )
    if throttle.kind in PACKET_KINDS and not netns.own_name():
        return _run_at_site(throttle, command)
    return _RUNNERS[throttle.kind](throttle, command)


def _run_at_site(throttle: Throttle, command: list[str]) -> int:
    with open_site(router=throttle.kind in ROUTED_KINDS) as site:
        print(f"note: the command runs on a host of the lab's own: {SITE}", file=sys.stderr)
        process = child.start(site.hosts.in_client(throttle.argv(command)))
        try:
            with child.signals_to(process):
                return child.exit_status(process.wait())
        except child.Stopped:
            return child.exit_status(process.wait())


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    # argparse.REMAINDER would take the throttle's own options for the command, so split here.
    words, command = _split(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words)
    try:
        return run_throttled(_throttle(options), command)
    except (LabError, PorttraceError) as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_status if isinstance(error, LabError) else error.exit_code


def _throttle(options: argparse.Namespace) -> Throttle:
    scope = options.scope or default_scope(options.kind)
    return Throttle(options.kind, options.slots, scope, options.rate, options.answer)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in argv:
        return argv, []
    dashes = argv.index("--")
    return argv[:dashes], argv[dashes + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="porttrace.lab.run",
        description=__doc__,
        usage="%(prog)s KIND [options] -- COMMAND ...",
    )
    scopes = sorted({scope for known in SCOPES_OF_KIND.values() for scope in known})
    parser.add_argument("kind", choices=sorted(SCOPES_OF_KIND), help="the throttle")
    parser.add_argument("--slots", type=int, default=1, help="attempts let through at once")
    parser.add_argument("--scope", choices=scopes, default="", help="whom it counts")
    parser.add_argument("--rate", type=float, default=2.0, help="attempts a second (rate kinds)")
    parser.add_argument("--answer", choices=ANSWERS, default="reset", help="what deny answers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
