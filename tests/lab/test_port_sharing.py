"""Programs on one port: who gets it and what comes in, by their own word and in a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from porttrace.lab import scenarios
from porttrace.lab.site import Record, read_records, run
from tracing import Traced, read
from tracing import run as porttrace

pytestmark = pytest.mark.kernel


def told(name: str, folder: Path) -> tuple[list[Record], list[tuple[str, int]]]:
    """Return the calls of a story, and who received how much, in their order."""
    with scenarios.prepare(name, truth_path=folder / "truth") as prepared:
        run(prepared.argv)
    rows = read_records((folder / "truth").read_text())
    received = [(row["program"], row["count"]) for row in rows if row["type"] == "received"]
    return [row for row in rows if row["type"] == "call"], received


def test_a_newcomer_gets_every_datagram(tmp_path: Path) -> None:
    calls, received = told("port-takeover", tmp_path)
    assert [(row["program"], row["errno"]) for row in calls] == [("server", 0), ("newcomer", 0)]
    assert len({row["uid"] for row in calls}) == len({row["pid"] for row in calls}) == 2
    assert received == [("server", 20), ("server", 0), ("newcomer", 20)]


def test_workers_share(tmp_path: Path) -> None:
    calls, received = told("port-workers", tmp_path)
    assert len(calls) == 4 and not any(row["errno"] for row in calls)
    assert len({row["uid"] for row in calls}) == 1
    assert sum(count for _, count in received) == 20


def test_whoever_listens_first_has_the_port(tmp_path: Path) -> None:
    calls, received = told("listen-race", tmp_path)
    assert [(row["program"], row["call"], row["errno"]) for row in calls] == [
        *(("server", "bind", 0), ("newcomer", "bind", 0)),
        *(("newcomer", "listen", 0), ("server", "listen", 98)),
    ]
    assert received == [("newcomer", 20)]


def traced(name: str, folder: Path) -> tuple[Traced, dict[str, int]]:
    """Return the trace of a story that has found what it must, and the pids of its programs."""
    truth = folder / "truth"
    done = porttrace("lab", "scenario", name, "--json", "--truth", str(truth))
    seen = read(done)
    assert seen.code == 0, seen.notes
    rows = read_records(truth.read_text())
    return seen, {row["program"]: row["pid"] for row in rows if row["type"] == "call"}


def test_a_takeover_is_told_from_a_group(tmp_path: Path) -> None:
    seen, pids = traced("port-takeover", tmp_path)
    (finding,) = seen.findings("port-shared")
    assert finding["severity"] == "warning" and finding["evidence"]["kind"] == "takeover"
    assert finding["evidence"]["pids"] == sorted(pids.values())
    assert f"newcomer (pid {pids['newcomer']})" in finding["summary"]
    seen, _ = traced("port-workers", tmp_path)
    (finding,) = seen.findings("port-shared")
    assert finding["severity"] == "info" and finding["evidence"]["kind"] == "workers"


def test_a_lost_race_names_who_won_it(tmp_path: Path) -> None:
    seen, pids = traced("listen-race", tmp_path)
    (finding,) = seen.findings("bind-conflict")
    assert (finding["subject"]["pid"], finding["evidence"]["call"]) == (pids["server"], "listen")
    assert finding["evidence"]["holder_pid"] == pids["newcomer"]
    assert "newcomer" in finding["summary"] and not seen.findings("port-shared")
