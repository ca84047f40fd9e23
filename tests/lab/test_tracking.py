"""A table of tracked connections is filled in the lab's own namespace, and nowhere else."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from porttrace.lab import tracking
from porttrace.lab.errors import LabError
from porttrace.lab.hosts import Hosts

LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")
FILL = """
from porttrace.lab import tracking
most = tracking.room()
tracking.fill(most)
print(most, tracking.conntrack()["count"], tracking.drops())
tracking.clear()
print(tracking.conntrack()["count"])
"""


def test_entries_differ_and_are_whole() -> None:
    entries = [tracking.entry(number) for number in (0, 59_999, 60_000, 999_999)]
    assert len(set(entries)) == 4
    for each in entries:
        assert struct.unpack_from("=I", each)[0] == len(each) and len(each) % 4 == 0


def test_a_large_table_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[str, int] = {}
    monkeypatch.setattr(tracking, "conntrack", lambda: table)
    with pytest.raises(LabError, match="tracks no connections"):
        tracking.room()
    table["max"] = 4_000_000
    with pytest.raises(LabError, match="4000000 entries: to fill it would take about 1280 MB"):
        tracking.room()
    table["max"] = 1000
    assert tracking.room() == 1000


@pytest.mark.kernel
def test_it_is_filled_and_cleared_and_the_limit_stays() -> None:
    before = LIMIT.read_text() if LIMIT.exists() else ""
    outside = LIMIT.with_name("nf_conntrack_count")
    with Hosts() as hosts:
        done = subprocess.run(
            hosts.in_client([sys.executable, "-c", FILL]), capture_output=True, text=True,
            check=False, env=dict(os.environ),
        )  # fmt: skip
        inside = int(outside.read_text())
    assert done.returncode == 0, done.stderr
    most, count, drops, left = map(int, done.stdout.split())
    assert (count, drops, left) == (most, 0, 0)
    assert most == int(before) and LIMIT.read_text() == before
    assert inside < most // 2
