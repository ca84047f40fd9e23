"""Each notebook runs from its first cell to its last, and is kept without outputs."""

import warnings
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, 4)  # type: ignore[no-untyped-call]


def test_there_are_some() -> None:
    assert len(FILES) >= 3


@each_notebook
def test_it_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # ipykernel talks to itself over loopback, which is all that is asked of it here.
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    with warnings.catch_warnings():
        # what jupyter_client and zmq deprecate of each other is not ours to mend
        warnings.simplefilter("ignore")
        from nbclient import NotebookClient

        where = {"metadata": {"path": str(NOTEBOOKS)}}
        NotebookClient(read(path), timeout=60, kernel_name="python3", resources=where).execute()


@each_notebook
def test_it_is_stripped(path: Path) -> None:
    for cell in read(path).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@each_notebook
def test_it_reads_small_real_recordings(path: Path) -> None:
    text = path.read_text()
    used = [file for file in (NOTEBOOKS / "data").iterdir() if f"data/{file.name}" in text]
    assert used
    assert max(file.stat().st_size for file in used) < 50_000


@each_notebook
def test_readme_names_it(path: Path) -> None:
    assert f"`{path.name}`" in (NOTEBOOKS / "README.md").read_text()
