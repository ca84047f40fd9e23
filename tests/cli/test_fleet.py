"""The command reads a folder on a cluster of its own, and says what it could not read."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleets import made, read
from porttrace.analysis.render.fleet import fleet_text
from porttrace.analysis.render.fleet_values import fleet_values
from porttrace.cli import main
from tracing import wait_until


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


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Start a scheduler and two workers as docs/fleet.md says; yield the scheduler's address."""
    told = folder / "scheduler.json"
    dask = Path(sys.executable).with_name("dask")
    commands = (
        ("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", told),
        ("worker", "--scheduler-file", told, "--host", "127.0.0.1", "--nthreads", "1",
         "--nworkers", "2"),
    )  # fmt: skip
    with (folder / "cluster.log").open("w") as log, contextlib.ExitStack() as ends:
        for words in commands:
            process = subprocess.Popen([dask, *words, "--no-dashboard"], stdout=log, stderr=log)
            ends.callback(process.wait, 60)
            ends.callback(process.terminate)
            wait_until(told.exists, 60)
        yield str(json.loads(told.read_text())["address"])


@pytest.mark.timeout(300)
def test_a_cluster_that_somebody_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = made(tmp_path / "in", hosts=5)
    with cluster(tmp_path) as address:
        assert main(["fleet", str(tmp_path / "in"), "--scheduler", address, "--json"]) == 0
        first = capsys.readouterr().out
        # It is there for the next one, too.
        assert main(["fleet", str(paths[0]), "--scheduler", address, "--json"]) == 0
        second = capsys.readouterr().out
    assert json.loads(first) == json.loads(json.dumps(fleet_values(read(*paths))))
    assert json.loads(second)["hosts"] == 1


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
