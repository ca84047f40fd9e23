"""The wheel holds every file of the package, and works in a fresh environment."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from packages import build

CHECKOUT = Path(__file__).parent.parent.parent
GOLDEN = CHECKOUT / "tests" / "data" / "v1-two-threads.ptrace"


def test_it_holds_every_file_of_the_package(wheel: Path) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    folders = project["tool"]["setuptools"]["package-dir"].values()
    tracked = subprocess.run(
        ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", *folders],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {"porttrace/bpf/event.h", "porttrace/analysis/render/html/page.html"} <= held
    assert held == {f"porttrace/{name}" for name in tracked}


@pytest.mark.timeout(400)  # the wheels are downloaded once
def test_it_works_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    # GIVEN an environment that sees the system's packages, and what is bundled for its Python
    python = tmp_path / "bin" / "python"
    bundled = build.fetch(sys.version_info.minor)
    subprocess.run(
        ["/usr/bin/python3", "-m", "venv", "--system-site-packages", tmp_path], check=True
    )
    subprocess.run(
        [python, "-m", "pip", "install", "-qq", "--find-links", bundled, wheel], check=True
    )
    # THEN it starts, and reads a recording
    for words in (["--help"], ["report", GOLDEN]):
        done = subprocess.run(
            [tmp_path / "bin" / "porttrace", *words],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ("serialized-connects" in done.stdout) == (words[0] == "report")
