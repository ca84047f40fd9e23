"""Tables of a recording as text, JSON and CSV, filtered, sorted and cut."""

import csv
import json
from pathlib import Path

import pytest

from builders import events
from porttrace.cli import main
from recordings import batches_of, written

FILE = str(Path(__file__).parent.parent / "data" / "v1-two-threads.ptrace")


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["show", FILE, *words]) == 0
    out, err = capsys.readouterr()
    # What matches nothing says so, and nothing else is said there.
    assert not err or ("note: nothing matches" in err and len(out.splitlines()) == 1)
    return out.splitlines()


@pytest.mark.parametrize("table", ["attempts", "events", "concurrency"])
def test_each_table(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    heading, *rows = lines(capsys, table)
    objects = [json.loads(line) for line in lines(capsys, table, "--json")]
    cells = list(csv.DictReader(lines(capsys, table, "--csv")))
    assert heading == heading.upper()
    assert len(rows) == len(objects) == len(cells) > 0
    assert {each["type"] for each in objects} == {table.removesuffix("s")}
    assert [*objects[0]][1:] == [*cells[0]]


def test_filters_and_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines(capsys, "attempts", "--held", "1s")) == 2
    assert len(lines(capsys, "attempts", "--port", "80,443")) == 2
    assert len(lines(capsys, "attempts", "--outcome", "refused")) == 1
    assert len(lines(capsys, "attempts", "--pid", "1")) == 1
    assert len(lines(capsys, "attempts", "--destination", "192.0.2.66")) == 2
    assert len(lines(capsys, "events", "--port", "80")) < len(lines(capsys, "events"))
    (_, first) = lines(capsys, "attempts", "--sort", "held", "--reverse", "--limit", "1")
    assert "192.0.2.2:80" in first


def test_concurrency_counts_the_chosen_attempts(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("concurrency", "--json", "--scope", "destination")
    every = {json.loads(line)["name"] for line in lines(capsys, *words)}
    some = {json.loads(line)["name"] for line in lines(capsys, *words, "--port", "80")}
    assert (every, some) == ({"192.0.2.66:9100", "192.0.2.2:80"}, {"192.0.2.2:80"})


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["attempts", "--scope", "host"], "--scope is for concurrency"),
        (["attempts", "--json", "--csv"], "exclude each other"),
        (["events", "--held", "1s"], "--held: events do not know"),
        (["events", "--outcome", "refused"], "--outcome: events do not know"),
        (["attempts", "--sort", "colour"], "'colour'"),
        (
            ["attempts", "--destination", "foo"],
            "'foo' is no address; names are not looked up: write",
        ),
        (["attempts", "--pid", "nginx"], "'nginx' is no process's number; pgrep NAME"),
        (["attempts", "--pid", "0"], "'0' is no process's number"),
        (["attempts", "--destination", "192.0.2.2:0"], "has no port"),
        (["attempts", "--destination", "2001:db8::g"], "is no address: write"),
        (["binds", "--held", "1s"], "binds do not know that"),
        (["attempts", "--outcome", "EADDRINUSE"], "--outcome of attempts is one of"),
        (["bounds"], "'bounds'"),
        (["attempts", "--outcome", "slow"], "'slow'"),
    ],
)
def test_usage_errors(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", FILE, *words]) == 2
    assert why in capsys.readouterr().err


def test_an_unknown_outcome_is_told_briefly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", FILE, "binds", "--outcome", "EADRINUSE"]) == 2
    err = capsys.readouterr().err
    assert "'EADRINUSE' is no outcome: pending, established" in err
    assert "Did you mean EADDRINUSE?" in err
    assert len(err) < 600
    assert main(["show", FILE, "binds", "--outcome", "EACCES"]) == 0


def test_an_unknown_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", FILE, "attempts", "--sort", "colour"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "held_ns" in err


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["attempts", "--destination", "192.0.2.77"], "nothing matches; the recording has 2 "),
        (["concurrency", "--pid", "1"], "nothing matches"),
        (
            ["attempts", "--held", "1h"],
            "nothing matches; the recording has 2 attempts in all. --held is of waits on this host;"
            " --sort took --reverse begins with",
        ),
        (["accepts"], "there are no accepts in this recording"),
    ],
)
def test_an_empty_table_says_why(
    words: list[str], note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", FILE, *words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert not out
    assert f"note: {note}" in err


def test_events_cannot_be_read_from_a_pipe_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "-", "events"]) == 2
    assert "name a file" in capsys.readouterr().err


def test_csv_on_a_terminal_is_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "a.ptrace"
    table = events().connect(comm=b"\x1b[2J").syn_sent().refused().array()
    path.write_bytes(written(batches_of(table, [])))
    assert main(["show", str(path), "attempts", "--csv"]) == 0
    assert "\x1b" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["show", str(path), "attempts", "--csv"]) == 0
    assert "\\x1b[2J" in capsys.readouterr().out
