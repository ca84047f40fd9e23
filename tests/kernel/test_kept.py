"""A trace starts from what was compiled before, and sees the same."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel
WORKLOAD = Path(__file__).with_name("kept_workload.py")


def traced(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, WORKLOAD, folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_second_start_compiles_nothing_and_sees_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "shelf"
    first, second = traced(folder), traced(folder)
    assert first.pop("compiled") and not second.pop("compiled")
    assert first == second
    assert first["events"].count("START") == first["events"].count("END") == 1
    assert 111 in first["errors"] and not first["losses"]


# What is there, and what becomes of it: damage of all kinds only costs the time to compile.
def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5_000])


def _open_to_others(file: Path) -> None:
    file.chmod(0o666)


def _link(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def _refused_by_the_kernel(file: Path) -> None:
    _forge(file, {"maps": {}, "programs": {}, "licence": "GPL", "version": 0})


def _no_module_at_all(file: Path) -> None:
    _forge(file, [1, 2, 3])


def _forge(file: Path, content: object) -> None:
    data = json.dumps(content).encode()
    file.write_bytes(hashlib.sha256(data).digest() + data)


@pytest.mark.parametrize(
    "damage",
    [_flip, _cut, _open_to_others, _link, _refused_by_the_kernel, _no_module_at_all],
    ids=lambda damage: damage.__name__,
)
def test_what_is_damaged_is_compiled_again(damage: Any, tmp_path: Path) -> None:
    folder = tmp_path / "shelf"
    good = traced(folder)
    (file,) = folder.iterdir()
    damage(file)
    again = traced(folder)
    assert again == good and again["compiled"]
    assert not traced(folder)["compiled"]  # and kept once more


def test_a_folder_that_others_may_write_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "shelf"
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    assert traced(folder)["compiled"] and traced(folder)["compiled"]
    assert not list(folder.iterdir())
