"""Tables say in words what the arrays say in numbers, row for row."""

from datetime import UTC, datetime

import pandas as pd
import pytest

from builders import MS, S, events
from porttrace.analysis import tables
from porttrace.analysis.concurrency import SCOPES
from porttrace.analysis.frames import attempts_table
from porttrace.tracer.event import no_events
from porttrace.tracer.facts import Host, Process
from traces import trace_of


def two() -> pd.DataFrame:
    story = events()
    story.connect(at=2 * S, held_ns=S, comm=b"a\xff").syn_sent(after_ns=MS).established(after_ns=S)
    story.connect(at=5 * S, to="[2001:db8::9]:443").syn_sent(after_ns=MS)
    return tables.attempts(trace_of(story.array(), end_ns=9 * S, wall_offset_ns=1_700_000_000 * S))


def test_attempts_have_what_readers_ask_for() -> None:
    frame = two()
    assert frame["destination"].tolist() == ["192.0.2.2:80", "[2001:db8::9]:443"]
    assert frame["comm"].tolist() == ["a\\xff", "client"]
    assert frame["held_ns"].tolist() == [S + MS, MS]
    assert frame["first_ns"].tolist() == [S, 5 * S]
    assert frame["start_time"][0] == datetime.fromtimestamp(1_700_000_001, UTC)


def test_attempts_keep_the_columns_of_frames_in_their_order() -> None:
    trace = trace_of(events().connect().syn_sent().established().array())
    ours = tables.attempts(trace)
    assert [name for name in ours if name in attempts_table(trace)] == list(attempts_table(trace))


def test_events_in_words() -> None:
    frame = tables.events(events().connect(held_ns=500).syn_sent().refused().array())
    assert frame["event"].tolist() == ["START", "END", "ERROR", "RETURN"]
    assert frame["flags"].tolist()[0] == "in_connect"
    assert frame["flags"].tolist()[-1] == "slept,stream"
    assert frame["gate_ns"].tolist()[0] == 500
    assert frame["sleep_ns"].isna().all()
    assert set(frame["destination"]) == {"192.0.2.2:80"}


@pytest.mark.parametrize("scope", SCOPES)
def test_each_key_of_a_scope_has_a_name(scope: str) -> None:
    story = events()
    story.connect(pid=7, tid=8, to="192.0.2.2:80").syn_sent().established()
    about = Process(7, 1, "web", uid=1000, user="www", cgroup="/web.slice", netns=5)
    trace = trace_of(story.array(), processes={7: about}, host=Host("web-1"))
    names = {
        "thread": "client (tid 8)", "destination": "192.0.2.2:80", "process": "web (pid 7)",
        "user": "www", "cgroup": "/web.slice", "netns": "netns 5", "host": "web-1",
    }  # fmt: skip
    assert set(tables.concurrency(trace, scope)["name"]) == {names[scope]}


def test_names_that_no_process_told() -> None:
    trace = trace_of(events().seed(sport=4000, pid=7, uid=33).array())
    assert set(tables.concurrency(trace, "thread")["name"]) == {"no thread of pid 7"}
    assert set(tables.concurrency(trace, "user")["name"]) == {"uid 33"}
    assert set(tables.concurrency(trace, "host")["name"]) == {"host"}


def test_by_destination() -> None:
    story = events()
    for at in (1, 2, 3):
        story.connect(at=at * S).syn_sent().established(after_ns=at * MS)
    story.connect(to="192.0.2.9:81", at=4 * S).syn_sent().retransmit().refused(after_ns=S)
    table = tables.by_destination(trace_of(story.array()))
    assert table.index.tolist() == ["192.0.2.2:80", "192.0.2.9:81"]
    assert table["attempts"].tolist() == [3, 1]
    assert table["answered"].tolist() == [3, 0]
    assert table["resent"].tolist() == [0, 1]
    assert table["median_took_ns"].tolist() == [2 * MS, 2 * S]
    assert table["worst_took_ns"].tolist() == [3 * MS, 2 * S]


def test_compared_side_by_side() -> None:
    before = trace_of(events().connect(held_ns=S, at=2 * S).syn_sent().established().array())
    after = trace_of(events().connect(to="192.0.2.3:80").syn_sent().established().array())
    both = tables.compared(before, after)
    assert [*map(tuple, both.columns[:2])] == [("attempts", "before"), ("attempts", "after")]
    assert both["attempts", "before"]["192.0.2.2:80"] == 1
    assert pd.isna(both["attempts", "after"]["192.0.2.2:80"])


def test_nothing_has_columns_too() -> None:
    trace = trace_of(no_events())
    assert not len(tables.attempts(trace))
    assert tables.attempts(trace).columns.tolist() == two().columns.tolist()
    assert not len(tables.events(no_events()))
    assert not len(tables.concurrency(trace, "process"))
    assert not len(tables.by_destination(trace))


@pytest.mark.parametrize(
    ("raw", "shown"), [("wéb", "wéb"), ("a\udcff", "a\\xff"), ("a\ud800", "a\\ud800")]
)
def test_text_is_valid_unicode(raw: str, shown: str) -> None:
    assert tables.text(raw) == shown
    tables.text(raw).encode()
