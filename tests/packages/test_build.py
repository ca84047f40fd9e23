"""How packages are made: of what lock.txt names, and twice the same."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from packages import build, lock

LOCKED = dict(
    line.split()[0].split("==") for line in build.LOCK.read_text().splitlines() if line[0] != "#"
)


@pytest.mark.parametrize("asked", lock.wanted())
def test_what_the_project_asks_for_is_bundled(asked: str) -> None:
    wanted = Requirement(asked)
    version = LOCKED.get(canonicalize_name(wanted.name))
    assert version, f"{wanted.name} is not in packages/lock.txt: python -m packages.lock"
    assert wanted.specifier.contains(version)


def test_every_extra_of_a_command_is_bundled() -> None:
    project = tomllib.loads((build.CHECKOUT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == {*lock.EXTRAS, "notebook", "dev"}


@pytest.mark.timeout(600)  # the wheels are downloaded once
def test_the_same_commit_gives_the_same_bytes(
    packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN another place and time zone, and somebody whose files are nobody else's business
    log = ("git", "-c", f"safe.directory={build.CHECKOUT}", "log", "-1", "--format=%ct")
    epoch_s = subprocess.check_output(log, cwd=build.CHECKOUT, text=True).strip()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch_s)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    shutil.copytree(build.WHEELS, tmp_path / "wheels")
    monkeypatch.setattr(build, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(build, "DIST", tmp_path / "dist")
    old = os.umask(0o077)
    try:
        wheel = build.wheel()
        staged = build.stage(13, wheel, tmp_path / "staged")
        # THEN all are those that scripts/package made
        assert wheel.read_bytes() == packages["wheel"].read_bytes()
        for name in ("debian13", "fedora42"):
            again = build.pack(name, staged, build.version_of(wheel), tmp_path)
            assert again.read_bytes() == packages[name].read_bytes(), name
    finally:
        os.umask(old)
        shutil.rmtree(tmp_path)  # half a gigabyte
