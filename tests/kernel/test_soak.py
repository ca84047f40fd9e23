"""A short soak: `scripts/bench soak` runs the same for half an hour and longer."""

import importlib.util
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.kernel
SCRIPT = Path(__file__).parent.parent.parent / "bench" / "soak.py"


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module
    spec.loader.exec_module(module)
    return module


soak = _loaded()
LOAD = soak.Load(seconds=20, rate=2000, period_s=4, warm_up_s=8)


def failed(run: Any) -> list[str]:
    return [each.what for each in soak.judged(run) if not each.holds]


def test_memory_and_files_stay_and_counts_are_exact(tmp_path: Path) -> None:
    run = soak.soak(LOAD, False, tmp_path)
    print(soak.printed(run))
    assert run.made.total() > 10_000
    assert failed(run) == []
    # AND each of them would be noticed
    grown = [replace(s, rss_bytes=int(s.rss_bytes * 1.1)) if s.at_s > 8 else s for s in run.samples]
    assert failed(replace(run, samples=grown)) == ["memory is flat"]
    leaking = [replace(s, files=s.files + int(s.at_s)) for s in run.samples]
    assert failed(replace(run, samples=leaking)) == ["files are as many as before"]
    more = Counter(run.made)
    more["refused"] += run.seen.all_lost + 1
    assert "attempts told and losses are all" in failed(replace(run, made=more))
    run.seen.events -= 1
    assert "events told and lost are all" in failed(run)
