"""The tables that a notebook sees."""

import numpy as np
import pandas as pd
import pytest

from builders import MS, NEVER, S, events
from porttrace.analysis.assemble import assemble
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.frames import attempts_table, binds_table, concurrency_table
from porttrace.analysis.model import Host, Process, Trace, no_attempts
from porttrace.tracer.event import Events, no_events


def trace_of(table: Events, **about: object) -> Trace:
    rows, carried = step(table, Open(), NEVER)
    empty = Trace(no_attempts(), 0, 200 * S, host=Host("web-1"), **about)  # type: ignore[arg-type]
    return assemble(empty, [rows], carried)


def test_an_attempt_as_a_row() -> None:
    table = events().connect(
        pid=7, tid=8, at=S, held_ns=S // 2, to="[2001:db8::2]:443", comm=b"we\xffb"
    ).syn_sent(after_ns=MS).established(after_ns=20 * MS).array()  # fmt: skip
    process = Process(7, exe="/bin/we\udcffb", user="me", container="c0ffee", netns=42)
    (row,) = attempts_table(trace_of(table, processes={7: process})).to_dict("records")
    assert (row["host"], row["pid"], row["tid"], row["comm"]) == ("web-1", 7, 8, "we\\xffb")
    assert (row["exe"], row["user"], row["container"]) == ("/bin/we\\xffb", "me", "c0ffee")
    assert (row["netns"], row["family"]) == (42, 6)
    assert (row["saddr"], row["daddr"], row["dport"]) == ("2001:db8::1", "2001:db8::2", 443)
    assert (row["outcome"], row["origin"], row["blocking"]) == ("established", "connect", True)
    assert (row["wait_gate_ns"], row["wait_connect_ns"]) == (S // 2, MS)
    assert (row["wait_user_ns"], row["wait_beyond_ns"]) == (0, 20 * MS)
    assert row["total_ns"] == S // 2 + 21 * MS
    assert pd.isna(row["sleep_ns"]) and row["gate_ns"] == S // 2
    assert pd.isna(row["ladder"]) and row["complete"]


def test_what_is_not_there_is_null() -> None:
    table = events().without_call(at=S).syn_sent().array()
    frame = attempts_table(trace_of(table))
    assert frame["call_ns"].isna().all() and frame["end_ns"].isna().all()
    assert frame["blocking"].isna().all() and frame["netns"].isna().all()
    assert frame["outcome"].tolist() == ["pending"]
    assert frame["total_ns"].tolist() == [200 * S - int(frame["syn_ns"][0])]


def test_types_of_the_columns() -> None:
    frame = attempts_table(trace_of(events().connect().syn_sent().established().array()))
    for name in ("outcome", "origin", "comm", "daddr", "exe", "user", "host"):
        assert isinstance(frame[name].dtype, pd.CategoricalDtype), name
    for name in ("sleep_ns", "gate_ns", "call_ns", "syn_ns", "end_ns", "return_ns", "ladder"):
        assert frame[name].dtype == "Int64", name
    assert list(frame["outcome"].cat.categories)[:2] == ["pending", "established"]


def test_the_rung_of_the_ladder() -> None:
    story = events()
    up = story.connect(tid=1).syn_sent()
    up.retransmit(after_ns=S).retransmit(after_ns=2 * S).established(after_ns=20 * MS)
    story.connect(tid=2).syn_sent().retransmit(after_ns=S).established(after_ns=900 * MS)
    story.connect(tid=3).syn_sent().established(after_ns=5 * S)
    frame = attempts_table(trace_of(story.array())).sort_values("tid")
    assert frame["ladder"].tolist() == [2, 1, pd.NA]


def test_addresses_with_zeros_at_the_end() -> None:
    table = events().connect(to="10.0.0.0:80").syn_sent().established().array()
    assert attempts_table(trace_of(table))["daddr"].tolist() == ["10.0.0.0"]


def test_of_no_attempts() -> None:
    frame = attempts_table(trace_of(events().array()))
    one = attempts_table(trace_of(events().connect().syn_sent().array()))
    assert len(frame) == 0 and list(frame.columns) == list(one.columns)
    assert len(concurrency_table(trace_of(events().array()), "process")) == 0


def test_without_binds_there_are_columns_and_no_rows() -> None:
    frame = binds_table(trace_of(no_events()))
    assert len(frame) == 0 and {"addr", "port_asked", "errno", "holders"} <= set(frame.columns)


def test_steps_of_concurrency() -> None:
    story = events()
    story.connect(tid=1, at=S).syn_sent(after_ns=MS).established(after_ns=S)
    story.connect(tid=2, at=S + S // 2, held_ns=S // 4).syn_sent(MS).established(after_ns=S)
    frame = concurrency_table(trace_of(story.array()), "process")
    assert frame["time_ns"].is_monotonic_increasing
    assert (frame["scope"].max(), frame["in_flight"].max(), frame["demand"].max()) == (7, 2, 2)
    assert frame.iloc[0].tolist() == [7, S, 0, 1]
    assert frame.iloc[-1][["in_flight", "demand"]].tolist() == [0, 0]
    assert set(concurrency_table(trace_of(story.array()), "thread")["scope"]) == {1, 2}
    with pytest.raises(ValueError, match="'galaxy' is none of"):
        concurrency_table(trace_of(story.array()), "galaxy")


def test_many_rows_are_no_loop() -> None:
    table = events().connect().syn_sent().established().array()
    trace = trace_of(table)
    many = np.repeat(trace.attempts, 200_000)
    frame = attempts_table(Trace(many, 0, S))
    assert len(frame) == 200_000
