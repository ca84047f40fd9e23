"""Records become rows, ports that the kernel chose are filled in, and cutting changes nothing."""

import errno

import numpy as np

from binding import call, trace_of_binds
from builders import MS, S, events
from porttrace.analysis.binds import binds_of, joined_binds, with_ports
from porttrace.analysis.frames import binds_table
from porttrace.analysis.model import BindCall, BindOption, no_attempts
from porttrace.analysis.render.report import bind_json
from porttrace.analysis.show import bind_lines
from porttrace.analysis.tables import binds as table
from porttrace.tracer.event import EVENT, no_events
from porttrace.tracer.facts import Looked
from traces import trace_of

from binding import listener  # isort: skip


def test_a_row_has_what_the_record_says() -> None:
    on = BindOption.reuseaddr | BindOption.v6only
    (row,) = binds_of(call("listen", "[::1]:8080", backlog=9, on=on, fd=5, uid=12))
    assert (row["call"], row["protocol"], row["family"]) == (BindCall.listen, 6, 10)
    assert (row["port_asked"], row["port_got"], row["backlog"]) == (8080, 8080, 9)
    assert (row["fd"], row["uid"], row["errno"], row["options"]) == (5, 12, 0, on)
    assert row["addr"].tobytes() == bytes(15) + b"\1"


def test_other_records_are_none() -> None:
    story = events()
    story.connect().syn_sent().established()
    assert len(binds_of(story.array())) == 0
    assert len(binds_of(no_events())) == 0


def test_cutting_changes_nothing() -> None:
    records = np.concatenate([call(at=n * S, error=n % 3) for n in range(1, 20)])
    whole = binds_of(records)
    for cut in range(len(records) + 1):
        parts = [binds_of(records[cut:]), binds_of(records[:cut])]
        assert joined_binds(parts).tobytes() == whole.tobytes()


def test_the_port_is_that_of_the_next_listen() -> None:
    records = [call(to="0.0.0.0:0", got=0), call("listen", "0.0.0.0:40123", at=S + MS)]
    binds = with_ports(binds_of(np.concatenate(records)), no_attempts())
    assert binds["port_got"].tolist() == [40123, 40123]


def test_the_port_is_that_of_the_next_attempt() -> None:
    story = events()
    story.connect(pid=7, fd=3, at=S + MS).syn_sent().established()
    story.connect(pid=7, fd=4, at=S + MS).syn_sent().established()
    rows = trace_of(story.array()).attempts
    near, other, far = (
        with_ports(binds_of(call(to="0.0.0.0:0", got=0, **how)), rows)["port_got"][0]  # type: ignore[arg-type]
        for how in ({}, {"pid": 8}, {"at": 5 * MS})
    )
    assert near == rows["sport"][rows["fd"] == 3][0] > 0
    assert near != rows["sport"][rows["fd"] == 4][0]
    assert other == 0
    assert far == near  # a second passes between them at most


def test_an_old_attempt_tells_nothing() -> None:
    story = events()
    story.connect(pid=7, fd=3, at=S).syn_sent().established()
    rows = trace_of(story.array()).attempts
    assert with_ports(binds_of(call(to="0.0.0.0:0", got=0, at=2 * S)), rows)["port_got"][0] == 0


def test_a_connect_without_a_port_asked_for_no_address() -> None:
    bare = call("autobind", to="[::]:0", error=errno.EADDRNOTAVAIL)
    bound = call("autobind", to="192.0.2.1:8380", at=2 * S, error=errno.EADDRNOTAVAIL)
    bare["family"] = 2
    wide = call(to="[::]:0", at=3 * S, got=40_000)
    frame = table(trace_of_binds(bare, bound, wide))
    assert frame["addr"].tolist() == ["", "192.0.2.1", "::"]
    assert frame["local"].tolist() == ["", "192.0.2.1:8380", "[::]:0"]
    told = [bind_json(row)["addr"] for row in trace_of_binds(bare, bound, wide).binds]
    assert told == ["", "192.0.2.1", "::"]


def test_the_table() -> None:
    bad = call(at=2 * S, error=errno.EADDRINUSE, on=BindOption.reuseaddr)
    unknown = call(at=3 * S, known=0, protocol="", pid=8)
    looked = Looked(((2 * S, 7),), (listener(),), {}, 0.001)
    frame = binds_table(trace_of_binds(call(), bad, unknown, looked=[looked]))
    assert frame["error"].tolist() == ["", "EADDRINUSE", ""]
    assert frame["options"].tolist() == ["", "reuseaddr", None]
    assert frame["protocol"].tolist() == ["tcp", "tcp", ""]
    assert frame["holders"][1].startswith("nginx (pid 12, user root) listens on 0.0.0.0:80")
    assert frame["advice"][1].startswith("To free the port stop nginx: kill 12")
    assert frame["holders"][0] == frame["advice"][0] == ""


def test_lines_fit_and_cannot_harm() -> None:
    bad = call(
        to="[2001:db8:1234:5678:9abc:def0:1234:5678]:65535",
        error=errno.EADDRINUSE, comm=b"\x1b[2Jevil-name-xx", on=BindOption(31),
    )  # fmt: skip
    looked = Looked(((S, 7),), (listener(comm="\x1b[2J"),), {}, 0.001)
    lines = list(bind_lines(table(trace_of_binds(bad, looked=[looked])), 0))
    assert not any("\x1b" in line for line in lines)
    heading, row, *held = lines
    assert max(map(len, lines)) <= 100 and heading.endswith("RESULT       ")
    assert "EADDRINUSE" in row and "reuseport" in held[0] and "listens on" in " ".join(held)


def test_a_record_of_another_layout_has_no_bind() -> None:
    assert len(binds_of(np.zeros(3, EVENT))) == 0
