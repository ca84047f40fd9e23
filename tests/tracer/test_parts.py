"""One file, or numbered parts of which the last ones are kept."""

import time
from pathlib import Path

import pytest

from porttrace.tracer.output import OutputError
from porttrace.tracer.parts import Parts, Rotation


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_file(tmp_path: Path) -> None:
    with Parts(str(tmp_path / "a.ptrace")) as parts:
        parts.open.write(b"abc")
        assert (parts.number, parts.size, parts.full) == (0, 3, False)
    assert names(tmp_path) == ["a.ptrace"]


def test_a_recording_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    with Parts(str(tmp_path / "a.ptrace")):
        assert names(tmp_path) == ["a.ptrace"]
    assert names(tmp_path) == []


def test_parts_by_size(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path / "a.ptrace"), rotation=Rotation(size=4, keep=2))
    full: list[bool] = []
    for _ in range(4):
        full.append(parts.full)
        parts.open.write(b"abcde")
        full.append(parts.full)
        parts.next()
    assert full == [False, True] * 4
    assert names(tmp_path) == ["a-0004.ptrace", "a-0005.ptrace"]
    assert (parts.number, parts.size) == (5, 20)
    parts.open.close()


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    for _ in range(2):
        parts = Parts(str(tmp_path / "a[1]*.ptrace"), force=True, rotation=Rotation(size=4))
        parts.open.close()
    assert names(tmp_path) == ["a[1]*-0001.ptrace"]
    with pytest.raises(OutputError, match="exists"):
        Parts(str(tmp_path / "a[1]*.ptrace"), rotation=Rotation(size=4))


def test_parts_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    parts = Parts(str(tmp_path / "a"), rotation=Rotation(seconds=60))
    full: list[bool] = []
    for seconds in (59, 1):
        now[0] += seconds
        full.append(parts.full)
    parts.next()
    assert [*full, parts.full] == [False, True, False]
    assert names(tmp_path) == ["a-0001", "a-0002"]
    parts.open.close()


def test_parts_of_an_older_recording(tmp_path: Path) -> None:
    for number in (1, 7):
        (tmp_path / f"a-000{number}.ptrace").write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a-0001\.ptrace exists") as caught:
        Parts(str(tmp_path / "a.ptrace"), rotation=Rotation(size=4))
    assert "--force" in caught.value.hint
    assert names(tmp_path) == ["a-0001.ptrace", "a-0007.ptrace"]
    parts = Parts(str(tmp_path / "a.ptrace"), force=True, rotation=Rotation(size=4))
    assert names(tmp_path) == ["a-0001.ptrace"]
    parts.open.close()


def test_standard_output_has_no_parts() -> None:
    with pytest.raises(OutputError, match="rotated"):
        Parts("-", rotation=Rotation(size=4))
