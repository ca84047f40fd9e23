"""Boots Debian's kernels with this machine's own root file system and runs things in them.

Without COMMAND it runs a short test of every hook mode. COMMAND runs as root at the root
of the checkout; what it changes is dropped at the end, except in build/vm/KERNEL.
Its exit status is passed on; 124 is a guest whose time was up.
"""

import argparse
import signal
import sys
import time

from vm import kvm, matrix
from vm.errors import VmError
from vm.guest import TIMED_OUT, Guest, run
from vm.kernels import SUITES, obtain

TIMEOUT_S = 900


def main(words: list[str]) -> int:
    """Do what the words of the command line ask for; return an exit status."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    command: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    options = _parser().parse_args(words)
    try:
        return _act(options, command)
    except VmError as error:
        print(f"vm: {error.message} (hint: {error.hint})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/vm",
        usage="scripts/vm [--fetch | --all] [--timeout SECONDS] [KERNEL...] [-- COMMAND...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(SUITES)
    parser.add_argument(
        "kernels", nargs="*", metavar="KERNEL", type=_kernel, help=f"{known}; none: all of them"
    )
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--fetch", action="store_true", help="only fetch the kernels")
    does.add_argument(
        "--all", action="store_true", help="run all kernel tests, and write docs/kernels.md"
    )
    parser.add_argument(
        "--timeout",
        type=int,
        metavar="SECONDS",
        help=f"end a guest after this time ({TIMEOUT_S}; with --all {matrix.TIMEOUT_S})",
    )
    return parser


def _kernel(word: str) -> str:
    if word not in SUITES:
        raise argparse.ArgumentTypeError(f"no kernel {word}; there are {', '.join(SUITES)}")
    return word


def _act(options: argparse.Namespace, command: list[str]) -> int:
    versions = options.kernels or list(SUITES)
    found = [obtain(version) for version in versions]
    if options.fetch:
        return 0
    with_kvm = kvm.works(found[0])
    if options.all:
        guests = [Guest(each, with_kvm, options.timeout or matrix.TIMEOUT_S) for each in found]
        return matrix.run_all(guests)
    guests = [Guest(each, with_kvm, options.timeout or TIMEOUT_S) for each in found]
    codes = [_run(each, command or matrix.short(each)) for each in guests]
    return next((code for code in codes if code), 0)


def _run(guest: Guest, command: list[str]) -> int:
    started_s = time.monotonic()
    code = run(guest, command, sys.stdout.buffer, sys.stderr.buffer)
    what = "not done, ended" if code == TIMED_OUT else f"exit status {code}"
    taken_s = time.monotonic() - started_s
    print(f"vm: {guest.kernel.version}: {what} after {taken_s:.0f} s", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
