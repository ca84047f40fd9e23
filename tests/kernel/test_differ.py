"""porttrace beside strace, tcpdump and ss on the same connects, and the bench that compares them.

`scripts/bench differ` does the same with more of them.
"""

import importlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHECKOUT = Path(__file__).parent.parent.parent
BENCH = CHECKOUT / "bench"


@pytest.fixture(scope="module")
def differ() -> ModuleType:
    sys.path.insert(0, str(BENCH))
    try:
        return importlib.import_module("differ")
    finally:
        sys.path.remove(str(BENCH))


@pytest.mark.kernel
def test_all_four_tell_the_same_of_300_connects() -> None:
    if not shutil.which("tcpdump"):
        pytest.skip("there is no tcpdump: sudo apt install tcpdump")
    done = subprocess.run(
        [sys.executable, str(BENCH / "differ.py"), "--attempts", "300", "--seed", "3"],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "different  0" in done.stdout


STRACE = """\
10.000100000 socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = 3<socket:[77]> <0.000010000>
10.000200000 connect(3<socket:[77]>, {sa_family=AF_INET, sin_port=htons(9), \
sin_addr=inet_addr("127.0.0.1")}, 16) = -1 EINPROGRESS (Operation now in progress) <0.000100000>
10.000400000 getsockopt(3<socket:[77]>, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4]) = 0 <0.000010000>
10.000500000 connect(3<socket:[77]>, {sa_family=AF_INET, sin_port=htons(80), \
sin_addr=inet_addr("127.0.0.1")}, 16) = -1 ECONNABORTED (Software caused connection abort) \
<0.000100000>
10.000700000 connect(3<socket:[77]>, {sa_family=AF_INET6, sin6_port=htons(80), \
sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::ffff:127.0.0.1", &sin6_addr), sin6_scope_id=0}, 28) \
= 0 <0.000100000>
10.000900000 getsockname(3<socket:[77]>, {sa_family=AF_INET, sin_port=htons(4000), \
sin_addr=inet_addr("127.0.0.1")}, [16]) = 0 <0.000010000>
10.001000000 socket(AF_INET, SOCK_DGRAM, IPPROTO_IP) = 4<socket:[78]> <0.000010000>
10.001100000 connect(4<socket:[78]>, {sa_family=AF_INET, sin_port=htons(53), \
sin_addr=inet_addr("127.0.0.1")}, 16) = 0 <0.000010000>
10.002000000 clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0} => {parent_tid=[8]}, 88) = 8 \
<0.001000000>
10.900000000 socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = 5<socket:[79]> <0.000010000>
"""
KILLED = """\
11.000000000 connect(5<socket:[79]>, {sa_family=AF_INET, sin_port=htons(9100), \
sin_addr=inet_addr("192.0.2.66")}, 16) = ?
11.500000000 +++ killed by SIGKILL +++
"""


@pytest.fixture
def told(differ: ModuleType, tmp_path: Path) -> Any:
    """What strace says of three attempts, and rows, SYNs and a look that agree with it."""
    (tmp_path / "s.7").write_text(STRACE)
    (tmp_path / "s.8").write_text(KILLED)
    expected, others = differ.sides.expected(tmp_path / "s")
    rows = [
        differ.Row(7, 7, 3999, "127.0.0.1", 9, "refused", 111, "connect", 10.0003, 10.0003, 10.0004,
                   1),
        differ.Row(7, 7, 4000, "127.0.0.1", 80, "established", 0, "connect", 10.0008, 10.0008,
                   10.0009, 1),
        differ.Row(7, 8, 4001, "192.0.2.66", 9100, "cancelled", 0, "connect", 11.0, 11.0, 11.5, 1),
    ]  # fmt: skip
    syns = differ.sides.syns(
        "10.0003 lo    In  IP 127.0.0.1.3999 > 127.0.0.1.9: Flags [S], seq 1\n"
        "10.0003 lo    Out IP 127.0.0.1.3999 > 127.0.0.1.9: Flags [S], seq 1\n"
        "10.0008 lo    In  IP 127.0.0.1.4000 > 127.0.0.1.80: Flags [S], seq 1\n"
        "11.0001 veth0 Out IP 192.0.2.1.4001 > 192.0.2.66.9100: Flags [S], seq 1\n"
    )
    looks = list(differ.sides.looks(
        "at 11.1\n0 1 192.0.2.1:4001 192.0.2.66:9100 timer:(on,1sec,0) ino:79 sk:1 <->\nto 11.2\n"
    ))  # fmt: skip
    return differ.Told(rows, 0, expected, others, syns, looks)


def kinds(differ: ModuleType, told: Any) -> set[str]:
    return {each.kind.partition(":")[0] for each in differ.differences(told)}


def test_attempts_are_made_up_from_calls(told: Any) -> None:
    first, second, third = told.expected
    assert (first.pid, first.daddr, first.dport, first.result) == (7, "127.0.0.1", 9, 111)
    assert [call.number for call in first.calls] == [115, 103]  # two calls, one attempt
    assert (second.dport, second.sport, second.result) == (80, 4000, 0)
    assert (third.pid, third.tid, third.result) == (7, 8, None)
    assert told.others == 1
    assert len(told.syns) == 3, "on loopback each is seen twice"


def test_what_agrees_does_not_differ(differ: ModuleType, told: Any) -> None:
    assert kinds(differ, told) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pid": 9}, {"pid"}),
        ({"outcome": "refused", "errno": 111}, {"result"}),
        ({"syns": 2}, {"SYNs"}),
        ({"sport": 4009}, {"source port", "SYNs", "SYNs of nobody"}),
        ({"syn_s": 18.0, "end_s": 19.0}, {"time of the SYN", "SYNs", "SYNs of nobody"}),
        ({"tid": 8}, {"porttrace has no row", "strace has no call"}),
        ({"dport": 81}, {"porttrace has no row", "strace has no call", "SYNs", "SYNs of nobody"}),
    ],
)
def test_what_differs_is_found(
    differ: ModuleType, told: Any, change: dict[str, Any], expected: set[str]
) -> None:
    told.rows[1] = replace(told.rows[1], **change)
    assert kinds(differ, told) == expected


def test_an_unknown_end_is_no_difference_where_losses_were_told(
    differ: ModuleType, told: Any
) -> None:
    told.rows[1] = replace(told.rows[1], outcome="unknown", end_s=0.0)
    assert kinds(differ, told) == {"result"}
    assert kinds(differ, replace(told, lost=1)) == set()


def test_ss_sees_what_others_do_not_and_the_reverse(differ: ModuleType, told: Any) -> None:
    told.rows[2] = replace(told.rows[2], end_s=11.05)
    assert kinds(differ, told) == {"in SYN_SENT for ss alone"}
    told.rows[2] = replace(told.rows[2], end_s=11.5)
    empty = differ.sides.Look(11.2, 11.3, frozenset())
    assert kinds(differ, replace(told, looks=[empty])) == {"in SYN_SENT, and ss has it not"}


def test_a_row_too_many_or_too_few_is_found(differ: ModuleType, told: Any) -> None:
    alone = told.rows.pop(1)
    assert kinds(differ, told) == {"porttrace has no row", "SYNs of nobody"}
    told.rows.extend([alone, replace(alone, tid=99, sport=1)])
    assert "strace has no call" in kinds(differ, told)
