"""Rows are chosen, sorted and cut as asked, and lines fit a terminal that they cannot harm."""

import errno
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from binding import call, trace_of_binds
from builders import MS, S, events, packed
from porttrace.analysis import show, tables
from porttrace.analysis.render.escape import columns
from porttrace.analysis.show import Filter
from porttrace.tracer.event import no_events
from traces import trace_of

LONGEST = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535"


def frame() -> pd.DataFrame:
    story = events()
    story.connect(pid=7, comm=b"one", at=S).syn_sent().established()
    story.connect(pid=8, comm=b"two", at=6 * S, held_ns=3 * S, to="[2001:db8::9]:443").syn_sent()
    story.connect(pid=8, comm=b"one", at=4 * S, to="192.0.2.2:81").syn_sent().refused()
    return tables.attempts(trace_of(story.array()))


def kept(**wanted: object) -> list[int]:
    rows = show.chosen(frame(), Filter(**wanted))  # type: ignore[arg-type]
    return [int(at // S) for at in rows["call_ns"]]


def test_filters() -> None:
    assert kept() == [1, 6, 4]
    assert kept(pids=[8]) == [6, 4]
    assert kept(comms=["one"]) == [1, 4]
    assert kept(pids=[8], comms=["one"]) == [4]
    assert kept(ports={80, 443}) == [1, 6]
    assert kept(outcomes=["pending", "refused"]) == [6, 4]
    assert kept(held_ns=3 * S) == [6]


def test_a_destination_is_an_address_or_one_with_its_port() -> None:
    assert kept(destinations=["192.0.2.2"]) == [1, 4]
    assert kept(destinations=["192.0.2.2:81"]) == [4]
    assert kept(destinations=["2001:db8::9", "192.0.2.2:80"]) == [1, 6]
    assert kept(destinations=["192.0.2.2:8"]) == []


def test_what_a_filter_sets() -> None:
    assert Filter().set_fields() == set()
    assert Filter(pids=[7], held_ns=5).set_fields() == {"pids", "held_ns"}


@pytest.mark.parametrize(
    ("column", "reverse", "order"),
    [
        ("held_ns", False, [1, 4, 6]),
        ("held", True, [6, 1, 4]),
        ("end", False, [1, 4, 6]),  # what has no end comes last
        ("end", True, [4, 1, 6]),
        ("destination", False, [1, 4, 6]),
        ("took", True, [6, 1, 4]),
        ("THREAD", False, [1, 4, 6]),
        ("where", True, [6, 1, 4]),
        ("", False, [1, 6, 4]),
        ("", True, [4, 6, 1]),
    ],
)
def test_sorting(column: str, reverse: bool, order: list[int]) -> None:
    rows = show.ordered(frame(), column, reverse)
    assert [int(at // S) for at in rows["call_ns"]] == order


def test_limits() -> None:
    assert len(show.ordered(frame(), limit=0)) == 0
    assert len(show.ordered(frame(), limit=2)) == 2
    assert len(show.ordered(frame(), limit=99)) == 3


def test_an_unknown_column_is_named_with_those_there_are() -> None:
    with pytest.raises(show.UnknownColumnError, match="'nothing'") as caught:
        show.ordered(frame(), "nothing")
    assert "held_ns" in caught.value.hint


def test_json_is_lossless() -> None:
    story = events().connect(comm=b"\x1b[2J\xc3\xa9", at=2 * S, held_ns=S).syn_sent(after_ns=MS)
    table = tables.attempts(trace_of(story.array(), wall_offset_ns=S))
    (line,) = show.json_lines("attempt", table)
    read = json.loads(line)
    assert read["type"] == "attempt"
    assert read["comm"] == "\x1b[2Jé"
    assert read["start_time"] == "1970-01-01T00:00:02+00:00"
    assert (read["held_ns"], read["end_ns"], read["blocking"]) == (S + MS, None, None)
    assert list(read)[1:] == table.columns.tolist()
    assert line.isascii()


def test_attempt_lines() -> None:
    assert list(show.attempt_lines(frame(), S)) == [
        "   START     PID THREAD DESTINATION       OUTCOME       HELD WHERE     TOOK",
        "   0.000       7 one    192.0.2.2:80      established    9us           20ms",
        "   2.000       8 two    [2001:db8::9]:443 pending      3.00s gate    94.0s+",
        "   3.000       8 one    192.0.2.2:81      refused        9us           20ms",
    ]


def test_what_is_still_held_says_so() -> None:
    frame = tables.attempts(trace_of(events().connect().syn_sent().array()))
    frame = frame.assign(held_ns=3 * S, wait_beyond_ns=0)
    assert list(show.attempt_lines(frame, 0))[1].endswith("pending     3.00s+")


def test_event_lines() -> None:
    table = tables.events(events().connect(at=S).syn_sent().refused(after_ns=S).array())
    lines = list(show.event_lines(table, 0))
    assert lines[0] == "    TIME EVENT          PID THREAD ADDRESS      RESULT FLIGHT"
    assert lines[1] == "   1.000 start            7 client 192.0.2.2:80      0      1"
    assert lines[-1] == "   2.000 return           7 client 192.0.2.2:80   -111      0"


def test_events_of_binds_show_their_own_address() -> None:
    calls = [
        call(to="127.0.0.1:9101"),
        call(to="0.0.0.0:8443", error=errno.EADDRINUSE),
        call(to="0.0.0.0:0", got=41_000),
        call("listen", to="[::]:80"),
        call("autobind", to="[::]:0", error=errno.EADDRNOTAVAIL),
    ]
    records = np.concatenate(calls)
    records["dport"][-1], records["daddr"][-1] = 5493, packed("192.0.2.77")
    frame = tables.events(records)
    assert [line[32:].split()[0] for line in show.event_lines(frame, 0)][1:] == [
        "127.0.0.1:9101", "0.0.0.0:8443", "0.0.0.0:41000", "[::]:80", "192.0.2.77:5493",
    ]  # fmt: skip
    assert frame["local"].tolist()[-2:] == ["[::]:80", ""]
    assert frame["destination"].tolist() == ["", "", "", "", "192.0.2.77:5493"]
    assert frame["daddr"].tolist() == ["", "", "", "", "192.0.2.77"]
    assert frame["saddr"].tolist() == ["127.0.0.1", "0.0.0.0", "0.0.0.0", "::", ""]


def test_the_pages_show_the_columns_that_there_are() -> None:
    words = next(show.bind_lines(tables.binds(trace_of_binds(call())), 0)).split()
    docs = Path(__file__).parents[2] / "docs"
    lines = [line.split() for page in docs.glob("*.md") for line in page.read_text().splitlines()]
    shown = [each for each in lines if each[:1] == ["TIME"] and "CALL" in each]
    assert len(shown) >= 2 and all(each == words for each in shown)


def test_concurrency_lines() -> None:
    trace = trace_of(events().connect(at=S).syn_sent(MS).established(S).array())
    assert list(show.concurrency_lines(tables.concurrency(trace, "process"), 0)) == [
        "    TIME SCOPE                FLIGHT DEMAND",
        "   1.000 client (pid 7)            0      1",
        "   1.001 client (pid 7)            1      1",
        "   2.001 client (pid 7)            0      0",
    ]


@pytest.mark.parametrize(
    ("to", "most"),
    [("192.0.2.66:91", 80), ("192.168.111.222:65535", 88), (LONGEST, 105)],
)
@pytest.mark.parametrize("comm", [b"123456789012345", "日本語日本".encode(), b"\x1b[2J\x1b[31m"])
def test_lines_fit_and_escape(to: str, most: int, comm: bytes) -> None:
    told = events().connect(comm=comm, pid=4_194_304, to=to, at=99_999 * S).syn_sent().refused()
    trace = trace_of(told.array())
    lines = [
        *show.attempt_lines(tables.attempts(trace), 0),
        *show.event_lines(tables.events(told.array()), 0),
        *show.concurrency_lines(tables.concurrency(trace, "process"), 0),
    ]
    assert max(map(columns, lines)) <= most
    assert all(line.isprintable() for line in lines)


def test_a_table_without_rows_has_its_heading() -> None:
    trace = trace_of(no_events())
    assert len(list(show.attempt_lines(tables.attempts(trace), 0))) == 1
    assert len(list(show.event_lines(tables.events(no_events()), 0))) == 1
    assert len(list(show.concurrency_lines(tables.concurrency(trace, "host"), 0))) == 1
    assert list(show.json_lines("attempt", tables.attempts(trace))) == []
