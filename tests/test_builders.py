"""The builder tells its stories as the kernel side would."""

import errno

import pytest

from builders import CLOSE, MS, Attempt, S, endpoint, events, packed
from porttrace.tracer.event import EVENT, EventType, Flag


def kinds(story: Attempt) -> list[str]:
    table = story.array()
    return [EventType(int(kind)).name for kind in table["type"]]


def test_a_story_without_attempts_is_an_empty_array() -> None:
    table = events().array()
    assert (len(table), table.dtype) == (0, EVENT)


def test_a_blocking_attempt() -> None:
    attempt = events().connect(pid=7, tid=8, to="192.0.2.2:80", at=1_000).syn_sent(after_ns=10)
    start, end, error, back = attempt.refused(after_ns=500, return_ns=40).array()
    assert [row["type"] for row in (start, end, error, back)] == [
        EventType.START,
        EventType.END,
        EventType.ERROR,
        EventType.RETURN,
    ]
    assert (start["time_ns"], start["start_ns"], start["call_ns"]) == (1_010, 1_010, 1_000)
    assert (start["pid"], start["tid"], start["dport"], start["sport"]) == (7, 8, 80, 0)
    assert start["daddr"].tobytes() == packed("192.0.2.2")
    assert start["flags"] == Flag.IN_CONNECT
    assert (start["in_flight"], end["in_flight"]) == (1, 0)
    assert (end["time_ns"], end["newstate"], end["error"]) == (1_510, CLOSE, 0)
    assert end["sport"] == error["sport"] != 0
    assert (error["error"], back["error"]) == (errno.ECONNREFUSED, -errno.ECONNREFUSED)
    assert back["flags"] == Flag.STREAM | Flag.SLEPT
    assert (back["sport"], back["saddr"].tobytes()) == (0, bytes(16))
    assert len({int(row["sock"]) for row in (start, end, error, back)}) == 1


def test_a_non_blocking_attempt_returns_first() -> None:
    attempt = events().connect().syn_sent().in_progress().retransmit().timed_out()
    assert kinds(attempt) == ["START", "RETURN", "RETRANSMIT", "END", "ERROR"]
    assert attempt.array()["error"][1] == -errno.EINPROGRESS
    assert not attempt.array()["flags"][1] & Flag.SLEPT


def test_who_is_told_the_errno() -> None:
    told_with = events().connect().syn_sent().in_progress().refused(told="with")
    told_never = events().connect().syn_sent().in_progress().refused(told="never")
    assert kinds(told_with) == kinds(told_never) == ["START", "RETURN", "END"]
    assert told_with.array()["error"][2] == errno.ECONNREFUSED
    assert told_never.array()["error"][2] == 0
    taken = events().connect().syn_sent().in_progress().refused(told="taken")
    assert kinds(taken.asked(errno.ECONNREFUSED)) == ["START", "RETURN", "END", "ERROR", "ERROR"]
    assert taken.array()["error"].tolist()[3:] == [0, errno.ECONNREFUSED]


def test_an_early_failure_has_no_socket() -> None:
    (back,) = events().connect(at=50).fails_early(errno.ENETUNREACH, after_ns=5).array()
    assert (back["type"], back["time_ns"], back["call_ns"]) == (EventType.RETURN, 55, 50)
    assert (back["sock"], back["start_ns"], back["error"]) == (0, 0, -errno.ENETUNREACH)


def test_a_second_call_is_marked_as_such() -> None:
    attempt = events().connect(at=0).syn_sent().interrupted().call_again(held_ns=10).established()
    first, again = attempt.array()[[1, 3]]
    assert (first["error"], again["error"]) == (-errno.EINTR, 0)
    assert not first["flags"] & Flag.AGAIN
    assert again["flags"] & Flag.AGAIN
    assert first["sock"] == again["sock"]
    assert again["call_ns"] > first["time_ns"]
    # END tells the first call's marks
    assert attempt.array()["call_ns"][2] == first["call_ns"]


def test_a_hold_and_a_sleep_before_the_call() -> None:
    held = events().connect(at=5 * S, held_ns=S).syn_sent().array()[0]
    slept = events().connect(at=5 * S, slept_ns=2 * S).syn_sent().array()[0]
    assert (held["gate_ns"], held["sleep_ns"], held["gate_stack"]) == (4 * S, 0, 5)
    assert (slept["gate_ns"], slept["sleep_ns"], slept["gate_stack"]) == (0, 3 * S, -1)


def test_an_answer_at_the_gate_has_no_call() -> None:
    attempt = events().connect(at=S, held_ns=MS).answered_at_gate(-errno.EPERM)
    (back,) = attempt.array()
    assert (back["call_ns"], back["gate_ns"], back["sock"]) == (0, S - MS, 0)
    assert back["flags"] == Flag.AT_GATE


def test_a_seed_has_a_port_and_no_thread() -> None:
    seed, end = events().seed(pid=9, sport=40_123, at=77).established(after_ns=5).array()
    assert (seed["type"], seed["start_ns"], seed["sock"], seed["tid"]) == (EventType.SEED, 77, 0, 0)
    assert (end["type"], end["start_ns"], end["sock"]) == (EventType.END, 77, 0)
    assert seed["sport"] == end["sport"] == 40_123


def test_other_beginnings() -> None:
    untracked = events().connect().syn_sent(untracked=True).array()[0]
    assert (untracked["flags"] & Flag.UNTRACKED, untracked["in_flight"]) == (Flag.UNTRACKED, 0)
    by_ring = events().without_call().syn_sent().established()
    assert kinds(by_ring) == ["START", "END"]
    assert (by_ring.array()["call_ns"] == 0).all()
    assert kinds(events().connect().syn_sent().deferred().established()) == [
        "START",
        "RETURN",
        "END",
    ]


def test_a_killed_caller_returns_without_being_told() -> None:
    attempt = events().connect().syn_sent().cancelled()
    assert kinds(attempt) == ["START", "END", "RETURN"]
    assert attempt.array()["error"].tolist() == [0, 0, -512]


def test_losses() -> None:
    (loss,) = events().loss(100, 200, count=3, cpu=1).array()
    assert (loss["type"], loss["start_ns"], loss["time_ns"]) == (EventType.LOSS, 100, 200)
    assert (loss["in_flight"], loss["cpu"]) == (3, 1)


def test_attempts_interleave_by_time_and_are_counted_together() -> None:
    story = events()
    story.connect(at=0).syn_sent(after_ns=10).established(after_ns=100)
    story.connect(at=0, tid=8).syn_sent(after_ns=50).established(after_ns=10)
    table = story.array()
    assert (table["time_ns"][1:] >= table["time_ns"][:-1]).all()
    ends_and_starts = table[table["type"] != EventType.RETURN]
    assert ends_and_starts["in_flight"].tolist() == [1, 2, 1, 0]
    assert len(set(table["sock"].tolist())) == 2


def test_a_chain_goes_on_with_another_attempt() -> None:
    chain = events().connect(at=0).syn_sent().established().connect(at=S).syn_sent().refused()
    assert len(chain.array()) == 7


@pytest.mark.parametrize(
    ("text", "address", "port", "family"),
    [
        ("192.0.2.2:80", b"\0" * 10 + b"\xff\xff\xc0\0\2\2", 80, 2),
        ("[2001:db8::2]:443", b"\x20\1\x0d\xb8" + b"\0" * 11 + b"\2", 443, 10),
    ],
)
def test_endpoints(text: str, address: bytes, port: int, family: int) -> None:
    assert endpoint(text) == (address, port)
    assert events().connect(to=text).syn_sent().array()["family"][0] == family
