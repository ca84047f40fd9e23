"""The page as text: what is in it, that nothing can leave its block of data, and how long it is."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from binding import call, trace_of_binds
from browser import stories
from builders import MS, S
from porttrace.analysis.concurrency import Ints, steps
from porttrace.analysis.findings import diagnose
from porttrace.analysis.model import Trace
from porttrace.analysis.render.html import html_report, lines, links, page, selection
from porttrace.analysis.render.html.page import SCRIPTS


def data_of(report: str) -> dict[str, Any]:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', report, re.DOTALL
    )
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_same_input_gives_the_same_page() -> None:
    assert html_report(*stories.queue()) == html_report(*stories.queue())


def test_the_page_is_one_piece() -> None:
    report = html_report(*stories.queue())
    assert report.startswith("<!DOCTYPE html>")
    assert not re.search(r"""(?:src|href)=["'](?!data:,|#)""", report)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", report)
    assert not re.search(r"<[^>]+\son\w+=|<[^>]+\sstyle=", report)
    assert "{{" not in report


def test_style_and_script_are_allowed_by_their_hashes() -> None:
    report = html_report(*stories.queue())
    found = re.search(r'Security-Policy" content="([^"]+)"', report)
    assert found
    policy = dict(part.split(" ", 1) for part in found[1].split("; "))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in found[1]
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", report, re.DOTALL)
        assert len(inline) == 1
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"


def test_every_script_is_part_of_the_page() -> None:
    folder = Path(page.__file__).parent / "js"
    assert {path.stem for path in folder.glob("*.js")} == set(SCRIPTS)


def test_hostile_names_stay_in_their_block() -> None:
    report = html_report(*stories.hostile(), title=stories.HOSTILE)
    assert report.isascii()
    assert report.count("</script>") == 2
    assert "<img" not in report
    block = report.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&") & set(block)
    shown = json.dumps(data_of(report), ensure_ascii=False)
    assert not set("\x1b\u202e\u2028\udcff") & set(shown)
    assert "</script><img src=x" in shown


def test_command_lines_stay_out() -> None:
    trace, findings = stories.queue()
    known = {7: replace(trace.processes[7], cmdline="website --password secret")}
    assert "secret" not in html_report(replace(trace, processes=known), findings)


def test_times_count_from_the_start_of_the_trace() -> None:
    trace, _ = stories.queue()
    late = 2**60
    rows = trace.rows.copy()
    for mark in ("sleep_ns", "gate_ns", "call_ns", "syn_ns", "end_ns", "return_ns"):
        rows[mark] = np.where(rows[mark] > 0, rows[mark] + late, 0)
    moved = replace(trace, attempts=rows, start_ns=late, end_ns=trace.end_ns + late)
    at_first, later = (data_of(html_report(t, ()))["attempts"] for t in (trace, moved))
    assert at_first == later


def test_the_title() -> None:
    assert data_of(html_report(*stories.queue(), title="Logins"))["title"] == "Logins"
    assert data_of(html_report(*stories.queue()))["title"] == "Connection attempts on web1"
    assert data_of(html_report(*stories.ports()))["title"] == "Ports on web1"


@pytest.mark.parametrize(
    "story", [stories.nothing, stories.one, stories.waiting, stories.every_outcome]
)
def test_small_traces_are_shown_whole(story: Any) -> None:
    trace, findings = story()
    data = data_of(html_report(trace, findings))
    assert len(data["attempts"]["attempt_id"]) == len(trace.attempts)
    assert data["left_out"] == []


def test_each_failed_bind_knows_its_finding() -> None:
    trace, findings = stories.ports()
    binds = data_of(html_report(trace, findings))["binds"]
    assert (binds["failed"], binds["worked"]) == (4, 2)
    for row in binds["rows"]:
        found = row["finding"]
        assert (found is None) == (not row["error"])
        if found is not None:
            about = findings[found].subject
            assert row["asked"].endswith(f":{about['port']}") and row["error"] == about["errno"]
    assert [row["at"] for row in binds["rows"]] == [n * S for n in range(1, 7)]


def test_of_very_many_binds_the_first_are_shown() -> None:
    binds = data_of(html_report(*stories.many_binds(3_000)))["binds"]
    assert (binds["failed"], binds["worked"], len(binds["rows"])) == (3_000, 30, 2_030)


def test_of_failures_alike_in_two_namespaces_each_has_its_own_finding() -> None:
    bad = [call(at=at * S, error=98, pid=at, netns=at) for at in (1, 2)]
    trace = trace_of_binds(*bad)
    rows = data_of(html_report(trace, diagnose(trace)))["binds"]["rows"]
    assert sorted(row["finding"] for row in rows) == [0, 1]


# -- what is left out


def test_up_to_the_limit_nothing_is_left_out() -> None:
    shown = selection.select(stories.crowd(selection.MOST), ())
    assert len(shown.rows) == selection.MOST
    assert not shown.left_out


def test_of_a_long_trace_the_process_of_the_findings_is_shown() -> None:
    trace, findings = stories.throttled_crowd(50_000)
    shown = selection.select(trace, findings)
    rows = trace.attempts[shown.rows]
    assert shown.pids == (100,)
    assert set(rows["pid"].tolist()) == {100}
    named = {p.attempt_id for f in findings for p in (*f.victims, *f.blockers)}
    assert named <= set(rows["attempt_id"].tolist())
    assert selection.MOST <= len(rows) <= selection.MOST + len(named)
    assert str(f"{len(rows):,} of the 50,000 attempts") in shown.left_out[0]


def test_the_stretch_around_the_longest_wait_has_no_gaps() -> None:
    trace, findings = stories.throttled_crowd(50_000)
    shown = selection.select(trace, findings)
    assert shown.window
    start, stop = shown.window
    mine = trace.attempts[trace.attempts["pid"] == 100]
    inside = mine[(mine["call_ns"] > start) & (mine["end_ns"] < stop)]
    assert len(inside) > 1_000
    drawn = set(trace.attempts["attempt_id"][shown.rows].tolist())
    assert set(inside["attempt_id"].tolist()) <= drawn


def test_without_findings_the_busiest_process_is_shown() -> None:
    shown = selection.select(stories.crowd(30_000), ())
    assert shown.pids == (100,)
    assert "which made the most" in shown.left_out[1]
    assert "5 other processes" in shown.left_out[2]


def test_the_page_does_not_grow_with_the_trace() -> None:
    report = html_report(*stories.throttled_crowd(100_000))
    assert len(report) < 5_000_000
    assert "of the 100,000 attempts" in data_of(report)["left_out"][0]


def test_many_processes_make_no_long_page() -> None:
    trace = stories.crowd(selection.MOST)
    rows = trace.rows.copy()
    rows["pid"] = np.arange(len(rows))
    assert len(html_report(replace(trace, attempts=rows), ())) < 10_000_000


# -- lines and links


def naive(time: Ints, count: Ints, at: Ints) -> Ints:
    return np.concatenate([[0], count])[np.searchsorted(time, at, "right")]


def test_a_thinned_line_is_exact_in_the_window_and_never_too_low() -> None:
    rng = np.random.default_rng(3)
    begin = np.sort(rng.integers(0, 10**9, 20_000))
    table = steps(np.zeros(20_000, np.int64), begin, begin + rng.integers(1, 10**6, 20_000))
    time, count = table["time_ns"].astype(np.int64), table["count"].astype(np.int64)
    window = (5 * 10**8, 5 * 10**8 + 10**7)
    few, highest = lines.thinned(time, count, window, 4_000)
    assert len(few) <= 4_100
    exact = np.arange(window[0], window[1], 997)
    assert (naive(few, highest, exact) == naive(time, count, exact)).all()
    anywhere = rng.integers(int(few[0]), int(time[-1]), 5_000)
    assert (naive(few, highest, anywhere) >= naive(time, count, anywhere)).all()
    assert highest.max() == count.max()


def test_lines_of_a_small_trace_are_exact() -> None:
    trace, findings = stories.queue()
    data = data_of(html_report(trace, findings))
    assert data["steps"]["7"] == data["steps"]["all"]
    demand = data["steps"]["7"]["demand"]
    assert max(demand["count"]) == 4
    assert demand["time"][0] == S
    assert demand["exact"]


def test_a_victim_is_linked_to_what_ended_before_it_went_on() -> None:
    trace, findings = stories.queue()
    agent = {int(r["attempt_id"]) for r in trace.rows if r["comm"] == b"agent"}
    first: dict[int, tuple[int, int]] = {}
    for victim, blocker, overlap in links.links(trace, findings):
        first.setdefault(victim, (blocker, overlap))
    assert set(first) == {p.attempt_id for p in findings[0].victims}
    assert {blocker for blocker, _ in first.values()} == agent
    assert max(overlap for _, overlap in first.values()) == pytest.approx(3300 * MS, rel=0.01)


def test_a_blocker_that_was_still_open_let_nobody_through() -> None:
    trace, findings = stories.queue()
    rows = trace.rows.copy()
    # The first agent's attempt now outlives all of its victims.
    rows["end_ns"][0] = rows["return_ns"][0] = trace.end_ns - 1
    again: Trace = replace(trace, attempts=rows)
    first: dict[int, int] = {}
    for victim, blocker, _ in links.links(again, findings):
        first.setdefault(victim, blocker)
    last_victim = int(rows["attempt_id"][3])
    assert first[last_victim] != int(rows["attempt_id"][0])


def test_a_page_begins_with_the_process_of_the_gravest_finding() -> None:
    trace, findings = stories.queue()
    assert data_of(html_report(trace, findings))["focus"] == 7
    assert data_of(html_report(trace, findings[2:]))["focus"] is None
    assert data_of(html_report(trace, ()))["focus"] is None
