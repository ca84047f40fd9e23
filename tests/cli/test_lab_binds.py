"""`porttrace lab binds` around the trials; tests/lab/test_binds.py makes them for real."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from porttrace.analysis.render.sharing import BEGIN, END
from porttrace.cli import main
from porttrace.lab.binds import Tried
from sharing_trials import tried_by_rule

module = importlib.import_module("porttrace.cli.lab_binds")
TRIED = list(tried_by_rule("udp"))


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "try_all", lambda: TRIED)


def test_tables_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "binds"]) == 0
    out = capsys.readouterr().out
    assert out.endswith(" 0 differ from the rules.\n") and "UDP, the second calls bind" in out


def test_a_kernel_with_other_rules_makes_it_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong: list[Tried] = [replace(TRIED[0], errno=0), *TRIED[1:]]
    monkeypatch.setattr(module, "try_all", lambda: wrong)
    assert main(["lab", "binds"]) == 1
    assert "works, by rule EADDRINUSE" in capsys.readouterr().out
    assert main(["lab", "binds", "--json"]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"type": "summary", "combinations": len(TRIED), "differ": 1}


def test_json_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "binds", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == len(TRIED) + 1
    assert {row["type"] for row in rows} == {"combination", "summary"}
    assert rows[0]["error"] == "EADDRINUSE" and rows[0]["errno"] == rows[0]["predicted"] == 98


def test_a_file_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "binds.parquet"
    assert main(["lab", "binds", "-o", str(path)]) == 0
    table = pyarrow.parquet.read_table(path)
    assert table.num_rows == len(TRIED) and "second_options" in table.column_names
    assert main(["lab", "binds", "-o", str(path)]) == 1
    assert "--force" in capsys.readouterr().err


def test_tables_go_into_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "ports.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    assert main(["lab", "binds", "--into", str(page)]) == 0
    assert "| REUSEADDR | no | yes | no | yes |" in page.read_text()
    page.write_text("no markers")
    assert main(["lab", "binds", "--into", str(page)]) == 1
    assert "once each" in capsys.readouterr().err and page.read_text() == "no markers"
    assert main(["lab", "binds", "--into", str(tmp_path / "none.md")]) == 1
    assert "cannot be changed" in capsys.readouterr().err
