"""Each format is written whole, where it was asked for, and never over another file."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

import binding
import recordings
from builders import MS, events
from porttrace.analysis.recording import load
from porttrace.cli import main
from porttrace.tracer.event import Events
from tracing import need_an_open_checkout

FILE = Path(__file__).parent.parent / "data" / "v1-two-threads.ptrace"


def export(kind: str, to: Path | str, *more: str) -> int:
    return main(["export", str(FILE), "-f", kind, "-o", str(to), *more])


def test_parquet_is_three_files(tmp_path: Path) -> None:
    assert export("parquet", tmp_path / "a.parquet") == 0
    names = ["a.binds.parquet", "a.events.parquet", "a.parquet"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    binds = pq.read_table(tmp_path / "a.binds.parquet")  # no row, and each column has its type
    assert binds.num_rows == 0 and "null" not in {str(each.type) for each in binds.schema}
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 2
    assert pq.read_table(tmp_path / "a.events.parquet").num_rows == len(load(FILE).events)


def test_csv(tmp_path: Path) -> None:
    assert export("csv", tmp_path / "a.csv") == 0
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["dport"] for row in csv.DictReader(file)] == ["9100", "80"]


def test_ndjson(tmp_path: Path) -> None:
    assert export("ndjson", tmp_path / "a.ndjson") == 0
    objects = [json.loads(line) for line in (tmp_path / "a.ndjson").read_text().splitlines()]
    assert [each["dport"] for each in objects] == [9100, 80]


def test_perfetto_knows_the_findings(tmp_path: Path) -> None:
    assert export("perfetto", tmp_path / "a.perfetto") == 0
    written = (tmp_path / "a.perfetto").read_bytes()
    assert proto.Trace.FromString(written).packet
    assert b"serialized-connects" in written


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "perfetto"])
def test_never_over_another_file(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a"
    path.write_text("mine")
    assert export(kind, path) == 1
    assert path.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert export(kind, path, "--force") == 0
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_text_to_standard_output(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(kind, "-") == 0
    assert "192.0.2.66" in capsys.readouterr().out


def test_perfetto_to_a_pipe(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert export("perfetto", "-") == 0
    assert proto.Trace.FromString(capfdbinary.readouterr().out).packet


def test_perfetto_refuses_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert export("perfetto", "-") == 1
    out, err = capsys.readouterr()
    assert not out
    assert "terminal" in err


def test_parquet_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert export("parquet", "-") == 2
    assert "several files" in capsys.readouterr().err


def test_parquet_of_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "-", "-f", "parquet", "-o", str(tmp_path / "a")]) == 2
    assert "name a file" in capsys.readouterr().err


def test_a_file_that_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad").write_text("hello, world")
    assert main(["export", str(tmp_path / "bad"), "-f", "csv", "-o", str(tmp_path / "out")]) == 1
    assert "no trace" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["csv", "perfetto", "ndjson", "parquet"])
def test_binds_that_a_format_leaves_out_are_told(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = two_binds(tmp_path, events().connect(at=2 * MS).syn_sent().established().array())
    assert main(["export", str(path), "-f", kind, "-o", str(tmp_path / "out")]) == 0
    err = capsys.readouterr().err
    if kind in ("ndjson", "parquet"):
        assert not err
    else:
        assert err.startswith("note: 2 calls of bind(2) and listen(2) are left out")
        assert WRITES_THEM[kind].format(path) in err


WRITES_THEM = {
    "csv": "porttrace show {} binds --csv writes them",
    "perfetto": "-f parquet or ndjson",
}


def two_binds(folder: Path, *more: Events) -> Path:
    """Return a recording of a bind and a listen, and of `more`."""
    told = [binding.call(at=MS), binding.call("listen", at=9 * MS), *more]
    path = folder / "binds.ptrace"
    path.write_bytes(recordings.written(recordings.batches_of(np.concatenate(told), [])))
    return path


@pytest.mark.parametrize("kind", ["csv", "perfetto"])
@pytest.mark.parametrize("to", ["out", "-"])
def test_where_all_would_be_left_out_nothing_is_written(
    kind: str, to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = two_binds(tmp_path), tmp_path / "out"
    assert main(["export", str(path), "-f", kind, "-o", str(out) if to == "out" else "-"]) == 1
    printed, err = capsys.readouterr()
    assert not printed and not out.exists()
    assert "has 2 calls of bind(2) and listen(2) and no attempt" in err
    assert f"hint: {WRITES_THEM[kind].format(path)}" in err


READING = (["report"], ["show", "attempts"], ["whatif"], ["export", "-f", "csv", "-o", "-"])


@pytest.mark.parametrize("words", READING, ids=" ".join)
@pytest.mark.parametrize("what", ["missing", "closed"])
def test_a_recording_that_cannot_be_read_is_no_usage_error(
    words: list[str], what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.ptrace"
    if what == "closed":
        path.write_bytes(FILE.read_bytes())
        path.chmod(0)
    command, *rest = words
    if what == "closed" and os.geteuid() == 0:
        # root reads all; nobody may not, where the folders above let him in
        need_an_open_checkout()
        done = as_nobody_in(tmp_path, [command, "a.ptrace", *rest])
        code, err = done.returncode, done.stderr
    else:
        code, err = main([command, str(path), *rest]), capsys.readouterr().err
    assert code == 1
    assert "error: cannot read" in err and "Usage:" not in err


def as_nobody_in(folder: Path, words: list[str]) -> "subprocess.CompletedProcess[str]":
    # The working folder is there already: that nobody may not pass those above does not matter.
    folder.chmod(0o755)
    change = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); "
    run = "from porttrace.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", f"{change}{run}", *words], cwd=folder, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
