"""The preloaded shim limits blocking connects, leaves the rest alone, and is kept privately."""

from __future__ import annotations

from pathlib import Path

import pytest

from porttrace.lab.errors import LabError
from porttrace.lab.site import DEAD, LIVE, Site
from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles import preload

ENDS = ["--dead", DEAD, "--live", LIVE]


def live_wait_s(site: Site, throttle: Throttle, *options: str) -> float:
    rows = site.truth("two_threads", *ENDS, "--dead-time", "1", *options, throttle=throttle)
    row = next(row for row in rows if row["destination"] == LIVE)
    return float(row["end_ns"] - row["start_ns"]) / 1e9


@pytest.mark.kernel
def test_one_slot_holds_a_blocking_connect(site: Site) -> None:
    wait_s = live_wait_s(site, Throttle("preload"), "--blocking")
    assert wait_s == pytest.approx(0.5, abs=0.15)


@pytest.mark.kernel
def test_two_slots_hold_nobody_here(site: Site) -> None:
    assert live_wait_s(site, Throttle("preload", 2), "--blocking") < 0.1


@pytest.mark.kernel
def test_by_thread_and_without_blocking_nobody_is_held(site: Site) -> None:
    assert live_wait_s(site, Throttle("preload", 1, "thread"), "--blocking") < 0.1
    assert live_wait_s(site, Throttle("preload", 1)) < 0.1


def test_the_library_is_built_once_in_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = preload.library()
    built_ns = first.stat().st_mtime_ns
    assert preload.library().stat().st_mtime_ns == built_ns
    assert first.parent.stat().st_mode & 0o777 == 0o700
    assert list(first.parent.iterdir()) == [first]


def test_a_folder_open_to_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    preload.cache_folder().chmod(0o777)
    with pytest.raises(LabError, match="not a private folder"):
        preload.library()


def test_what_is_preloaded_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LD_PRELOAD", "libother.so")
    assert preload.environment(Throttle("preload", 3))["LD_PRELOAD"].endswith(".so libother.so")


def test_no_slots_at_all_is_refused() -> None:
    with pytest.raises(LabError, match="at least one slot"):
        preload.run(Throttle("preload", 0), ["true"])
