"""The page of kernels says what pytest reported, and keeps what stands around it."""

import subprocess
import sys
from pathlib import Path

import pytest

from vm.table import BEGIN, END, NO_SUCH_MODE, Column, read, render, write

TESTS = """
import pytest

def test_fine(): pass
def test_wrong(): assert 1 == 2, "no | such thing"
def test_left(): pytest.skip("not here")

@pytest.fixture
def broken(): raise OSError("gone")
def test_not_set_up(broken): pass
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pytest really writes of one test of each kind."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    subprocess.run([*command, "--junitxml=it.xml"], cwd=folder, check=False, capture_output=True)
    return folder / "it.xml"


def test_each_kind_of_outcome(report: Path) -> None:
    column = read(report, "6.1.0-1-amd64", "kprobe")
    words = {name.partition("::")[2]: case.word for name, case in column.cases.items()}
    assert words == {
        "test_fine": "ok",
        "test_wrong": "FAIL",
        "test_left": "skip",
        "test_not_set_up": "FAIL",
    }
    assert column.failed
    assert column.time_s > 0


def test_a_column_for_every_kernel_and_mode(report: Path) -> None:
    columns = [read(report, "5.10.0-1-amd64", "fentry"), Column("6.1.0-1-amd64", "kprobe")]
    lines = render(columns).splitlines()
    assert "| 5.10.0-1-amd64 | fentry | 1 | 2 | 1 | 0 |  |" in lines
    assert "| test | 5.10.0 fentry | 6.1.0 kprobe |" in lines
    assert "| `test_it::test_fine` | ok |  |" in lines
    assert any("test_left` skip: `not here`" in line for line in lines)


def test_a_note_instead_of_tests(tmp_path: Path) -> None:
    note = tmp_path / "it.txt"
    note.write_text("not done after 7 s\n")
    column = read(note, "5.10.0-1-amd64", "fentry")
    assert column.failed
    assert "| 5.10.0-1-amd64 | fentry | 0 | 0 | 0 | 0 | not done after 7 s |" in render([column])
    note.write_text(NO_SUCH_MODE)
    assert not read(note, "5.10.0-1-amd64", "fentry").failed


def test_only_what_is_between_the_marks_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# before\n{BEGIN}\nold\n{END}\nafter\n")
    for release in ("5.10.0", "6.1.0"):
        write(page, [Column(release, "kprobe", note="a | b")])
    text = page.read_text()
    assert text.startswith(f"# before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "5.10.0" not in text
    assert "a \\| b" in text
