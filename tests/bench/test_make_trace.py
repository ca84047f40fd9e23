"""A synthetic recording is a recording: as many attempts as asked for, the same for a seed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from porttrace.analysis.model import Outcome
from porttrace.analysis.recording import load

SCRIPT = Path(__file__).parent.parent.parent / "bench" / "make_trace.py"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The script, imported without being run."""
    spec = importlib.util.spec_from_file_location("make_trace", SCRIPT)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["make_trace"] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def test_what_was_planned_is_found(module: ModuleType, tmp_path: Path) -> None:
    plan = module.Plan(attempts=3000, processes=5, duration_s=60.0, seed=3)
    total = module.write(plan, tmp_path / "a.ptrace")
    recording = load(tmp_path / "a.ptrace")
    rows = recording.trace.attempts
    assert recording.complete
    assert len(recording.events) == total
    assert (len(rows), len(np.unique(rows["pid"]))) == (3000, 5)
    outcomes = {Outcome.established, Outcome.refused, Outcome.cancelled}
    assert set(np.unique(rows["outcome"])) == outcomes
    assert (rows["outcome"] == Outcome.established).mean() > 0.9
    assert [f.subject for f in recording.findings if f.rule == "serialized-connects"]


def test_a_seed_gives_the_same_file(module: ModuleType, tmp_path: Path) -> None:
    plan = module.Plan(attempts=500, processes=2, duration_s=5.0)
    for name in ("a", "b"):
        module.write(plan, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_one_slot_is_never_taken_twice(module: ModuleType) -> None:
    made = module.make(module.Plan(attempts=2000, processes=1, duration_s=20.0))
    order = np.argsort(made.call_ns)
    assert (made.call_ns[order][1:] > made.end_ns[order][:-1]).all()
    assert (made.gate_ns > 0).any()
