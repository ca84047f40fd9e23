"""The controls are what they say: slow, lossy, refused or queued, and by no throttle."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from porttrace.lab import scenarios
from porttrace.lab.bad_peers import answer
from porttrace.lab.site import Record, read_records, run
from porttrace.lab.story import Settings

BRIEF = Settings(dead_time_s=1.0, threads=4, connects=4)


def told(name: str, folder: Path, settings: Settings = BRIEF) -> list[Record]:
    with scenarios.prepare(name, settings, folder / "truth") as prepared:
        run(prepared.argv)
    return read_records((folder / "truth").read_text())


def waits_s(rows: list[Record], result: str = "connected") -> list[float]:
    return [(r["end_ns"] - r["start_ns"]) / 1e9 for r in rows if r["result"] == result]


def span_s(rows: list[Record]) -> float:
    return float(max(r["end_ns"] for r in rows) - min(r["start_ns"] for r in rows)) / 1e9


@pytest.mark.kernel
@pytest.mark.parametrize(("name", "lock"), [("slow-names", False), ("slow-names-lock", True)])
def test_a_late_name_delays_the_call_and_not_the_connect(
    name: str, lock: bool, tmp_path: Path
) -> None:
    rows = told(name, tmp_path)
    assert len(rows) == 16 and max(waits_s(rows)) < 0.2
    # 0.4 s a look-up: four in a row for each thread, sixteen in a row under the lock.
    assert (span_s(rows) > 15 * 0.4) is lock


@pytest.mark.kernel
def test_a_full_accept_queue_answers_on_the_rungs_of_the_ladder(tmp_path: Path) -> None:
    waits = waits_s(told("full-accept-queue", tmp_path))
    late = [wait for wait in waits if wait > 0.5]
    assert len(waits) == 16 and late and len(late) < 16
    assert min(late) > 0.9


@pytest.mark.kernel
def test_chance_loses_some_syns_of_many(tmp_path: Path) -> None:
    waits = waits_s(told("chance-loss", tmp_path, Settings(threads=8, connects=8)))
    late = [wait for wait in waits if wait > 0.5]
    assert len(waits) == 64 and 3 <= len(late) <= 40
    assert min(late) > 0.9


@pytest.mark.kernel
def test_a_server_that_is_away_refuses(tmp_path: Path) -> None:
    rows = told("server-restarts", tmp_path, Settings(threads=4, connects=30))
    assert len(waits_s(rows, "ECONNREFUSED")) > 5 and len(waits_s(rows)) > 5
    assert max(waits_s(rows, "ECONNREFUSED")) < 0.2


@pytest.mark.kernel
def test_a_restarted_client_is_two_processes(tmp_path: Path) -> None:
    rows = told("client-restarts", tmp_path, Settings(dead_time_s=1.0, threads=4, connects=12))
    first, *others = dict.fromkeys(row["pid"] for row in rows)
    assert len(others) == 1
    # The first was killed before its dead attempt could end, the second lived to see it.
    assert [row["pid"] for row in rows if row["result"] == "timeout"] == others
    assert 0 < sum(row["pid"] == first for row in rows) < 48


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("name", "attempts"),
    [("cpu-starved", 17), ("under-strace", 16), ("watched-egress", 16), ("pool-of-one", 16)],
)
def test_nothing_is_held_for_long(name: str, attempts: int, tmp_path: Path) -> None:
    rows = told(name, tmp_path)
    assert len(rows) == attempts
    assert max(waits_s(rows)) < 0.5


@pytest.mark.kernel
def test_under_a_hook_some_of_a_storm_are_denied(tmp_path: Path) -> None:
    rows = told("hook-denied-storm", tmp_path, Settings(threads=6, connects=5))
    assert len(rows) == 30 and waits_s(rows, "EPERM") and waits_s(rows)


def question(kind: int) -> bytes:
    name = b"\4live\3lab\4test\0"
    return struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", kind, 1)


def test_a_question_for_an_address_is_answered_by_the_servers() -> None:
    told = answer(question(1))
    assert struct.unpack_from("!6H", told) == (0x1234, 0x8180, 1, 1, 0, 0)
    assert told[12:].startswith(question(1)[12:]) and told.endswith(socket.inet_aton("192.0.2.2"))


def test_another_question_is_answered_by_nothing() -> None:
    told = answer(question(28) + b"\0\0\x29 additional records")
    assert struct.unpack_from("!6H", told) == (0x1234, 0x8180, 1, 0, 0, 0)
    assert told[12:] == question(28)[12:]
