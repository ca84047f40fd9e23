"""Events become attempts: one row each, with the right end, wherever the trace is cut."""

import errno
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import CLOSE, MS, NEVER, Attempt, S, Story, events, packed
from porttrace.analysis.attempts import GRACE_NS, Open, flush, mark_losses, pending, step
from porttrace.analysis.model import ATTEMPT, Attempts, Loss, Origin, Outcome, no_attempts
from porttrace.tracer.event import EVENT, Events, EventType, no_events


def rows_of(story: Story | Attempt, *, without: int = 0) -> Attempts:
    """Return all rows of a story, finished or not, as after a trace that ends late."""
    table = story.array()
    done, still = step(table[table["type"] != without], Open(), NEVER)
    return np.concatenate([done, flush(still)])


def row_of(story: Story | Attempt, *, without: int = 0) -> np.void:
    rows = rows_of(story, without=without)
    assert len(rows) == 1
    row: np.void = rows[0]
    return row


def outcome(row: np.void) -> Outcome:
    return Outcome(int(row["outcome"]))


# -- outcomes

ENDS = [
    (errno.ECONNREFUSED, Outcome.refused),
    (errno.ETIMEDOUT, Outcome.timed_out),
    (errno.EHOSTUNREACH, Outcome.unreachable),
    (errno.ENETUNREACH, Outcome.unreachable),
    (errno.EPERM, Outcome.denied),
    (errno.EACCES, Outcome.denied),
    (errno.EADDRNOTAVAIL, Outcome.no_port),
    (errno.ECONNRESET, Outcome.reset),
    (errno.EPROTO, Outcome.failed),
]


@pytest.mark.parametrize("told", ["after", "with"])
@pytest.mark.parametrize(("code", "expected"), ENDS)
@pytest.mark.parametrize("blocking", [True, False])
def test_errors(blocking: bool, code: int, expected: Outcome, told: str) -> None:
    attempt = events().connect().syn_sent()
    if not blocking:
        attempt.in_progress()
    row = row_of(attempt.failed(code, told=told))
    assert (outcome(row), row["errno"], row["blocking"]) == (expected, code, blocking)
    assert (row["origin"], row["complete"]) == (Origin.connect, True)


@pytest.mark.parametrize("blocking", [True, False])
def test_established(blocking: bool) -> None:
    attempt = events().connect().syn_sent()
    if not blocking:
        attempt.in_progress()
    row = row_of(attempt.established())
    assert (outcome(row), row["errno"], row["blocking"]) == (Outcome.established, 0, blocking)


@pytest.mark.parametrize("blocking", [True, False])
def test_cancelled_is_no_failure(blocking: bool) -> None:
    attempt = events().connect().syn_sent()
    if not blocking:
        attempt.in_progress()
    row = row_of(attempt.cancelled())
    assert (outcome(row), row["errno"], row["blocking"]) == (Outcome.cancelled, 0, blocking)


@pytest.mark.parametrize(("code", "expected"), ENDS)
def test_early_failures(code: int, expected: Outcome) -> None:
    row = row_of(events().connect(at=S).fails_early(code, after_ns=7))
    assert (outcome(row), row["errno"]) == (expected, code)
    assert (row["call_ns"], row["syn_ns"], row["end_ns"], row["return_ns"]) == (S, 0, S + 7, S + 7)


def test_no_free_port_ends_inside_the_call() -> None:
    # tcp_v4_connect enters SYN_SENT, finds no port, and goes back to CLOSE in the same call
    attempt = events().connect().syn_sent().end(CLOSE, 2_000, in_connect=True)
    row = row_of(attempt.returned(-errno.EADDRNOTAVAIL))
    assert (outcome(row), row["errno"]) == (Outcome.no_port, errno.EADDRNOTAVAIL)


def test_an_end_inside_the_call_is_nobodys_giving_up() -> None:
    row = row_of(events().connect().syn_sent().end(CLOSE, 2_000, in_connect=True))
    assert outcome(row) == Outcome.failed


def test_an_error_that_was_asked_for_stays_when_the_next_call_says_another() -> None:
    # connect, SO_ERROR, connect: the last says ECONNABORTED and clears the way for a new attempt
    attempt = events().connect().syn_sent().in_progress().refused().asked(errno.ECONNREFUSED)
    row = row_of(attempt.call_again().returned(-errno.ECONNABORTED))
    assert (outcome(row), row["errno"]) == (Outcome.refused, errno.ECONNREFUSED)
    # where nobody was told anything else, it is all that is known
    attempt = events().connect().syn_sent().in_progress().failed(0)
    row = row_of(attempt.call_again().returned(-errno.ECONNABORTED))
    assert (outcome(row), row["errno"]) == (Outcome.failed, errno.ECONNABORTED)


@pytest.mark.parametrize("code", [errno.ENOTSOCK, errno.EBADF, errno.EFAULT])
def test_a_call_on_a_descriptor_that_is_another_file_by_now_says_nothing(code: int) -> None:
    attempt = events().connect().syn_sent().in_progress().cancelled()
    row = row_of(attempt.call_again().returned(-code))
    assert (outcome(row), row["errno"]) == (Outcome.cancelled, 0)


def test_the_end_of_the_trace_leaves_attempts_pending() -> None:
    story = events()
    story.connect(tid=8).syn_sent()
    story.connect(tid=9).syn_sent().in_progress().retransmit()
    rows = rows_of(story)
    assert [outcome(row) for row in rows] == [Outcome.pending] * 2
    assert rows["end_ns"].tolist() == [0, 0]
    assert rows["complete"].all()


@pytest.mark.parametrize("result", [-errno.EPERM, -errno.ECONNREFUSED, -errno.EAGAIN])
def test_denied_at_the_gate(result: int) -> None:
    row = row_of(events().connect(at=5 * S, held_ns=S).answered_at_gate(result, after_ns=0))
    assert row["errno"] == -result
    assert (row["gate_ns"], row["call_ns"], row["end_ns"]) == (4 * S, 0, 5 * S)
    assert row["origin"] == Origin.connect


@pytest.mark.parametrize(
    ("result", "expected"),
    [(0, Outcome.established), (-errno.EINPROGRESS, Outcome.unknown)],
)
def test_a_gate_that_connects_by_itself(result: int, expected: Outcome) -> None:
    """The supervisor's answer is all that is known: the attempt is over, not pending."""
    row = row_of(events().connect(held_ns=500).answered_at_gate(result))
    assert outcome(row) == expected
    assert row["end_ns"] > 0


# -- errno priority


def test_the_callers_errno_counts_before_the_sockets() -> None:
    attempt = events().connect().syn_sent().end(CLOSE, 5 * MS, error=errno.EHOSTUNREACH)
    row = row_of(attempt.returned(-errno.ETIMEDOUT, slept=True))
    assert (outcome(row), row["errno"]) == (Outcome.timed_out, errno.ETIMEDOUT)


def test_an_established_socket_has_no_errno() -> None:
    attempt = events().connect().syn_sent().in_progress().established()
    attempt.emit(EventType.ERROR, error=errno.ECONNRESET, **attempt.owner())
    row = row_of(attempt)
    assert (outcome(row), row["errno"]) == (Outcome.established, 0)


def test_a_late_error_is_not_the_reason_of_the_end() -> None:
    attempt = events().connect().syn_sent().in_progress().cancelled()
    attempt.now += GRACE_NS + 1
    attempt.emit(EventType.ERROR, error=errno.ECONNREFUSED, **attempt.owner())
    assert outcome(rows_of(attempt)[0]) == Outcome.cancelled


def test_an_errno_that_the_program_took_first() -> None:
    """Whichever is recorded first, the program's question or the report without a number."""
    attempt = events().connect().syn_sent().in_progress().refused(told="taken")
    assert (outcome(row_of(attempt)), row_of(attempt)["errno"]) == (Outcome.failed, 0)
    for after_ns in (10, -10):
        attempt = events().connect().syn_sent().in_progress().refused(told="taken")
        row = row_of(attempt.asked(errno.ECONNREFUSED, after_ns))
        assert (outcome(row), row["errno"]) == (Outcome.refused, errno.ECONNREFUSED)


@pytest.mark.parametrize("cut", [True, False])
def test_a_question_long_after_the_end(cut: bool) -> None:
    attempt = events().connect().syn_sent().in_progress().refused()
    table = attempt.asked(errno.ECONNREFUSED, S).array()
    rows = np.concatenate(fed(table, [S if cut else NEVER, NEVER]))
    assert [outcome(row) for row in rows] == [Outcome.refused]
    assert rows["dport"].tolist() == [80]


# -- several calls, one attempt


def test_an_interrupted_call_that_is_made_again() -> None:
    attempt = events().connect(at=S).syn_sent().interrupted().call_again(held_ns=3_000)
    row = row_of(attempt.refused(after_ns=S))
    assert (outcome(row), row["blocking"]) == (Outcome.refused, True)
    # gate and call are the first call's, the return is the last one's
    assert (row["gate_ns"], row["call_ns"]) == (0, S)
    assert row["return_ns"] > row["end_ns"]


def test_a_restarted_call_is_one_attempt() -> None:
    attempt = events().connect().syn_sent().interrupted(code=512).call_again(after_ns=1_000)
    row = row_of(attempt.established())
    assert (outcome(row), row["blocking"]) == (Outcome.established, True)


def test_asking_again_while_connecting() -> None:
    attempt = events().connect().syn_sent().in_progress()
    for _ in range(3):
        attempt.call_again().returned(-errno.EALREADY)
    row = row_of(attempt.refused())
    assert (outcome(row), row["blocking"]) == (Outcome.refused, False)


@pytest.mark.parametrize("late_ns", [MS, S])
@pytest.mark.parametrize("cut", [True, False])
def test_a_result_fetched_by_another_call(cut: bool, late_ns: int) -> None:
    """However late the program asks, there is one row, and live as from a file."""
    attempt = events().connect().syn_sent().in_progress().established()
    table = attempt.call_again(after_ns=late_ns).returned(0).array()
    rows = [*fed(table, [2 * S if cut else NEVER, NEVER])]
    assert [outcome(row) for row in np.concatenate(rows)] == [Outcome.established]


@pytest.mark.parametrize(
    "code", [errno.EISCONN, errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EINVAL]
)
def test_mistakes_are_no_attempts(code: int) -> None:
    assert not len(rows_of(events().connect().fails_early(code)))


def test_a_send_timeout_is_not_the_end() -> None:
    # SO_SNDTIMEO: a blocking connect returns EINPROGRESS, the socket goes on
    attempt = events().connect().syn_sent().returned(-errno.EINPROGRESS, S, slept=True)
    row = row_of(attempt.established(after_ns=2 * S))
    assert (outcome(row), row["blocking"]) == (Outcome.established, True)
    assert row["return_ns"] < row["end_ns"]


def test_without_a_watched_scheduler_a_long_call_was_blocking() -> None:
    attempt = events().connect().syn_sent().returned(-errno.EINPROGRESS, 200 * MS)
    assert row_of(attempt.established())["blocking"] == 1
    assert row_of(events().without_call().syn_sent().established())["blocking"] == -1


# -- marks and identity


def test_the_marks_of_a_whole_life() -> None:
    attempt = events().connect(at=10 * S, held_ns=2 * S).syn_sent(after_ns=5)
    row = row_of(attempt.established(after_ns=MS, return_ns=77))
    assert [
        int(row[f"{mark}_ns"]) for mark in ("sleep", "gate", "call", "syn", "end", "return")
    ] == [
        0,
        8 * S,
        10 * S,
        10 * S + 5,
        10 * S + 5 + MS,
        10 * S + 5 + MS + 77,
    ]
    assert (row["gate_stack"], row["connect_stack"]) == (5, -1)


def test_a_sleep_before_the_call_is_a_mark_of_its_own() -> None:
    row = row_of(events().connect(at=10 * S, slept_ns=S).syn_sent().established())
    assert (row["sleep_ns"], row["gate_ns"]) == (9 * S, 0)


def test_who_and_where_to() -> None:
    attempt = events().connect(
        pid=7, tid=8, uid=33, cgroup=99, comm=b"agent", fd=12, to="192.0.2.66:9100"
    )
    row = row_of(attempt.syn_sent().established())
    assert (row["pid"], row["tid"], row["uid"], row["cgroup"]) == (7, 8, 33, 99)
    assert (row["comm"], row["fd"], row["dport"], row["sport"]) == (
        b"agent",
        12,
        9100,
        attempt.sport,
    )
    assert row["daddr"].tobytes() == packed("192.0.2.66")
    assert row["saddr"].tobytes() == packed("192.0.2.1")
    assert row["kernel_in_flight"] == 1


@pytest.mark.parametrize(
    ("to", "family", "shown"),
    [("192.0.2.2:80", 2, 2), ("192.0.2.2:80", 10, 2), ("[2001:db8::2]:80", 10, 10)],
)
def test_ipv4_through_an_ipv6_socket_is_ipv4(to: str, family: int, shown: int) -> None:
    row = row_of(events().connect(to=to, family=family).syn_sent().established())
    assert row["family"] == shown


def test_a_pending_row_keeps_what_only_the_start_told() -> None:
    """connect(2) returned, but its record has no local address and perhaps another thread."""
    attempt = events().connect(tid=8).syn_sent().in_progress().call_again(tid=9)
    row = row_of(attempt.returned(-errno.EALREADY))
    assert (row["tid"], row["saddr"].tobytes()) == (8, packed("192.0.2.1"))


def test_retransmits_are_counted() -> None:
    attempt = events().connect().syn_sent()
    for second in (1, 2, 4):
        attempt.retransmit(second * S)
    assert row_of(attempt.established())["retransmits"] == 3


def test_origins() -> None:
    story = events()
    story.connect(tid=1).syn_sent().established()
    story.connect(tid=2).syn_sent().deferred().established()
    story.without_call(tid=3).syn_sent().established()
    story.seed(sport=40_001).established()
    rows = np.sort(rows_of(story), order="tid")
    assert [Origin(int(o)).name for o in rows["origin"]] == [
        "seeded",
        "connect",
        "fastopen",
        "other",
    ]
    assert [outcome(row) for row in rows] == [Outcome.established] * 4
    assert rows["blocking"][rows["origin"] == Origin.fastopen].tolist() == [0]


def test_seeds_are_told_apart_by_their_start() -> None:
    story = events()
    story.seed(sport=40_001, at=100).established()
    story.seed(sport=40_002, at=101).refused()
    story.seed(sport=40_003, at=102)
    rows = np.sort(rows_of(story), order="syn_ns")
    assert [outcome(row).name for row in rows] == ["established", "refused", "pending"]
    assert rows["sport"].tolist() == [40_001, 40_002, 40_003]


# -- what is missing


def test_an_end_alone_gives_a_full_row() -> None:
    attempt = events().connect(at=S, held_ns=MS, to="192.0.2.66:9100").syn_sent().refused()
    whole = row_of(attempt)
    without = row_of(attempt, without=EventType.START)
    for name in ATTEMPT.names or ():
        assert name == "kernel_in_flight" or without[name] == whole[name], name


def test_a_lost_return_waits_for_the_end_of_the_trace() -> None:
    row = row_of(events().connect().syn_sent().refused(), without=EventType.RETURN)
    assert (outcome(row), row["return_ns"], row["blocking"]) == (Outcome.refused, 0, -1)


def test_an_untracked_socket_is_known_by_its_call_alone() -> None:
    story = events()
    story.connect(tid=1).syn_sent(untracked=True).returned(0, S, slept=True)
    story.connect(tid=2).syn_sent(untracked=True).returned(-errno.ECONNREFUSED, S, slept=True)
    story.connect(tid=3).syn_sent(untracked=True).in_progress()
    rows = np.sort(rows_of(story), order="tid")
    assert [outcome(row).name for row in rows] == ["established", "refused", "unknown"]
    assert rows["complete"].tolist() == [True, True, False]


def test_a_socket_address_that_is_used_again() -> None:
    story = events()
    story.connect(tid=1, at=0, sock=0xABC000).syn_sent().in_progress()
    story.connect(tid=2, at=9 * S, sock=0xABC000).syn_sent().established()
    rows = np.sort(rows_of(story), order="tid")
    assert [outcome(row).name for row in rows] == ["unknown", "established"]
    assert rows["complete"].tolist() == [False, True]


def test_a_socket_that_ended_properly_may_be_used_again() -> None:
    story = events()
    story.connect(at=0, sock=0xABC000).syn_sent().refused()
    story.connect(at=21 * MS, sock=0xABC000).syn_sent().established()
    assert [outcome(row).name for row in rows_of(story)] == ["refused", "established"]


def test_a_loss_makes_an_end_unknown_only_after_the_attempt_began() -> None:
    story = events()
    story.connect(tid=1, at=10 * S).syn_sent()
    story.connect(tid=2, at=20 * S).syn_sent()
    _, still = step(story.array(), Open(), 0)
    rows = np.sort(flush(still, (Loss(5 * S, 15 * S, 0, 9),)), order="tid")
    assert [outcome(row).name for row in rows] == ["unknown", "pending"]
    rows = flush(still, (Loss(5 * S, 6 * S, 0, 9),))
    assert [outcome(row).name for row in rows] == ["pending", "pending"]


def test_losses_mark_the_rows_whose_life_they_touch() -> None:
    story = events()
    for tid, begin in ((1, S), (2, 3 * S), (3, 5 * S)):
        story.connect(tid=tid, at=begin).syn_sent().established(after_ns=S)
    rows = np.sort(rows_of(story), order="tid")
    before = rows.copy()
    marked = mark_losses(rows, (Loss(3 * S + 5, 4 * S, 0, 1),))
    assert marked["complete"].tolist() == [True, False, True]
    assert (rows == before).all()
    open_end = rows_of(events().connect(at=S).syn_sent())
    assert not mark_losses(open_end, (Loss(9 * S, 9 * S, 0, 1),))["complete"].any()


# -- steps


def test_nothing_gives_nothing() -> None:
    rows, still = step(no_events(), Open(), 5)
    assert (len(rows), rows.dtype, len(still.events)) == (0, ATTEMPT, 0)
    assert len(flush(still)) == len(pending(still)) == 0
    assert len(mark_losses(no_attempts(), (Loss(1, 2, 0, 1),))) == 0


def test_other_events_are_not_kept() -> None:
    story = events().loss(1, 2)
    for kind in (EventType.EXEC, EventType.EXIT, EventType.FORK):
        story.add(kind, 5, pid=7)
    rows, still = step(story.array(), Open(), 0)
    assert len(rows) == len(still.events) == 0


def test_open_attempts_can_be_looked_at() -> None:
    attempt = events().connect().syn_sent().in_progress().retransmit()
    _, still = step(attempt.array(), Open(), NEVER)
    (row,) = pending(still)
    assert (row["attempt_id"], outcome(row), row["retransmits"]) == (0, Outcome.pending, 1)


def test_a_row_is_finished_when_nothing_can_change_it() -> None:
    attempt = events().connect(at=0).syn_sent().in_progress().established()
    end_ns = attempt.now
    rows, still = step(attempt.array(), Open(), end_ns + GRACE_NS)
    assert len(rows) == 0
    rows, still = step(no_events(), still, end_ns + GRACE_NS + 1)
    assert (len(rows), len(still.events)) == (1, 0)


def test_ids_count_in_order_of_completion() -> None:
    story = events()
    story.connect(tid=1, at=0).syn_sent().established(after_ns=3 * S)
    story.connect(tid=2, at=S).syn_sent().established(after_ns=S)
    story.connect(tid=3, at=S).syn_sent()
    rows = rows_of(story)
    assert rows["tid"].tolist() == [2, 1, 3]
    assert rows["attempt_id"].tolist() == [1, 2, 3]


# -- properties

_CODES = st.sampled_from([errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EADDRNOTAVAIL, errno.EPROTO])
# A coarse grid on the scale of GRACE_NS: equal times and the edges of the grace come often.
_LATER = st.sampled_from([0, 5 * MS, 10 * MS, 20 * MS, 20 * MS + 1, 60 * MS])
_SOCKS = [0xAB000, 0xCD000]


def _tell(draw: st.DrawFn, attempt: Attempt) -> None:
    # What may happen after connect(2) was called.
    kind = draw(
        st.sampled_from(["early", "gate", "untracked", "deferred", "calls", "ring", "plain"])
    )
    if kind == "early":
        attempt.fails_early(draw(_CODES), draw(_LATER))
    elif kind == "gate":
        attempt.answered_at_gate(-draw(_CODES), draw(_LATER))
    elif kind == "untracked":
        attempt.syn_sent(draw(_LATER), untracked=True)
        attempt.returned(draw(st.sampled_from([0, -errno.ECONNREFUSED, -115])), draw(_LATER))
        if draw(st.booleans()):
            attempt.call_again(5 * MS).returned(0)
    else:
        attempt.syn_sent(draw(_LATER))
        _tell_of_syn_sent(draw, attempt, kind)


def _tell_of_syn_sent(draw: st.DrawFn, attempt: Attempt, kind: str) -> None:
    if kind == "deferred":
        attempt.deferred(draw(_LATER))
    elif kind == "calls" or draw(st.booleans()):
        attempt.in_progress(draw(_LATER))
    for _ in range(draw(st.integers(0, 2))):
        attempt.retransmit(draw(_LATER))
    if kind == "calls":
        for _ in range(draw(st.integers(0, 2))):
            attempt.call_again(draw(_LATER)).returned(-errno.EALREADY, 1_000)
    end = draw(st.sampled_from(["established", "failed", "cancelled", "none"]))
    return_ns = draw(_LATER)
    if end == "established":
        attempt.established(draw(_LATER), return_ns=return_ns)
    elif end == "failed":
        told = draw(st.sampled_from(["after", "with", "never", "taken"]))
        attempt.failed(draw(_CODES), draw(_LATER), return_ns=return_ns, told=told)
    elif end == "cancelled":
        attempt.cancelled(draw(_LATER), return_ns=return_ns)
    if kind == "calls" and end != "none":
        for _ in range(draw(st.integers(0, 2))):
            attempt.call_again(draw(_LATER)).returned(-draw(_CODES), 1_000)
    if draw(st.booleans()):
        attempt.asked(draw(_CODES), draw(_LATER))


@st.composite
def histories(draw: st.DrawFn) -> Events:
    """Draw the events of several attempts, in order of time, some of them lost."""
    story = events()
    free_at = dict.fromkeys(_SOCKS, 1)
    for tid in range(1, draw(st.integers(1, 7)) + 1):
        begin = draw(st.integers(0, 40)) * 5 * MS + 1
        sock = draw(st.sampled_from([0, *_SOCKS]))
        if sock:
            begin = max(begin, free_at[sock])
        held_ns = draw(st.sampled_from([0, 1]))
        if draw(st.integers(0, 9)) == 0:
            seed = story.seed(sport=40_000 + tid, at=tid)
            if draw(st.booleans()):
                seed.established(draw(_LATER))
            continue
        if draw(st.integers(0, 9)) == 0:
            attempt = story.without_call(tid=tid, at=begin, sock=sock)
            attempt.syn_sent(draw(_LATER))
            _tell_of_syn_sent(draw, attempt, "ring")
        else:
            attempt = story.connect(tid=tid, at=begin, sock=sock, held_ns=held_ns)
            _tell(draw, attempt)
        if sock:
            free_at[sock] = attempt.now + draw(st.sampled_from([1, 5 * MS, 60 * MS]))
    table = story.array()
    lost = draw(st.sets(st.integers(0, max(0, len(table) - 1)), max_size=2))
    return table[~np.isin(np.arange(len(table)), list(lost))]


def fed(table: Events, watermarks: Sequence[int]) -> list[Attempts]:
    """Feed the events as finished rounds would: each step gets what its watermark makes final."""
    still, parts, before = Open(), [], -1
    for watermark in watermarks:
        now = (table["time_ns"].astype(np.int64) > before) & (
            table["time_ns"].astype(np.int64) <= watermark
        )
        rows, still = step(table[now], still, watermark)
        parts.append(rows)
        before = watermark
    return [*parts, flush(still)]


@settings(max_examples=250)
@given(histories(), st.data())
def test_cutting_a_trace_anywhere_changes_nothing(table: Events, data: st.DataObject) -> None:
    last = int(table["time_ns"].max(initial=0)) + data.draw(st.sampled_from([0, MS, 90 * MS]))
    times = st.sampled_from([*table["time_ns"].tolist(), last]) | st.integers(0, last)
    cuts = sorted(data.draw(st.lists(times, max_size=6)))
    whole = np.concatenate(fed(table, [last]))
    pieces = np.concatenate(fed(table, [*cuts, last]))
    assert whole["attempt_id"].tolist() == list(range(1, len(whole) + 1))
    assert whole.tolist() == pieces.tolist()


@settings(max_examples=150)
@given(histories(), st.data())
def test_a_cut_between_events_of_one_instant(table: Events, data: st.DataObject) -> None:
    """A watermark says that nothing older comes; what is as old as it may still come."""
    last = int(table["time_ns"].max(initial=0))
    places = sorted(data.draw(st.lists(st.integers(0, len(table)), max_size=6)))
    still, parts, before = Open(), [], 0
    for place in [*places, len(table)]:
        piece = table[before:place]
        rows, still = step(piece, still, int(table["time_ns"][place - 1]) if place else 0)
        parts.append(rows)
        before = place
    pieces = np.concatenate([*parts, flush(still)])
    assert np.concatenate(fed(table, [last])).tolist() == pieces.tolist()


@settings(max_examples=100)
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_events_of_one_instant_does_not_matter(table: Events, rng: object) -> None:
    order = list(range(len(table)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    assert rows_after(table).tolist() == rows_after(table[order]).tolist()


def rows_after(table: Events) -> Attempts:
    return np.concatenate(fed(table, [NEVER]))


@settings(max_examples=100)
@given(st.binary(max_size=EVENT.itemsize * 12), st.integers(0, 2**63 - 1))
def test_no_bytes_make_it_fail(raw: bytes, watermark: int) -> None:
    table = np.frombuffer(raw[: len(raw) - len(raw) % EVENT.itemsize], EVENT).copy()
    table["type"] = table["type"] % 11
    rows, still = step(table, Open(), watermark)
    pending(still)
    mark_losses(flush(still, (Loss(0, watermark, 0, 1),)), (Loss(0, 1, 0, 1),))
    assert rows.dtype == ATTEMPT


_INSTANTS = st.integers(1, 30)


@given(
    st.lists(st.tuples(_INSTANTS, st.integers(0, 9), st.booleans()), max_size=8),
    st.lists(st.tuples(_INSTANTS, st.integers(0, 9)), min_size=1, max_size=5),
)
def test_every_loss_touches_the_rows_it_overlaps(
    lives: list[tuple[int, int, bool]], lost: list[tuple[int, int]]
) -> None:
    rows = np.zeros(len(lives), ATTEMPT)
    rows["complete"] = True
    for row, (begin, length, over) in zip(rows, lives, strict=True):
        row["syn_ns"], row["end_ns"] = begin, begin + length if over else 0
    losses = tuple(Loss(first, first + length, 0, 1) for first, length in lost)
    touched = [
        any(loss.first_ns <= (begin + length if over else NEVER) for loss in later)
        for begin, length, over in lives
        for later in [[loss for loss in losses if loss.last_ns >= begin]]
    ]
    assert mark_losses(rows, losses)["complete"].tolist() == [not each for each in touched]
