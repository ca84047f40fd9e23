"""Who stands at the gate already is found in /proc, and nobody else is."""

import platform
import struct
from pathlib import Path

import pytest

from porttrace.tracer.waiting import Waiting, at_gate, stands

CONNECT = {"x86_64": 42, "aarch64": 203}[platform.machine()]
GATE = """[<0>] seccomp_do_user_notification.isra.0+0x1f3/0x5a0
[<0>] __seccomp_filter+0x2a5/0x5d0
[<0>] syscall_trace_enter+0x62/0x1a0
[<0>] entry_SYSCALL_64_after_hwframe+0x76/0x7e
"""
INSIDE = "[<0>] inet_wait_for_connect+0xd7/0x110\n[<0>] __inet_stream_connect+0x1a6/0x380\n"
IPV4 = struct.pack("=HH4s8x", 2, 0x5000, bytes((192, 0, 2, 2)))  # port 80, network order
IPV6 = struct.pack("=HH4x16s4x", 10, 0x5000, b"\x20\x01\x0d\xb8" + bytes(11) + b"\x02")


def process(
    proc: Path, pid: int, tid: int, call: str, stack: str = GATE, name: bytes = IPV4
) -> None:
    base = proc / str(pid) / "task" / str(tid)
    base.mkdir(parents=True)
    (base / "syscall").write_text(call)
    (base / "stack").write_text(stack)
    (proc / str(pid) / "mem").write_bytes(bytes(64) + name)


def connecting(length: int = 16) -> str:
    return f"{CONNECT} 0xd 0x40 {length:#x} 0x0 0x0 0x0 0x7ffca9ba03f8 0x7fc2ab0e52ad\n"


def test_a_thread_at_the_gate(tmp_path: Path) -> None:
    process(tmp_path, 7, 8, connecting())
    (found,) = at_gate([7], tmp_path)
    mapped = bytes(10) + b"\xff\xff\xc0\x00\x02\x02"
    frames = (
        "seccomp_do_user_notification.isra.0", "__seccomp_filter", "syscall_trace_enter",
        "entry_SYSCALL_64_after_hwframe",
    )  # fmt: skip
    assert found == Waiting(7, 8, 13, 2, mapped, 80, frames)


def test_ipv6(tmp_path: Path) -> None:
    process(tmp_path, 7, 7, connecting(28), name=IPV6)
    (found,) = at_gate([7], tmp_path)
    assert (found.family, found.dport, found.daddr[:4]) == (10, 80, b"\x20\x01\x0d\xb8")


@pytest.mark.parametrize(
    ("call", "stack", "name"),
    [
        ("running\n", GATE, IPV4),
        ("-1 0x7ffca9ba03f8 0x7fc2ab0e52ad\n", GATE, IPV4),
        ("0 0x3 0x40 0x10 0x0 0x0 0x0 0x0 0x0\n", GATE, IPV4),  # another call
        (connecting(), INSIDE, IPV4),  # past the gate
        (connecting(), "", IPV4),
        (connecting(), GATE, b"\x01\x00/run/x.sock"),  # AF_UNIX
        (connecting(), GATE, IPV4[:6]),
        (connecting(), GATE, b""),
        (f"{CONNECT} 0xd\n", GATE, IPV4),
        (f"{CONNECT} 0xd wrong 0x10\n", GATE, IPV4),
        ("", GATE, IPV4),
    ],
)
def test_others_are_not_taken(tmp_path: Path, call: str, stack: str, name: bytes) -> None:
    process(tmp_path, 7, 8, call, stack, name)
    assert not list(at_gate([7], tmp_path))


def test_who_is_gone_or_not_ours_to_read_is_left_out(tmp_path: Path) -> None:
    process(tmp_path, 7, 8, connecting())
    (tmp_path / "7" / "task" / "9").mkdir()  # nothing in it: gone meanwhile
    assert [each.tid for each in at_gate([6, 7], tmp_path)] == [8]


def test_who_went_on_stands_there_no_more(tmp_path: Path) -> None:
    process(tmp_path, 7, 8, connecting())
    (found,) = at_gate([7], tmp_path)
    assert stands(found, tmp_path)
    (tmp_path / "7" / "task" / "8" / "syscall").write_text("running\n")
    assert not stands(found, tmp_path)
    (tmp_path / "7" / "task" / "8" / "syscall").unlink()
    assert not stands(found, tmp_path)
