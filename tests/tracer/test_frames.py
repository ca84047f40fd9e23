"""Small files that would become large are refused before they do; real ones are read."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from porttrace.tracer.beside import Beside
from porttrace.tracer.event import EVENT, Events
from porttrace.tracer.tracefile import Batch, DamagedError
from recordings import HEADER, read, written

BESIDE = Beside(10**9, 10**18)


def waiting(number: int) -> Events:
    """Attempts that wait, as they are carried into the next part."""
    rows = np.zeros(number, EVENT)
    rows["type"] = 1
    chance = np.random.default_rng(5)
    rows["time_ns"] = np.cumsum(chance.integers(100, 9000, number)) + 10**15
    rows["start_ns"] = rows["time_ns"] - 300
    rows["sock"] = chance.integers(1 << 20, 1 << 40, number) * 64
    rows["sport"] = chance.integers(32768, 60999, number)
    return rows


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrace"
    path.write_bytes(written([Batch(np.zeros(2_000_000, EVENT), BESIDE)]))
    assert path.stat().st_size < 100_000  # and 400 MB of rows in it
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match="2000000 rows in"):
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_so_is_one_whose_buffers_lie(tmp_path: Path) -> None:
    # The size that a packed buffer says of itself is what is taken for it.
    path, table = tmp_path / "a.ptrace", waiting(500)
    whole = written([Batch(table, BESIDE)])
    plain = struct.pack("<q", 500 * 8)  # of a column of 64 bits
    assert plain in whole
    path.write_bytes(whole.replace(plain, struct.pack("<q", 1 << 33), 1))
    with pytest.raises(DamagedError, match="would become"):
        read(path)


def test_a_first_batch_with_very_many_that_wait_is_read(tmp_path: Path) -> None:
    path, table = tmp_path / "a.ptrace", waiting(400_000)
    path.write_bytes(written([Batch(table, BESIDE)], HEADER, close=False))
    found, _ = read(path)
    assert len(found) == 1 and (found[0].events == table).all()
