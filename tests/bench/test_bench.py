"""The benches run, and their ratios are possible. No time is asserted: machines differ."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHECKOUT = Path(__file__).parent.parent.parent
BENCH = CHECKOUT / "bench"


def lines(script: str, *words: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--json", *words],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("table", BENCH / "table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.kernel
def test_a_storm_is_recorded_whole() -> None:
    made = lines("storm.py", "--pairs=1", "--connects=3000", "--pace=0",
                 "--only=porttrace record", "--only=count in the kernel")  # fmt: skip
    assert {(each["tracer"], each["kind"]) for each in made} == {
        (tracer, kind)
        for tracer in ("porttrace record", "count in the kernel")
        for kind in ("established", "refused")
    }
    for each in made:
        # beside other tests no ratio is exact, and none is hundreds
        assert 0.02 < each["slowdown"] < 50 and 0.1 < each["client_cpu"] < 20
        if each["tracer"] == "porttrace record":
            assert each["seen"] == 1.0, "every attempt began and ended in the file"
            assert 5 < each["bytes"] / each["connects"] < 200
            assert each["tracer_cpu_s"] < 2


@pytest.mark.kernel
def test_the_first_event_comes_after_the_start() -> None:
    made = lines("startup.py", "--times=1", "--only=porttrace record")
    took = {each["what"]: each["seconds"][0] for each in made}
    assert 0.05 < took["porttrace record"] < 30
    assert took["python3 -c pass"] < took["porttrace record"]
    assert took["porttrace --help"] < 20 * took["python3 -c pass"]


def test_reading_is_measured_against_a_floor() -> None:
    made = lines("offline.py", "--attempts=5000", "--times=1")
    assert [each["work"].partition(":")[0] for each in made] == ["floor", "attempts", "report"]
    assert all(each["peak_mb"] > 20 and 0 < each["cpu_s"] < 60 for each in made)


def test_a_table_takes_the_place_of_the_one_before(
    table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench a -->\nold\n<!-- end of a -->\nafter\n")
    for number in (1, 2):
        table.keep("a", table.markdown(("what", "n"), [("x", str(number))]), page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "| x | 2 |" in text and "old" not in text and "| x | 1 |" not in text
    assert "| x | 2 |" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no place"):
        table.keep("b", "", page)


def test_reading_a_fleet_is_measured() -> None:
    (made,) = lines("fleet.py", "--hosts=2", "--attempts=500", "--workers=1")
    assert (made["hosts"], made["attempts"]) == (2, 1000)
    assert made["worker_peak"] > 50e6 and made["client_peak"] > 50e6
    assert 5 < made["disk"] / made["attempts"] < 500
    assert 1_000 < made["summary"] < 200_000


def test_the_page_has_a_place_for_each_bench(table: ModuleType) -> None:
    text = table.PAGE.read_text()
    for name in ("storm", "startup", "offline"):
        assert text.count(f"<!-- bench {name} -->") == text.count(f"<!-- end of {name} -->") == 1
        assert f"`{name}`" in text
    scale = table.PAGE.with_name("scale.md").read_text()
    assert scale.count("<!-- bench fleet -->") == scale.count("<!-- end of fleet -->") == 1
