"""Each story can be prepared and run, and its throttle does what the story says."""

from __future__ import annotations

from pathlib import Path

import pytest

from porttrace.lab import scenarios
from porttrace.lab.errors import LabError
from porttrace.lab.hosts import namespaces
from porttrace.lab.scenarios import SCENARIOS
from porttrace.lab.site import Record, read_records, run
from porttrace.lab.story import Settings

QUICK = Settings(dead_time_s=1.0, pages=4, page_interval_s=0.2, pause_s=0.3, threads=3, connects=2)


@pytest.mark.kernel
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_story_runs_to_its_end(name: str, tmp_path: Path) -> None:
    with scenarios.prepare(name, QUICK, tmp_path / "truth") as prepared:
        run(prepared.argv)
        assert prepared.truth_path is not None
    rows = read_records((tmp_path / "truth").read_text())
    assert rows and prepared.argv[3] not in namespaces()
    if name.endswith("-logins"):
        only_logins_suffer(name, rows)


def only_logins_suffer(name: str, rows: list[Record]) -> None:
    pages = [row for row in rows if row["type"] == "page"]
    worst_ms = max(page["login_ms"] for page in pages)
    if name == "denied-logins":
        assert "ECONNREFUSED" in {page["login_result"] for page in pages} and worst_ms < 200
    elif name == "free-logins":
        assert worst_ms < 200
    else:
        assert worst_ms > 500
        assert max(page["database_ms"] + page["http_ms"] for page in pages) < 200


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_throttled_story_says_what_must_be_found(name: str) -> None:
    story = SCENARIOS[name]
    expected = story.expected(Settings(slots=2))
    assert story.throttled == (expected is not None)
    if expected is not None:
        assert expected.rule == story.finding and expected.place and expected.mechanism
        assert expected.slots == (0 if expected.rule == "paced-connects" else 2)


def test_the_throttle_follows_the_settings() -> None:
    story = scenarios.find("storm")
    throttle = story.throttle_with(Settings(slots=3, scope="thread"))
    assert throttle is not None and (throttle.slots, throttle.scope) == (3, "thread")
    watched = scenarios.find("watched-burst").throttle_with(Settings(slots=3))
    assert watched is not None and watched.slots == 0
    assert scenarios.find("lock").throttle_with(Settings()) is None


def test_an_unknown_story_names_the_known_ones() -> None:
    with pytest.raises(LabError) as caught:
        scenarios.find("moon")
    assert "two-threads" in caught.value.hint
