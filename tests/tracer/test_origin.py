"""Who asked for an attempt, read off the stack of its start."""

import numpy as np
import pytest

from porttrace.tracer.event import EVENT, EventType, Origin
from porttrace.tracer.origin import origin_of, with_origins

# As a 6.18 kernel shows them, cut.
STACKS = {
    1: ("tcp_v4_connect", "__inet_stream_connect", "inet_stream_connect", "io_connect",
        "__io_issue_sqe", "io_issue_sqe", "io_submit_sqes", "__do_sys_io_uring_enter"),
    2: ("tcp_v4_connect", "inet_stream_connect", "io_issue_sqe", "io_wq_submit_work"),
    3: ("tcp_v4_connect", "__inet_stream_connect", "tcp_sendmsg_fastopen", "tcp_sendmsg_locked",
        "tcp_sendmsg", "__sys_sendto", "__x64_sys_sendto"),
    4: ("tcp_v4_connect", "inet_stream_connect", "__sys_connect", "__ia32_sys_connect",
        "do_int80_emulation"),
    5: ("tcp_v4_connect", "inet_stream_connect", "xs_tcp_setup_socket", "process_one_work"),
    6: (),
}  # fmt: skip


@pytest.mark.parametrize(
    ("stack", "origin"),
    [
        (1, Origin.IO_URING),
        (2, Origin.IO_URING),
        (3, Origin.FASTOPEN),
        (4, Origin.CONNECT),
        (5, Origin.KERNEL),
        (6, Origin.UNKNOWN),
    ],
)
def test_a_stack_shows_the_way(stack: int, origin: int) -> None:
    assert origin_of(STACKS[stack]) == origin


def test_only_stacks_of_an_origin_are_taken() -> None:
    # GIVEN a START by io_uring, one by connect(2) that slept, and an END that kept a stack
    events = np.zeros(4, EVENT)
    events["type"] = (EventType.START, EventType.START, EventType.END, EventType.RETURN)
    events["origin"] = (0, Origin.CONNECT, 0, 0)
    events["connect_stack"] = (1, 4, 5, -1)
    told = with_origins(events, STACKS)
    # THEN only the first is turned into an origin, and its stack is no hold
    assert told["origin"].tolist() == [Origin.IO_URING, Origin.CONNECT, 0, 0]
    assert told["connect_stack"].tolist() == [-1, 4, 5, -1]


def test_a_stack_that_was_lost_says_nothing() -> None:
    events = np.zeros(1, EVENT)
    events["type"], events["connect_stack"] = EventType.START, 9
    assert with_origins(events, STACKS)["origin"].tolist() == [Origin.UNKNOWN]
