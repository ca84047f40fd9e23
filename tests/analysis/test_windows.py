"""A recording in windows is the same recording: nothing twice, left out or invented."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porttrace.analysis import summary, windows
from porttrace.analysis.findings import same
from porttrace.analysis.model import Finding, Party
from porttrace.analysis.recording import load
from porttrace.analysis.windows import Repeated, Windows, summed
from recordings import batches_of, story, written

DATA = Path(__file__).parent.parent / "data"
GOLDEN = sorted(DATA.glob("*.ptrace"))
MS = 1_000_000


def outcomes(whole: Windows) -> Counter[str]:
    total: Counter[str] = Counter()
    for line in whole.lines:
        total.update(line.by_outcome)
    return total


@pytest.mark.parametrize("length_ms", [1, 30, 400, 1_000, 10_000, 10_000_000])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_attempt_and_event_counts_once(path: Path, length_ms: int) -> None:
    whole, once = summed(path, length_ms * MS), load(path)
    assert outcomes(whole) == summary.by_outcome(once.trace.columns)
    assert sum(line.attempts for line in whole.lines) == len(once.trace.attempts)
    assert sum(line.events for line in whole.lines) == once.trace.events
    assert whole.lost == once.trust.lost_events and not whole.why_incomplete
    length_s = sum(line.length_s for line in whole.lines)
    assert length_s == pytest.approx(summary.duration_s(once.trace), abs=1e-6)


@given(length_ms=st.integers(1, 3_000), most=st.integers(1, 60), cut=st.integers(1, 100))
@settings(max_examples=60)
def test_wherever_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, length_ms: int, most: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("windows") / "a.ptrace"
    path.write_bytes(written(batches_of(story(), [20, 50, cut])))
    whole, once = summed(path, length_ms * MS, most), load(path)
    assert outcomes(whole) == summary.by_outcome(once.trace.columns)
    assert sum(line.events for line in whole.lines) == once.trace.events


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_one_window_is_the_recording(path: Path) -> None:
    whole, once = summed(path), load(path)
    assert len(whole.lines) == 1 and whole.lines[0].by_outcome == summary.by_outcome(
        once.trace.columns
    )
    assert [each.finding for each in whole.found] == list(once.findings)
    assert all(each.windows == [0] for each in whole.found)


def test_a_finding_is_told_once_with_all_its_windows() -> None:
    whole = summed(DATA / "v1-two-threads.ptrace", 1_000 * MS)
    (throttle,) = [each for each in whole.found if each.finding.rule == "serialized-connects"]
    assert len(throttle.windows) == 2 and throttle.finding.slots == 1
    assert throttle.finding.evidence  # of the surest of them
    assert len({same(each.finding) for each in whole.found}) == len(whole.found)


def test_of_findings_as_sure_the_latest_is_told() -> None:
    def told(seen: str, confidence: float, victims: int = 0) -> Finding:
        party = Party(1, 2, 3, "web", "192.0.2.2:80", "established", 0.1, 5)
        to = {"destination": "192.0.2.66:9100"}
        return Finding(
            "dead-destination", "warning", confidence, to, seen, victims=(party,) * victims
        )

    found: list[Repeated] = []
    for number, each in enumerate((told("open", 0.6), told("over", 0.6), told("tail", 0.5))):
        windows._add(found, [each], number)
    assert [(each.finding.summary, each.windows) for each in found] == [("over", [0, 1, 2])]
    windows._add(found, [told("two", 0.6, 2)], 3)
    windows._add(found, [told("one", 0.6, 1)], 4)
    assert found[0].finding.summary == "two"


def test_a_program_that_was_started_again_is_the_same() -> None:
    def told(pid: int, rule: str = "bind-conflict", **subject: object) -> Finding:
        return Finding(rule, "critical", 0.9, {"pid": pid, "pids": [pid], **subject}, f"{pid}")

    found: list[Repeated] = []
    for number in range(3):  # a unit in a restart loop: a pid each
        windows._add(found, [told(10 + number, port=80)], number)
    windows._add(found, [told(20, port=80), told(21, port=80), told(22, port=81)], 3)
    assert [each.windows for each in found] == [[0, 1, 2, 3], [3], [3]]
    alone: list[Repeated] = []
    for number in range(2):  # known by nothing but its pid
        windows._add(alone, [told(10 + number, rule="sequential-connects")], number)
    assert [each.windows for each in alone] == [[0], [1]]


def test_a_window_has_so_many_attempts_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "AT_ONCE", 1)
    path = DATA / "v1-storm.ptrace"
    total = len(load(path).trace.attempts)
    whole = summed(path, most=total // 4)
    assert len(whole.lines) > 2
    assert sum(line.attempts for line in whole.lines) == total


def test_a_cut_recording_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.ptrace"
    path.write_bytes(written(batches_of(story(), [20, 50])[:2], close=False))
    assert "without the mark" in summed(path).why_incomplete
