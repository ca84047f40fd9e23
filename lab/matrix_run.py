"""Makes the runs of the scenario matrix: each one a site, a throttle, a workload, a real trace.

Every run is a line of the file as soon as it has ended, so an interrupted matrix goes on where it
stopped: what the file holds already is not run again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from porttrace.lab.errors import LabError
from porttrace.lab.matrix import Case
from porttrace.lab.matrix_table import verdict
from porttrace.lab.scenarios import find, prepare_story
from porttrace.lab.site import read_records
from porttrace.lab.story import Scenario

_RUN_TIMEOUT_S = 150.0
_BACKGROUND_S = 4 * 3600
_PORTTRACE = (sys.executable, "-m", "porttrace.cli")

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read the runs that a file holds; a line that was cut off by a kill is left out."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(path, error) from error
    rows = (_row(line) for line in lines)
    return [row for row in rows if row is not None]


def run_matrix(
    cases: Sequence[Case],
    path: Path | None,
    tell: Callable[[str], None],
    run: Callable[[Case], Row] | None = None,
) -> list[Row]:
    """Run all cases that `path` does not hold yet, and return the rows of all of them.

    `path` None keeps no file. `tell` is called with a line for people after each run. A run that
    failed is a row with `error`, and is run again the next time. `run` is `run_case` otherwise.
    """
    run = run or run_case
    known = {row["key"]: row for row in read_rows(path) if not row["error"]} if path else {}
    for number, case in enumerate(cases, 1):
        if case.key in known:
            continue
        known[case.key] = row = run(case)
        if path:
            _append(path, row)
        tell(f"{number}/{len(cases)} {case.key}: {_words(row)}")
    return [known[case.key] for case in cases]


def run_case(case: Case, keep: Path | None = None) -> Row:
    """Run one case under the tracer and judge what it reported.

    In the folder `keep` its recording and the truth about it are left.
    """
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="porttrace-matrix-") as private:
        recording, truth = files_of(case, keep or Path(private))
        output = ["-o", str(recording), "--force"] if keep else []
        try:
            findings = _trace(_story(case), case, truth, output)
            row = {**verdict(case, findings, read_records(truth.read_text())), "error": ""}
        except (LabError, OSError, ValueError) as error:
            row = {**verdict(case, [], []), "error": str(error)}
    return {**row, "took_s": round(time.monotonic() - start_s, 1)}


@contextmanager
def unrelated(rate_per_s: int) -> Iterator[None]:
    """Have a program of no interest connect so often on loopback meanwhile; 0: none."""
    if not rate_per_s:
        yield
        return
    words = [
        "--rate",
        str(rate_per_s),
        "--seconds",
        str(_BACKGROUND_S),
        "--parent",
        str(os.getpid()),
    ]
    module = "porttrace.lab.workloads.background"
    with subprocess.Popen([sys.executable, "-m", module, *words]) as process:
        try:
            yield
        finally:
            process.kill()


def files_of(case: Case, folder: Path) -> tuple[Path, Path]:
    """Return where the recording of a case and the truth about it are kept."""
    name = case.key.replace("/", "-")
    return folder / f"{name}.ptrace", folder / f"{name}.truth.jsonl"


def _story(case: Case) -> Scenario:
    story = find(case.story)
    if case.throttle is None:
        return story
    return replace(story, throttle=case.throttle.kind, rate_per_s=case.throttle.rate_per_s)


def _trace(story: Scenario, case: Case, truth: Path, output: list[str]) -> list[Row]:
    with prepare_story(story, case.settings, truth) as prepared:
        return findings_of([*_PORTTRACE, "--json", *output, "--", *prepared.argv], prepared.env)


def findings_of(argv: Sequence[str], env: Mapping[str, str] | None = None) -> list[Row]:
    """Run porttrace and return the findings of the report that it printed as JSON.

    Raises LabError when there is none.
    """
    try:
        done = subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RUN_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {_RUN_TIMEOUT_S:.0f} s", "run it alone") from error
    reports = [row for row in map(_row, done.stdout.splitlines()) if row and _is_report(row)]
    if not reports:
        why = done.stderr.strip()[-400:]
        raise LabError(f"no report, status {done.returncode}: {why}", "run it alone")
    findings: list[Row] = reports[-1]["findings"]
    return findings


def _is_report(row: Row) -> bool:
    return "findings" in row and row.get("type", "report") == "report"


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _append(path: Path, row: Row) -> None:
    try:
        with path.open("ab+") as file:
            # A line that a kill has cut off stays alone.
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            cut_off = file.read() not in (b"", b"\n")
            file.write(b"\n" * cut_off + json.dumps(row).encode() + b"\n")
    except OSError as error:
        raise _unusable(path, error) from error


def _words(row: Row) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    found = row["found"]
    if not found:
        return f"{row['held']} held, no throttle found"
    told = ", ".join(str(found[name]) for name in ("place", "mechanism", "slots", "scope"))
    return f"{row['held']} held, {found['rule']}: {told}"


def _unusable(path: Path, error: OSError) -> LabError:
    return LabError(
        f"the file of the runs, {path}, cannot be used: {error.strerror}",
        "name another file with -o",
    )
