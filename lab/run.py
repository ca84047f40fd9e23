"""Runs a command under a throttle: `python -m porttrace.lab.run gate --slots 1 -- COMMAND ...`.

`run_throttled` is the library's door; the command line here is what a scenario's argv calls.
"""

from __future__ import annotations

import argparse
import sys

from porttrace.lab.errors import LabError
from porttrace.lab.throttle import SCOPES_OF_KIND, Throttle
from porttrace.lab.throttles import gate, preload

_RUNNERS = {"gate": gate.run, "preload": preload.run}


def run_throttled(throttle: Throttle, command: list[str]) -> int:
    """Run `command` under `throttle` and return its exit status (128 + signal when killed).

    Raises LabError, whose `exit_status` is 127 or 126 when the command could not be started.
    """
    if not command:
        raise LabError("there is no command to throttle", "put it behind two dashes: -- COMMAND")
    return _RUNNERS[throttle.kind](throttle, command)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    # argparse.REMAINDER would take the throttle's own options for the command, so split here.
    words, command = _split(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words)
    try:
        return run_throttled(Throttle(options.kind, options.slots, options.scope), command)
    except LabError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_status


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
    parser.add_argument("--scope", choices=scopes, default="process", help="whom it counts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
