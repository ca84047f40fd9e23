"""porttrace probe: says what it will do, asks, and prints what it found."""

import importlib
import json
import os
from typing import Any

import pytest

from porttrace.cli import main
from porttrace.tracer.trial import Measured, Place, Step

# by name, since the package may hold the command under the module's name
module = importlib.import_module("porttrace.cli.probe")

ME = str(os.getpid())
WORDS = ["probe", "--pid", ME, "--dead", "192.0.2.66:9100", "--live", "[2001:db8::2]:80"]
THROUGH = Step(0, "through", 0, "connected", 0.001, 0)
MEASURED = Measured(
    (THROUGH, Step(1, "through", 0, "before", 0.0, 0)),
    {"process": True, "user": True, "cgroup": False, "netns": False},
)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The trials that were run, none of them for real."""
    begun: list[tuple[Any, ...]] = []

    class FakeTrial:
        def __init__(self, *words: Any) -> None:
            begun.append(words)

        def run(self) -> Measured:
            return MEASURED

    monkeypatch.setattr(module, "Trial", FakeTrial)
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(module.namespaces, "require_host_pids", lambda: None)
    monkeypatch.setattr(module, "place_of", lambda pid: (Place(pid), ("its tracer",)))
    return begun


def test_it_says_what_it_will_do_before_it_does_it(
    trials: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, "--slots", "4", "--yes"]) == 0
    out, err = capsys.readouterr()
    assert trials == [(Place(os.getpid()), ("192.0.2.66", 9100), ("2001:db8::2", 80), 4)]
    assert "- up to 4 attempts to 192.0.2.66 port 9100" in err
    assert "The probe cannot have its tracer." in err
    assert "the live connect was held before its SYN" in out
    assert "With 1 attempt open, others wait, before the SYN" in out
    assert "all processes of this user" in out.replace("\n", " ")
    assert max(map(len, (out + err).splitlines())) <= 80


def test_json(trials: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--json", "--yes"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["type"], found["slots"], found["scope"]) == ("probe", 1, "user")
    assert [step["open"] for step in found["steps"]] == [0, 1]


def test_nothing_is_done_where_nobody_agrees(
    trials: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(WORDS) == 2
    assert "--yes" in capsys.readouterr().err
    assert trials == []


@pytest.mark.parametrize(
    "address", ["example.org:80", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:70000", "::1", "[]:80"]
)
def test_addresses_are_numbers(
    trials: list[tuple[Any, ...]], address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--pid", ME, "--dead", address, "--live", "192.0.2.2:80", "--yes"]) == 2
    assert "no address and port" in capsys.readouterr().err
    assert trials == []


@pytest.mark.parametrize("slots", ["0", "1", "17"])
def test_bounds(trials: list[tuple[Any, ...]], slots: str) -> None:
    assert main([*WORDS, "--slots", slots, "--yes"]) == 2
    assert trials == []


def test_rights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    assert main([*WORDS, "--yes"]) == 3
    assert "hint: sudo " in capsys.readouterr().err
