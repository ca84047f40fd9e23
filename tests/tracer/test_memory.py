"""What memory is left, in made-up hosts; and what a trace makes of it."""

from pathlib import Path

import pytest

from porttrace.tracer.memory import FEW_PLACES, fitted, most_waiting, spare_bytes
from porttrace.tracer.options import TraceOptions

MB = 1 << 20


def host(root: Path, cgroup: str, **files: str) -> Path:
    """Make files of a host; in a name `__` is a slash and `-` a dot."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 9999999 kB\nMemAvailable:    2097152 kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_groups_it_is_that_of_the_host(tmp_path: Path) -> None:
    assert spare_bytes(host(tmp_path, "")) == 2048 * MB
    assert spare_bytes(tmp_path / "nothing") > 2048 * MB


def test_the_tightest_group_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "a__memory-max": str(300 * MB), "a__memory-current": str(100 * MB),
        "a__b__memory-max": "max\n", "a__b__memory-current": str(90 * MB),
    }  # fmt: skip
    assert spare_bytes(host(tmp_path, "0::/a/b\n", **files)) == 200 * MB


def test_of_version_1_and_files_in_memory_make_room(tmp_path: Path) -> None:
    files = {
        "memory__x__memory-limit_in_bytes": str(200 * MB),
        "memory__x__memory-usage_in_bytes": str(190 * MB),
        "memory__x__memory-stat": f"cache 1\ntotal_inactive_file {50 * MB}\n",
        "memory__memory-limit_in_bytes": "9223372036854771712",
        "memory__memory-usage_in_bytes": "1",
    }
    assert spare_bytes(host(tmp_path, "9:name=systemd:/\n4:memory:/x\n0::/\n", **files)) == 60 * MB


@pytest.mark.parametrize("text", ["", "0::/../../..\n", "nonsense", "4:memory:/x"])
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, text: str) -> None:
    assert spare_bytes(host(tmp_path, text)) == 2048 * MB


def test_with_little_left_maps_are_small_and_it_is_said() -> None:
    options = TraceOptions(notes=("a.",))
    assert fitted(options, 400 * MB) is options
    small = fitted(options, 399 * MB)
    assert small.max_attempts == FEW_PLACES
    assert f"-DMAX_THREADS={FEW_PLACES}" in small.cflags()
    assert len(small.notes) == 2 and "399 MB" in small.notes[1]
    asked = TraceOptions(max_attempts=64)
    assert fitted(asked, MB) is asked


def test_so_much_may_wait() -> None:
    assert most_waiting(1 << 40, 256 * MB) == 256 * MB
    assert most_waiting(160 * MB, 256 * MB) == 20 * MB
    assert most_waiting(0, 256 * MB) == MB
