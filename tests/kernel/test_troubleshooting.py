"""docs/troubleshooting.md: the story of each row, and the row's words in what porttrace says."""

import re

import pytest

from pages import ROOT, tables
from porttrace.lab.scenarios import SCENARIOS
from tracing import run

PAGE = ROOT / "docs" / "troubleshooting.md"
ROWS = {row[-1].strip("`"): row for row in tables(PAGE, "you see")}
_WORDS = re.compile(r'"([^"]+)"|`([^`]+)`')


def words(row: list[str]) -> list[str]:
    """Return what a row claims to be porttrace's own words: what is quoted, or a command."""
    return [quoted or code for cell in row[1:-1] for quoted, code in _WORDS.findall(cell)]


def pattern(claimed: str) -> str:
    """Return a pattern for words, in which … stands for anything short."""
    return ".{1,60}?".join(re.escape(part.strip()) for part in claimed.split("…"))


def test_each_row_has_a_story_of_its_own() -> None:
    assert len(ROWS) == len(tables(PAGE, "you see")) > 10
    told = [name for name in ROWS if not name.endswith(".ptrace")]
    assert set(told) <= set(SCENARIOS)
    assert all(len(words(row)) >= 2 for row in ROWS.values())


@pytest.mark.kernel
@pytest.mark.parametrize("name", [name for name in ROWS if name in SCENARIOS])
def test_porttrace_answers_in_the_words_of_the_row(name: str) -> None:
    done = run("lab", "scenario", name, timeout_s=200)
    assert done.returncode == 0, done.stderr
    said = " ".join(f"{done.stdout} {done.stderr}".split())
    missing = [claimed for claimed in words(ROWS[name]) if not re.search(pattern(claimed), said)]
    assert not missing, said


@pytest.mark.parametrize("name", [name for name in ROWS if name.endswith(".ptrace")])
def test_a_recording_says_the_words_of_its_row(name: str) -> None:
    done = run("report", str(ROOT / name), timeout_s=100)
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert not [each for each in words(ROWS[name]) if not re.search(pattern(each), said)], said
