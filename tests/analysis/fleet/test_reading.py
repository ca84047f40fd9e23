"""Recordings are found in folders, patterns and stores; one that cannot be read says why."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from fleets import made, read
from porttrace.analysis.fleet.model import Skipped, Slice
from porttrace.analysis.fleet.reading import recordings_at, summed
from porttrace.analysis.render.fleet import fleet_text
from porttrace.analysis.render.fleet_values import fleet_values
from porttrace.tracer.errors import PorttraceError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hosts, one of them in a folder below, beside other files."""
    folder = tmp_path_factory.mktemp("fleet")
    _, two = made(folder, hosts=2)
    (folder / "below").mkdir()
    two.rename(folder / "below" / two.name)
    for other in ("notes.txt", "x.binds.parquet", "x.events.parquet"):
        (folder / other).write_text("no recording")
    return folder


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def test_folders_and_patterns(folder: Path) -> None:
    both = ["web-00000.ptrace", "web-00001.ptrace"]
    assert sorted(names(recordings_at([str(folder)]))) == both
    assert sorted(names(recordings_at([f"{folder}/**/*"]))) == both
    assert names(recordings_at([f"{folder}/*.ptrace"])) == both[:1]
    assert len(recordings_at([str(folder), f"{folder}/web-00000.ptrace"])) == 2


@pytest.mark.parametrize("path", ["empty", "empty/*.ptrace"])
def test_nothing_there(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PorttraceError, match="there is no recording at"):
        recordings_at([str(tmp_path / path)])


def test_an_unknown_store() -> None:
    with pytest.raises(PorttraceError, match="cannot read nosuch://a/b") as caught:
        recordings_at(["nosuch://a/b"])
    assert caught.value.hint


def test_a_store_is_read_as_a_folder_is(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "fleet.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(folder / "web-00000.ptrace", "day/web-00000.ptrace")
        packed.writestr("day/readme.txt", "no recording")
        packed.writestr("day/bad.ptrace", "no recording either")
    there = recordings_at([f"zip://day::file://{archive}"])
    assert [each.split("::")[0] for each in there] == [
        "zip://day/bad.ptrace", "zip://day/web-00000.ptrace"
    ]  # fmt: skip
    bad, good = map(summed, there)
    here = summed(str(folder / "web-00000.ptrace"))
    assert isinstance(good, Slice) and isinstance(here, Slice) and isinstance(bad, Skipped)
    assert good.about.path == there[1]
    assert good.destinations == here.destinations
    assert bad.why.startswith(f"{there[0]} is no trace of porttrace"), "not its temporary name"


def test_what_cannot_be_read(tmp_path: Path, folder: Path) -> None:
    whole = (folder / "web-00000.ptrace").read_bytes()
    hostile = tmp_path / "evil\x1b[2J.ptrace"
    bad = {
        tmp_path / "gone.ptrace": "cannot read",
        tmp_path / "empty.ptrace": "is empty",
        tmp_path / "other.ptrace": "is no trace",
        tmp_path / "broken.ptrace": "is damaged",
        tmp_path / "text.parquet": "is damaged",
        hostile: "is empty",
    }
    for path in (tmp_path / "empty.ptrace", hostile):
        path.touch()
    (tmp_path / "other.ptrace").write_bytes(b"some text that is no recording")
    (tmp_path / "broken.ptrace").write_bytes(whole[:9_000] + bytes(500) + whole[9_500:])
    (tmp_path / "text.parquet").write_bytes(b"PAR1 not really PAR1")
    for path, why in bad.items():
        found = summed(str(path))
        assert isinstance(found, Skipped), path
        assert (found.path, why in found.why) == (str(path), True), found.why


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ptrace")
    found = summed(str(tmp_path / "pipe.ptrace"))
    assert isinstance(found, Skipped)
    assert "no file" in found.why


def test_a_cut_recording_is_read_to_its_end(tmp_path: Path, folder: Path) -> None:
    whole = (folder / "web-00000.ptrace").read_bytes()
    (tmp_path / "cut.ptrace").write_bytes(whole[:-100])
    found = summed(str(tmp_path / "cut.ptrace"))
    assert isinstance(found, Slice)
    assert not found.about.complete


def test_a_copy_of_a_recording_counts_once(tmp_path: Path) -> None:
    one, two = made(tmp_path, hosts=2)
    copy = shutil.copy(one, tmp_path / "\x1b[31mcopy.ptrace")
    fleet, both = read(one, two, copy), read(one, two)
    assert fleet.attempts == both.attempts and fleet.copies == [(str(one), str(copy))]
    values = fleet_values(fleet)
    assert values["recordings"]["read"] == 2 and values["recordings"]["skipped"] == 0
    assert values["recordings"]["copies"] == [{"path": str(one), "of": str(copy)}]
    text = " ".join(fleet_text(values).split())
    assert "Left out: 1 copy of recordings that are counted already: " in text
    assert text.isprintable() and "copy.ptrace." in text
