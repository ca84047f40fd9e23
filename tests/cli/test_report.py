"""A report of a file says what a live trace says at its end, and how far to trust it."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from builders import S, events
from porttrace.analysis.recording import load
from porttrace.analysis.render import report, text
from porttrace.cli import main
from recordings import batches_of, story, with_header, written

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A complete recording."""
    path = tmp_path / "a.ptrace"
    path.write_bytes(written(batches_of(story(), [20, 50])))
    return path


@pytest.fixture
def cut(tmp_path: Path, file: Path) -> Path:
    """The same, killed before its last batch."""
    path = tmp_path / "cut.ptrace"
    path.write_bytes(written(batches_of(story(), [20, 50])[:2], close=False))
    return path


def test_text_is_the_ending_of_a_live_trace(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(file)]) == 0
    out, err = capsys.readouterr()
    recording = load(file)
    assert out == text.ending(recording.trace, recording.findings) + "\n"
    assert not err


def test_json_is_the_documented_object(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(file), "--json"]) == 0
    recording = load(file)
    expected = report.report(recording.trace, recording.findings)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(expected))


def test_an_incomplete_recording_says_so_first(
    cut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(cut)]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("INCOMPLETE: ")
    assert "without the mark that a recording ends with" in " ".join(out.split())


def test_an_incomplete_recording_in_json(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--json", str(cut)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["trust"]["complete"] is False
    assert err.startswith("note: the recording is incomplete: ")


def test_a_page(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "a.html"
    assert main(["report", str(file), "--html", str(page)]) == 0
    assert page.read_text().lstrip().lower().startswith("<!doctype html>")
    assert page.stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr() == ("", "")


def test_a_page_is_not_written_over_another(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "a.html"
    page.write_text("mine")
    assert main(["report", str(file), "--html", str(page)]) == 1
    assert page.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert main(["report", str(file), "--html", str(page), "--force"]) == 0
    assert page.read_text() != "mine"


@pytest.mark.parametrize(
    ("story", "severity", "code"),
    [
        ("two-threads", "critical", 5),
        ("two-threads", "info", 5),
        ("lossy-shop", "critical", 0),
        ("lossy-shop", "warning", 5),
    ],
)
def test_fail_on(story: str, severity: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(DATA / f"v1-{story}.ptrace"), "--fail-on", severity]) == code
    assert "IN SHORT" in capsys.readouterr().out


def test_nothing_found_fails_on_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    table = events().connect(at=S).syn_sent().established().array()
    path.write_bytes(written(batches_of(table, [])))
    assert main(["report", str(path), "--fail-on", "info"]) == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is empty"), (b"hello, world", "no trace"), (None, "No such file")],
)
def test_bad_files(
    content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.ptrace"
    if content is not None:
        path.write_bytes(content)
    assert main(["report", str(path)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert why in err
    assert "hint: " in err


def test_in_windows_what_was_found_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(DATA / "v1-two-threads.ptrace")
    assert main(["report", path, "--window", "1s", "--fail-on", "critical"]) == 5
    out = capsys.readouterr().out
    assert out.count("[CRITICAL] serialized-connects") == 1
    assert "Found in 2 of 3 windows" in out
    assert main(["report", path, "--window", "1s", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(each["attempts"]["total"] for each in told["windows"]) == told["attempts"]["total"]
    rules = {each["rule"]: each["windows"] for each in told["findings"]}
    assert rules["serialized-connects"] == [1, 2]


def test_what_is_too_large_is_read_in_windows(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("porttrace.cli.report.spare_bytes", lambda: file.stat().st_size * 15)
    assert main(["report", str(file)]) == 0
    out, err = capsys.readouterr()
    assert "it is read in windows" in err and "1 window" in out
    monkeypatch.setattr("porttrace.cli.report.spare_bytes", lambda: file.stat().st_size * 17)
    assert main(["report", str(file)]) == 0
    assert "window" not in capsys.readouterr().err


def test_a_page_shows_the_whole(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(file), "--window", "1s", "--html", "x.html"]) == 2
    assert "leave --window out" in capsys.readouterr().err


def test_a_newer_format_is_refused_and_both_versions_are_named(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(with_header(file.read_bytes(), format=2, version="9.1\x1b[31m"))
    assert main(["report", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"error: {file} has format 2, written by porttrace 9.1\\x1b[31m; this is porttrace "
        f"{version('porttrace')}, which reads formats up to 1\n"
        "hint: read it with a porttrace at least as new\n"
    )


def test_a_hostile_name_of_a_file_does_not_act_on_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["report", "/nowhere/\x1b[31m\u202e\n.ptrace"]) == 1
    assert "/nowhere/\\x1b[31m\\u202e\\x0a.ptrace" in capsys.readouterr().err
