"""The lab's commands choose throttles and stories; the lab itself has its own tests."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from porttrace.cli import main
from porttrace.lab import scenarios
from porttrace.lab.errors import LabError
from porttrace.lab.story import Settings
from porttrace.lab.throttle import SCOPES_OF_KIND, Throttle

# by name, since the package may hold the command under the module's name
module = importlib.import_module("porttrace.cli.lab")
STORY = next(iter(scenarios.SCENARIOS))


def test_the_list_names_every_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "list"]) == 0
    out = capsys.readouterr().out
    for name in scenarios.SCENARIOS:
        assert f"{name:<22} {scenarios.find(name).description}" in out
    assert out.count("must find: ") == len(scenarios.SCENARIOS)
    for kind, scopes in SCOPES_OF_KIND.items():
        assert f"{kind:<20} throttle: " in out and f"counts by {', '.join(scopes)}" in out


def test_a_command_under_a_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Throttle, list[str]]] = []

    def run(throttle: Throttle, command: list[str]) -> int:
        seen.append((throttle, command))
        return 42

    monkeypatch.setattr(module, "run_throttled", run)
    kind = sorted(SCOPES_OF_KIND)[0]
    assert main(["lab", "run", kind, "--slots", "2", "--", "curl", "--debug", "-h"]) == 42
    assert seen == [(Throttle(kind, 2, "process"), ["curl", "--debug", "-h"])]


def test_a_scope_that_the_throttle_cannot_count_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["lab", "run", "gate", "--scope", "cgroup", "--", "true"]) == 2
    assert main(["lab", "scenario", "two-threads", "--scope", "cgroup"]) == 2
    assert capsys.readouterr().err.count("hint: it counts by: thread, process, user, ") == 2


def test_the_labs_errors_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> int:
        raise LabError("no seccomp here", "install it")

    monkeypatch.setattr(module, "run_throttled", run)
    assert main(["lab", "run", "gate", "--", "true"]) == 1
    assert capsys.readouterr().err == "error: no seccomp here\nhint: install it\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "no-such-throttle", "--", "true"],
        ["run", "gate", "--scope", "galaxy", "--", "true"],
        ["run", "gate", "--rate", "3", "--", "true"],
        ["run", "rate", "--slots", "3", "--", "true"],
        ["run", "egress-hold", "--answer", "port", "--", "true"],
        ["scenario", "free-logins", "--slots", "2"],
        ["scenario", "sequential", "--force"],
        ["matrix", "--only", "no-such-run"],
        ["scenario", "no-such-story"],
        ["scenario", STORY, "--pages", "0"],
        ["scenario", STORY, "--dead-time", "soon"],
        ["scenario"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", *arguments]) == 2
    assert "Usage: porttrace lab" in capsys.readouterr().err


def test_a_story_is_prepared_traced_and_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Any] = []

    @contextmanager
    def prepare(name: str, settings: Settings, truth: str) -> Iterator[SimpleNamespace]:
        steps.append((name, settings.dead_time_s, settings.slots, bool(truth)))
        yield SimpleNamespace(description="a story", argv=["false"], env={})
        steps.append("taken down")

    def trace_live(
        options: Any, child: Any, duration_s: Any, as_json: bool, parts: Any, on_end: Any
    ) -> int:
        steps.append((options.pids == {child.pid}, options.follow_children, duration_s, as_json))
        return 0

    monkeypatch.setattr(module.features, "require", lambda: None)
    monkeypatch.setattr(module.scenarios, "prepare", prepare)
    monkeypatch.setattr(module, "trace_live", trace_live)
    arguments = ["lab", "scenario", STORY, "--dead-time", "2s", "--slots", "3", "--json"]
    assert main(arguments) == 0
    assert steps == [(STORY, 2.0, 3, True), (True, True, None, True), "taken down"]


@pytest.mark.parametrize(
    ("story", "rules", "code", "word"),
    [
        (STORY, {"serialized-connects", "timeout-source"}, 0, "serialized-connects: found"),
        (STORY, {"dead-destination"}, 1, "NOT FOUND"),
        ("burst", set(), 0, "none was found"),
        ("burst", {"serialized-connects"}, 1, "WRONG"),
        ("burst", {"paced-connects"}, 1, "WRONG"),
        ("denied-logins", {"limited-connects"}, 0, "limited-connects: found"),
    ],
)
def test_a_story_is_judged_by_what_it_must_find(
    story: str, rules: set[str], code: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module._judge(scenarios.find(story), rules) == code
    assert word in capsys.readouterr().err


def test_what_is_left_out_keeps_the_storys_own_number() -> None:
    assert module._settings({"dead_time": None, "slots": None}) == Settings()
