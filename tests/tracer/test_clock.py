"""A clock that is not the kernel's is noticed, and nothing else is taken for one."""

from pathlib import Path

import pytest

from porttrace.tracer import clock
from porttrace.tracer.errors import UnsupportedError


def host(root: Path, link: str, offsets: str) -> Path:
    (root / "proc/self/ns").mkdir(parents=True)
    (root / "proc/self/ns/time").symlink_to(link)
    (root / "proc/self/timens_offsets").write_text(offsets)
    return root


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ("monotonic       86400         0\nboottime            0         0\n", "86400 s ahead of"),
        ("monotonic          -1 500000000\nboottime            0         0\n", "0.5 s behind"),
        ("1                   7         0\n7                   0         0\n", "7 s ahead of"),
    ],
)
def test_another_clock_is_refused(tmp_path: Path, offsets: str, words: str) -> None:
    root = host(tmp_path, "time:[4026534411]", offsets)
    with pytest.raises(UnsupportedError, match=f"whose clock is {words} the kernel's") as caught:
        clock.require_host_clock(root)
    assert caught.value.exit_code == 4
    assert "nsenter --time --target 1" in caught.value.hint


@pytest.mark.parametrize(
    ("link", "offsets"),
    [
        ("time:[4026534411]", "monotonic  0  0\nboottime  86400  0\n"),  # has one, not another
        ("time:[4026531834]", "monotonic  86400  0\n"),  # those of its children to come
        ("time:[4026534411]", "what is this\n"),
    ],
)
def test_the_kernels_clock_is_not_refused(tmp_path: Path, link: str, offsets: str) -> None:
    clock.require_host_clock(host(tmp_path, link, offsets))


def test_a_kernel_without_time_namespaces(tmp_path: Path) -> None:
    assert clock.ahead_s(tmp_path) == 0
