"""The kernel tests in every kernel and hook mode, and the page of what came out."""

import shlex
import sys
import time
from pathlib import Path

from porttrace.tracer.hooks import MODES
from vm import table
from vm.errors import VmError
from vm.guest import CHECKOUT, TIMED_OUT, Guest, results_directory, run
from vm.kernels import SUITES

TIMEOUT_S = 3 * 3600
PAGE = CHECKOUT / "docs" / "kernels.md"
# For one test; an emulated guest is 10 to 20 times slower than this machine.
_TEST_TIMEOUT_S = 1800
_PYTEST = (
    *("env", "PORTTRACE_RUN_KERNEL_TESTS=1", f"PORTTRACE_EXPECTED_MODES={','.join(MODES)}"),
    *(".venv/bin/python", "-m", "pytest", "-q", "-m", "kernel"),
    *("-o", f"timeout={_TEST_TIMEOUT_S}"),
)
_NO_SUCH_MODE = 77
# Says why the kernel cannot have the mode and ends so. A kernel that can have it and
# then refuses a program is another matter: that fails the tests.
_HAS_MODE = f"""
import sys
from porttrace.tracer.modes import why_not
reason = why_not(sys.argv[1])
sys.exit(print(reason, file=sys.stderr) or {_NO_SUCH_MODE} if reason else 0)
"""


def short(guest: Guest) -> list[str]:
    """Return the command that tests every hook mode once, without the long random workloads."""
    report = results_directory(guest.kernel.version) / "short.xml"
    return [
        *_PYTEST,
        f"--junitxml={report}",
        "-k",
        "expected or every_way",
        "tests/kernel/test_modes.py",
    ]


def run_all(guests: list[Guest]) -> int:
    """Run all kernel tests, in a guest for each kernel and mode, and write the page.

    What other kernels gave before, if it is still in build/, stays in the page.
    Returns 0 when no test failed.
    """
    for guest in guests:
        folder = results_directory(guest.kernel.version)
        for old in folder.glob("all-*"):
            old.unlink()
        for mode in MODES:
            _run(guest, mode, folder / f"all-{guest.kernel.release}-{mode}.xml")
    columns = [each for version in SUITES for each in _columns(version)]
    table.write(PAGE, columns)
    print(f"vm: the results are in {PAGE.relative_to(CHECKOUT)}", file=sys.stderr)
    ours = {guest.kernel.release for guest in guests}
    return int(any(each.failed for each in columns if each.release in ours))


def _run(guest: Guest, mode: str, report: Path) -> None:
    # Leaves a report of pytest or, beside it, a note why there is none.
    print(f"vm: {guest.kernel.version}: mode {mode}", file=sys.stderr)
    tests = [*_PYTEST, f"--junitxml={report}", "tests/kernel", "tests/lab"]
    script = (
        f"{shlex.join(['.venv/bin/python', '-c', _HAS_MODE, mode])} || exit\n"
        f"export PORTTRACE_TEST_MODE={mode}\n"
        f"exec {shlex.join(tests)}"
    )
    started_s = time.monotonic()
    try:
        code = run(guest, ["sh", "-c", script], sys.stdout.buffer, sys.stderr.buffer)
    except VmError as error:
        note = f"{error.message}; {error.hint}"
    else:
        note = {
            TIMED_OUT: f"not done after {guest.timeout_s} s",
            _NO_SUCH_MODE: table.NO_SUCH_MODE,
        }.get(code, f"exit status {code}")
    taken_s = time.monotonic() - started_s
    print(f"vm: {guest.kernel.version}: {note} after {taken_s:.0f} s", file=sys.stderr)
    if not report.exists():
        report.with_suffix(".txt").write_text(note)


def _columns(version: str) -> list[table.Column]:
    folder = results_directory(version)
    found = []
    for mode in MODES:
        for path in folder.glob(f"all-*-{mode}.*"):
            release = path.stem.removeprefix("all-").removesuffix(f"-{mode}")
            found.append(table.read(path, release, mode))
    return found
