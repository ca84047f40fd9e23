"""The command prints the fit first, refuses where there is none, and says the same as JSON."""

import json
from pathlib import Path

import pytest

from porttrace.cli import main

CHECKOUT = Path(__file__).parents[2]
LOGINS = str(CHECKOUT / "notebooks" / "data" / "serialized-logins.ptrace")
FREE = str(CHECKOUT / "notebooks" / "data" / "free-logins.ptrace")
EVERYTHING = (
    "--slots", "2,4", "--connect-timeout", "1s", "--probe-first", "192.0.2.66:9100", "--restart",
)  # fmt: skip


def test_the_fit_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", LOGINS, *EVERYTHING]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert max(map(len, out.splitlines())) <= 80
    plain = " ".join(out.split())
    assert plain.startswith("Throttle: website (pid 20141); place gate, scope process, slots 1")
    assert "of 5 waits in it the model gives 5 (100%)" in plain
    titles = [line for line in out.splitlines() if "of waiting in all" in line]
    assert [title.partition(":")[0] for title in titles] == [
        "AS TRACED", "MODEL, UNCHANGED", "2 SLOTS", "4 SLOTS", "CONNECT TIMEOUT 1 S",
        "PROBE 192.0.2.66", "RESTART NOW",
    ]  # fmt: skip


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", LOGINS, *EVERYTHING, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["throttle"]["slots"], told["fit"]["share"]) == (1, 1, 1.0)
    names = [prediction["name"] for prediction in told["predictions"]]
    assert names[:4] == ["as traced", "model, unchanged", "2 slots", "4 slots"]
    assert len(names) == 7
    for prediction in told["predictions"]:
        total = sum(line["total_s"] for line in prediction["destinations"])
        assert prediction["total_s"] == pytest.approx(total)
        assert set(prediction["destinations"][0]) == {
            "destination", "attempts", "p50_s", "p95_s", "worst_s", "total_s",
        }  # fmt: skip


def test_without_options_twice_and_four_times_the_slots(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["whatif", LOGINS, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in told["predictions"]][2:] == ["2 slots", "4 slots"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([FREE], "no throttle that queues attempts was found"),
        ([LOGINS, "--probe-first", "192.0.2.9:1"], "no attempt to 192.0.2.9:1 stands behind"),
        (["/nowhere/a.ptrace"], "No such file"),
    ],
)
def test_what_cannot_be_predicted(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["whatif", *arguments]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ") and why in err and "\nhint: " in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--slots", "0"],
        ["--slots", "2,"],
        ["--slots", "99999"],
        ["--connect-timeout", "soon"],
        ["--probe-first", "somewhere"],
        ["--probe-first", "192.0.2.66"],
        ["--probe-first", "192.0.2.66:99999"],
        ["--restart", "--pool", "0"],
        ["--pool", "2"],
        ["--probe-time", "1s"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", LOGINS, *arguments]) == 2
    assert "Usage: porttrace whatif" in capsys.readouterr().err
