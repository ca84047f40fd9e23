"""A real recording of SYNs held on their way out: what the commands that read it make of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tracing import run

pytestmark = pytest.mark.kernel
STORY = ("lab", "scenario", "egress-held-logins", "--pages", "4", "--dead-time", "4s")
LOGIN, POOLED = "192.0.2.2:389", ("192.0.2.2:80", "192.0.2.2:5432")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("egress") / "logins.ptrace"
    told = run(*STORY, "-o", str(path), timeout_s=100)
    assert told.returncode == 0, told.stderr
    return path


def predicted(recording: Path, *options: str) -> list[dict[str, Any]]:
    told = run("whatif", str(recording), "--json", *options)
    assert told.returncode == 0, told.stderr
    return list(json.loads(told.stdout)["predictions"])


def test_with_the_same_slots_nobody_waits_who_did_not(recording: Path) -> None:
    # GIVEN logins held behind one slot, and pooled connects that were not held
    traced, unchanged, same, more = predicted(recording, "--slots", "1,3")
    waited = {line["destination"]: line for line in traced["destinations"]}
    assert waited[LOGIN]["worst_s"] > 1
    assert all(waited[there]["worst_s"] < 0.01 for there in POOLED)
    # THEN the model with that one slot says the same of each destination
    assert same["destinations"] == unchanged["destinations"]
    assert same["total_s"] == pytest.approx(traced["total_s"], rel=0.1)
    told = {line["destination"]: line for line in same["destinations"]}
    assert told[LOGIN]["worst_s"] == pytest.approx(waited[LOGIN]["worst_s"], rel=0.1)
    assert all(told[there]["worst_s"] < 0.01 for there in POOLED)
    assert more["total_s"] < 0.1 * same["total_s"]


def test_show_tells_the_holds_and_where(recording: Path) -> None:
    told = run("show", str(recording), "attempts", "--held", "1s", "--sort", "took", "--json")
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(rows) >= 2
    assert {(row["destination"], row["held_place"]) for row in rows} == {(LOGIN, "egress")}
    assert all(row["held_ns"] >= row["wait_egress_ns"] > 1e9 for row in rows)
    assert [row["wait_beyond_ns"] for row in rows] == sorted(row["wait_beyond_ns"] for row in rows)


def test_live_lines_tell_them_too() -> None:
    told = run("lab", "scenario", "egress-held-logins", "--pages", "3", "--dead-time", "3s")
    lines = [line for line in told.stdout.splitlines() if " established " in line]
    assert any(LOGIN in line and line.split()[-2] == "egress" for line in lines)
    assert not any(there in line and "egress" in line for line in lines for there in POOLED)
