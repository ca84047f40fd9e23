"""Programs on one port: who gets it, and what comes in, by their own word."""

from __future__ import annotations

from pathlib import Path

import pytest

from porttrace.lab import scenarios
from porttrace.lab.site import Record, read_records, run

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
