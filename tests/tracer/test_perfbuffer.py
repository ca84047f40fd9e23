"""The rings' bytes: whole runs of records, notices of loss in between, damage at any place."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import events
from porttrace.tracer import perfbuffer
from porttrace.tracer.event import EVENT, Events
from porttrace.tracer.perfbuffer import _hint, decode, online_cpus

STRIDE = perfbuffer._STRIDE
LOST = struct.pack("<IHHQQ", 2, 0, 24, 1, 5)


def sample(event: np.void) -> bytes:
    body = struct.pack("<IHHI", 9, 0, STRIDE, STRIDE - 12) + event.tobytes()
    return body.ljust(STRIDE, b"\0")


def some(count: int) -> Events:
    table = np.zeros(count, EVENT)
    table["time_ns"] = np.arange(1, count + 1)
    return table


def decoded(data: bytes) -> Events:
    return np.concatenate([np.empty(0, EVENT), *decode(data)])


def scalar(data: bytes) -> list[int]:
    # The slow reference: one record after another.
    times, offset = [], 0
    while offset + 8 <= len(data):
        kind, _, size = struct.unpack_from("<IHH", data, offset)
        if kind == 9 and size == STRIDE and offset + size <= len(data):
            times.append(struct.unpack_from("<Q", data, offset + 12)[0])
        elif size < 8:
            break
        offset += size
    return times


def test_a_round_of_records_is_one_array() -> None:
    table = some(1000)
    assert decoded(b"".join(map(sample, table))).tobytes() == table.tobytes()


def test_nothing_is_no_event() -> None:
    assert len(decoded(b"")) == 0


@given(st.lists(st.booleans(), max_size=60))
def test_notices_of_loss_are_stepped_over(kinds: list[bool]) -> None:
    table = some(len(kinds))
    pieces = [sample(e) if real else LOST for e, real in zip(table, kinds, strict=True)]
    expected = [int(e["time_ns"]) for e, real in zip(table, kinds, strict=True) if real]
    assert decoded(b"".join(pieces))["time_ns"].tolist() == expected


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_like_the_slow_way_and_never_raise(data: bytes) -> None:
    assert decoded(data)["time_ns"].tolist() == scalar(data)


@given(st.integers(0, 5 * STRIDE), st.binary(max_size=40))
def test_cut_or_damaged_records_never_raise(place: int, noise: bytes) -> None:
    whole = b"".join(map(sample, some(5)))
    for data in (whole[:place], whole[:place] + noise + whole[place:]):
        assert decoded(data)["time_ns"].tolist() == scalar(data)


def test_records_keep_every_field() -> None:
    story = events().connect(pid=7, tid=8, to="192.0.2.2:80", at=1_000).syn_sent().refused()
    table = story.array()
    assert decoded(b"".join(map(sample, table))).tobytes() == table.tobytes()


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", [0]), ("0-3", [0, 1, 2, 3]), ("0-1,4,6-7", [0, 1, 4, 6, 7])]
)
def test_cpu_lists(tmp_path: Path, text: str, cpus: list[int]) -> None:
    (tmp_path / "online").write_text(text + "\n")
    assert online_cpus(tmp_path / "online") == cpus


@pytest.mark.parametrize(
    ("cpus", "pages"), [(1, 1024), (2, 1024), (16, 1024), (64, 256), (5000, 16)]
)
def test_buffers_shrink_on_large_hosts(cpus: int, pages: int) -> None:
    assert perfbuffer.reasonable_pages(cpus) == pages


def test_what_a_kernel_that_is_more_paranoid_asks_for(tmp_path: Path) -> None:
    setting = tmp_path / "perf_event_paranoid"
    setting.write_text("3\n")
    assert "CAP_SYS_ADMIN: give that" in _hint(setting)
    for text in ("2\n", "nonsense"):
        setting.write_text(text)
        assert "CAP_PERFMON or CAP_SYS_ADMIN" in _hint(setting)
    assert "CAP_PERFMON or CAP_SYS_ADMIN" in _hint(tmp_path / "nothing")
