"""The command reads a folder on a cluster of its own, and says what it could not read."""

import json
from pathlib import Path

import pytest

from fleets import made, read
from porttrace.analysis.render.fleet import fleet_text
from porttrace.analysis.render.fleet_values import fleet_values
from porttrace.cli import main


@pytest.mark.timeout(300)
def test_one_bad_file_among_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [*made(tmp_path / "in", hosts=2), tmp_path / "in" / "zz\x1b.ptrace"]
    paths[-1].write_bytes(b"no recording")
    page = tmp_path / "page.html"
    assert main(["fleet", str(tmp_path / "in"), "--workers=1", "--json", "--html", str(page)]) == 1
    out, err = capsys.readouterr()
    values = json.loads(out)
    assert values == json.loads(json.dumps(fleet_values(read(*paths))))
    assert values["recordings"]["skipped"] == 1
    assert fleet_text(values)
    assert "error: 1 recording cannot be read:" in err and r"zz\x1b.ptrace" in err
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ([], "Missing argument"),
        (["x", "--force"], "--force needs --html"),
        (["x", "--workers=1", "--scheduler=tcp://x"], "leave it out with --scheduler"),
    ):
        assert main(["fleet", *words]) == 2
        assert said in capsys.readouterr().err


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", str(tmp_path)]) == 1
    assert "there is no recording at" in capsys.readouterr().err
