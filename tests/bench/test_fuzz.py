"""Bad input, a few hundred cases of each kind and the same ones every time.

`scripts/bench fuzz` tries as many as one likes.
"""

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "bench" / "fuzz.py"
CASES = 300


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


fuzz = _loaded()


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_bad_input_is_refused_or_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "MOST_S", 10.0)  # beside other tests; a hang is still one
    chance = fuzz.random.Random(f"{name} tests")
    for _ in range(CASES):
        fuzz.attempt(name, fuzz.changed(fuzz.TARGETS[name].seeds, chance))


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_good_input_is_read(name: str) -> None:
    for seed in fuzz.TARGETS[name].seeds:
        assert fuzz.attempt(name, seed) is False


def test_what_none_may_do_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def slow(_: bytes) -> None:
        time.sleep(0.02)

    monkeypatch.setattr(fuzz.tempfile, "tempdir", str(tmp_path))
    for run, said in ((lambda _: 1 // 0, "ZeroDivisionError"), (slow, "0.0 s")):
        monkeypatch.setitem(fuzz.TARGETS, "bad", fuzz.Target(run, (b"x",)))
        monkeypatch.setattr(fuzz, "MOST_S", 0.01)
        with pytest.raises(fuzz.FuzzError, match=said):
            fuzz.attempt("bad", b"abc")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"abc", b"abc"]


def test_a_ring_full_of_notices_takes_no_time() -> None:
    """4 MiB of the smallest notices: each is stepped over, and nothing is looked at twice."""
    begun_s = time.monotonic()
    assert list(fuzz.perfbuffer.decode(b"\x02\0\0\0\0\0\x08\0" * (4 << 17))) == []
    assert time.monotonic() - begun_s < 5
