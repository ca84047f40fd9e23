"""Faults, for real, a few times each: `scripts/bench faults` tries the same ones more often."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.kernel
SCRIPT = Path(__file__).parent.parent.parent / "bench" / "faults.py"


def _loaded() -> ModuleType:
    sys.path.insert(0, str(SCRIPT.parent))  # where trialkit.py and hardships.py are
    spec = importlib.util.spec_from_file_location("faults", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module
    spec.loader.exec_module(module)
    return module


faults = _loaded()
trialkit = sys.modules["trialkit"]
# At random moments: more than one of them. Others take long, or do not depend on chance.
TIMES = {"kill": 4, "pipe-closed": 2, "target-exits": 2}
# Of some, less than in a trial; and of a machine that has other work nobody asks to be quick.
LESS: dict[str, dict[str, float]] = {
    "slow-disk": {"connects": 5_000},
    "pinned": {"connects": 30_000},
    "small-cpu": {"connects": 10_000, "at_start": False},
    "fork-bomb": {"depth": 7},
    "many-namespaces": {"number": 100},
    "signals": {"most_s": 20},
    "reader-gone": {"most_s": 20},
    "terminal-lost": {"most_s": 20},
}


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    with faults.opened(seed=7) as made:
        yield made


@pytest.mark.parametrize("name", sorted(faults.TRIALS.keys() - {"ten-at-once"}))
def test_it_holds(name: str, bench: Any) -> None:
    for _ in range(TIMES.get(name, 1)):
        try:
            print(name, faults.TRIALS[name](bench, **LESS.get(name, {})))
        except faults.NotTriedError as error:
            pytest.skip(str(error))


def test_a_loss_that_is_not_told_is_noticed(bench: Any) -> None:
    # The trials can fail: a recording that is short of events is not "exact".
    made = faults.made(bench)
    found = trialkit.record(bench, bench.storm(50))
    assert found.is_all_of(made.by(50)) and not found.is_all_of(made.by(51))
    assert found.ends == 50


def test_what_is_left_in_the_kernel_is_noticed(bench: Any) -> None:
    with faults.begun("record", "-o", str(bench.path()), "-P", "9") as process:
        faults.attached(process)
        objects = faults.kernel_objects(process.pid)
        assert len(objects["prog"]) >= 10 and len(objects["map"]) >= 20
        with pytest.raises(faults.FaultError, match="left in the kernel"):
            faults.vanish(objects, within_s=0.1)
    faults.vanish(objects)
