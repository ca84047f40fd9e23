"""The matrix without runs: which there are, how a report is judged, what the table says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from porttrace.lab import matrix_run, matrix_table
from porttrace.lab.errors import LabError
from porttrace.lab.matrix import Case, cases
from porttrace.lab.matrix_table import held, table, verdict
from porttrace.lab.scenarios import SCENARIOS
from porttrace.lab.story import Settings
from porttrace.lab.throttle import SCOPES_OF_KIND, Throttle

GATE = Case("gate/process/2/threads/1", "storm", Settings(), Throttle("gate", 2))
CONTROL = Case("control/lock/1", "lock", Settings(), None)


def finding(**changes: Any) -> dict[str, Any]:
    right = {"rule": "serialized-connects", "place": "gate", "mechanism": "queue"}
    return {**right, "slots": 2, "scope": "process", "confidence": 0.9, **changes}


def attempt(wait_s: float, result: str = "connected", to: str = "192.0.2.2:80") -> dict[str, Any]:
    return {
        "type": "attempt",
        "destination": to,
        "result": result,
        "start_ns": 10**9,
        "end_ns": 10**9 + round(wait_s * 1e9),
    }


HELD = [attempt(0.2)] * 5


def row(case: Case, findings: list[dict[str, Any]], truth: Any = HELD) -> dict[str, Any]:
    return {**verdict(case, findings, truth), "error": ""}


def test_every_throttle_scope_and_control_is_in_it() -> None:
    all_cases = cases(1, 1)
    seen = {(case.throttle.kind, case.throttle.scope) for case in all_cases if case.throttle}
    wanted = {(kind, scope) for kind, scopes in SCOPES_OF_KIND.items() for scope in scopes}
    assert wanted - seen == {("preload", "thread")}  # it holds nobody
    slots = {case.throttle.slots for case in all_cases if case.throttle}
    assert slots == {1, 2, 3, 10}
    controls = {case.story for case in all_cases if case.throttle is None}
    assert controls == {name for name, story in SCENARIOS.items() if not story.throttled}


def test_a_seed_gives_the_same_runs_and_another_one_other_timing() -> None:
    assert cases(2, 7) == cases(2, 7)
    first, second = cases(1, 7), cases(1, 8)
    assert [c.settings for c in first] != [c.settings for c in second]
    keys = [case.key for case in cases(3, 7)]
    assert len(keys) == len(set(keys)) == 3 * len(first)


def name_of(case: Case) -> str:
    return case.throttle.kind if case.throttle else case.story


def test_the_short_form_has_every_throttle_and_control() -> None:
    short, full = cases(1, 1, short=True), cases(1, 1)
    names = [{name_of(case) for case in each} for each in (short, full)]
    assert names[0] == names[1]
    assert len(short) < len(full) / 2


def test_a_right_finding_is_right_in_every_field() -> None:
    judged = row(GATE, [finding()])
    assert all(matrix_table.is_right(judged, field) for field in matrix_table.FIELDS)
    assert judged["held"] == 5 and not judged["control"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("rule", "paced-connects"), ("place", "egress"), ("mechanism", "drop")),
        *(("slots", 3), ("scope", "host")),
    ],
)
def test_one_wrong_field_is_wrong_alone(field: str, value: object) -> None:
    judged = row(GATE, [finding(**{field: value})])
    wrong = [name for name in matrix_table.FIELDS if not matrix_table.is_right(judged, name)]
    assert wrong == [field]


@pytest.mark.parametrize(
    "findings",
    [[], [finding(confidence=0.4)], [finding(rule="dead-destination")]],
    ids=["none", "unsure", "another rule"],
)
def test_without_a_throttle_found_all_is_wrong(findings: list[dict[str, Any]]) -> None:
    judged = row(GATE, findings)
    assert not any(matrix_table.is_right(judged, name) for name in matrix_table.FIELDS)
    assert row(CONTROL, findings)["found"] is None


def test_of_several_findings_that_of_the_right_rule_is_judged() -> None:
    others = [finding(rule="paced-connects", confidence=0.99), finding(confidence=0.6, slots=3)]
    assert row(GATE, [*others, finding()])["found"]["slots"] == 2


def test_a_control_that_was_called_throttled_is_told() -> None:
    rows = [row(CONTROL, [finding()]), row(CONTROL, [])]
    lines = table(rows).splitlines()
    assert any(line.split() == ["lock", "2", "1", "serialized-connects"] for line in lines)
    assert lines[-1].split() == ["all", "2", "1"]


def test_held_are_those_that_waited_or_were_denied() -> None:
    rows = [
        *(attempt(0.001), attempt(0.06), attempt(0.0, "ECONNREFUSED"), attempt(0.0, "EPERM")),
        *(attempt(5, "timeout", "192.0.2.66:9100"), {"type": "page"}),
    ]
    assert held(rows) == 3


def test_the_table_counts_only_runs_with_enough_held_attempts() -> None:
    rows = [
        *(row(GATE, [finding()]), row(GATE, [finding(slots=3)]), row(GATE, [], HELD[:3])),
        {**row(GATE, []), "error": "no report"},
    ]
    lines = table(rows).splitlines()
    assert lines[1].split()[:5] == ["gate", "3", "2", "2/2", "100.0%"]
    assert "1/2 50.0%" in lines[1]
    assert "wrong slots      gate           expected 2, said 3: 1" in lines
    assert lines[-1] == "failed: gate/process/2/threads/1: no report"


def test_two_attempts_have_a_table_of_their_own() -> None:
    (case,) = [each for each in cases(1, 1) if each.key == "gate/process/1/pair/1"]
    found = [finding(slots=1, confidence=0.6), finding(slots=1, confidence=0.95)]
    lines = table([row(case, [each], HELD) for each in found]).splitlines()
    assert "all               0       0" in lines[1]  # not among those with enough held
    (line,) = [line for line in lines if line.startswith("gate ")]
    assert line.split()[:4] == ["gate", "2", "1", "1"] and line.count("2/2 100.0%") == 5


def test_where_no_slots_can_be_expected_none_are_judged() -> None:
    case = Case("rate/host/1/processes/1", "storm", Settings(), Throttle("rate", 1, "host"))
    judged = row(case, [finding(rule="paced-connects", place="egress", slots=None)])
    assert matrix_table.is_right(judged, "slots") is None
    assert matrix_table.is_right(judged, "place") is True


def test_a_matrix_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs"
    failed = {**row(CONTROL, []), "error": "no report"}
    cut_off = json.dumps(row(CONTROL, []))[:40]
    path.write_text("\n".join((json.dumps(row(GATE, [finding()])), json.dumps(failed), cut_off)))
    made: list[str] = []

    def run_case(case: Case) -> dict[str, Any]:
        made.append(case.key)
        return row(case, [])

    monkeypatch.setattr(matrix_run, "run_case", run_case)
    rows = matrix_run.run_matrix([GATE, CONTROL], path, lambda line: None)
    assert made == [CONTROL.key]
    assert [each["key"] for each in rows] == [GATE.key, CONTROL.key]
    again = matrix_run.run_matrix([GATE, CONTROL], path, lambda line: None)
    assert again == rows and made == [CONTROL.key]


def test_a_file_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be used"):
        matrix_run.run_matrix([GATE], tmp_path, lambda line: None)


def test_a_run_that_fails_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare_story(*_: object) -> None:
        raise LabError("no such namespace", "make one")

    monkeypatch.setattr(matrix_run, "prepare_story", prepare_story)
    assert matrix_run.run_case(GATE)["error"] == "no such namespace"


@pytest.mark.kernel
def test_real_runs_are_traced_and_judged(tmp_path: Path) -> None:
    wanted = ("gate/process/1/threads/1", "egress-hold/host/1/processes/1", "control/lock/1")
    chosen = [case for case in cases(1, 1) if case.key in wanted]
    rows = {row["key"]: row for row in matrix_run.run_matrix(chosen, tmp_path / "f", print)}
    assert set(rows) == set(wanted) and not any(row["error"] for row in rows.values())
    gate, egress, lock = (rows[key] for key in wanted)
    assert gate["held"] >= 4 and all(
        matrix_table.is_right(gate, field) for field in matrix_table.FIELDS
    )
    assert egress["held"] >= 4
    assert lock["control"] and lock["found"] is None
