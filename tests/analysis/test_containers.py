"""Two containers whose processes have the same pid inside are told apart wherever one reads."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from builders import MS, NEVER, S, events
from porttrace.analysis import frames, names, show, tables
from porttrace.analysis.assemble import assemble
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.export.csv import csv
from porttrace.analysis.export.ndjson import ndjson
from porttrace.analysis.export.perfetto import perfetto
from porttrace.analysis.findings.dead_destination import dead_destination
from porttrace.analysis.findings.parties import party
from porttrace.analysis.model import Finding, Process, Trace, no_attempts
from porttrace.analysis.render import text, who
from porttrace.analysis.render.escape import columns
from porttrace.analysis.render.html import html_report
from porttrace.analysis.render.report import report
from porttrace.cli.printer import JsonPrinter, TextPrinter

HOSTILE = "\x1b[2J\n\u202e</script>\udcff"
WEB, DB, HOST = 4001, 4002, 812
PROCESSES = {
    WEB: Process(WEB, comm="python", container="0a" * 6, container_name="web", ns_pid=7),
    DB: Process(DB, comm="python", container="0b" * 6, container_name="db", ns_pid=7),
    HOST: Process(HOST, comm="sshd", container_name="ssh.service"),
}


def trace(**names_of: str) -> Trace:
    """Return an attempt of each; keywords replace the names of the two containers."""
    story = events()
    for pid, tid in ((WEB, 41), (DB, 42), (HOST, 43)):
        attempt = story.connect(pid=pid, tid=tid, comm=b"worker", at=tid * S, held_ns=S)
        attempt.syn_sent().established(14 * MS)
    rows, still = step(story.array(), Open(), NEVER)
    known = dict(PROCESSES)
    for pid, name in zip((WEB, DB), names_of.values(), strict=False):
        known[pid] = replace(known[pid], container_name=name)
    about = Trace(no_attempts(), 40 * S, 50 * S, processes=known, events=9)
    return assemble(about, [rows], still)


def finding(of: Trace) -> Finding:
    return Finding(
        "serialized-connects", "critical", 0.9, {"pid": WEB, "pids": [WEB, DB]},
        f"Process {names.process(of, WEB)} waits.",
        victims=(party(of, 0, S),), blockers=(party(of, 1, 2 * S),),
    )  # fmt: skip


# -- what a process is called


@pytest.mark.parametrize(
    ("process", "inside"),
    [
        (Process(12, container="0a" * 6, container_name="web", ns_pid=7), "web[7]"),
        (Process(12, container="0a" * 6, ns_pid=7), "0a0a0a0a0a0a[7]"),
        (Process(12, container="0a" * 6, container_name="web"), "web"),
        (Process(12, ns_pid=7), "[7]"),
        (Process(12, container_name="ssh.service"), ""),
        (Process(12, container_name="x.service", ns_pid=7), "[7]"),
        (Process(12), ""),
        (None, ""),
    ],
)
def test_what_a_process_is_called_where_it_lives(process: Process | None, inside: str) -> None:
    assert names.inside(process) == inside


def test_sentences_have_both_numbers() -> None:
    of = trace()
    assert names.process(of, WEB) == "python (pid 4001, web[7])"
    assert names.process(of, HOST) == "sshd (pid 812)"
    gone = replace(of, processes={WEB: replace(PROCESSES[WEB], comm="")})
    assert names.process(gone, WEB) == "worker (pid 4001, web[7])"


# -- in a column


@pytest.mark.parametrize(
    ("inside", "name", "most", "shown"),
    [
        ("", "python", 8, "python  "),
        ("web[7]", "python", 15, "web[7] python  "),
        ("web[7]", "fifteen-letters", 15, "web[7] fifteen~"),
        ("shop-frontend[7]", "python", 15, "~tend[7] python"),
        ("shop-frontend[7]", "fifteen-letters", 15, "~tend[7] fifte~"),
        ("web[7]", "", 10, "web[7]    "),
        ("x\n[7]", "a\x1b", 20, "x\\x0a[7] a\\x1b      "),
        ("日本[7]", "python", 14, "日本[7] python"),
        ("日本日本[7]", "python", 14, "~本[7] python "),
    ],
)
def test_the_end_of_a_name_is_kept(inside: str, name: str, most: int, shown: str) -> None:
    assert who.called(inside, name, most) == shown
    assert columns(who.called(inside, name, most)) == most


# -- tables


def test_live_lines() -> None:
    of = trace()
    lines = [
        text.attempt_line(row, "1.000", hold, of.processes[int(row["pid"])])
        for row, hold in zip(of.rows, text.holds_of(of.rows, 0), strict=True)
    ]
    assert lines == [
        "   1.000    4001 web[7] worker 192.0.2.2:80    established  1.00s gate      14ms",
        "   1.000    4002 db[7] worker  192.0.2.2:80    established  1.00s gate      14ms",
        "   1.000     812 worker        192.0.2.2:80    established  1.00s gate      14ms",
    ]


@pytest.mark.parametrize(
    ("name", "shown", "most"),
    [
        ("shop-front", " shop-front[7] worker 192.0.2.2:80 established ", 90),
        (
            "shop-front-of-the-shop",
            " shop-front-of-the-shop[7] worker 192.0.2.2:80 established ",
            100,
        ),
        ("x" * 200 + "-the-end", "xx-the-end[7] worker 192.0.2.2:80 established ", 100),
    ],
)
def test_a_longer_name_takes_the_room_behind_the_destination_first(
    name: str, shown: str, most: int
) -> None:
    known = replace(PROCESSES[WEB], container_name=name)
    line = text.attempt_line(trace().attempts[0], "1.000", (S, "gate"), known)
    assert shown in line
    assert most - 10 < columns(line) <= most


def test_the_lines_of_a_live_trace(capsys: pytest.CaptureFixture[str]) -> None:
    of = trace()
    TextPrinter(0, processes=of.processes).attempts(of.rows)
    TextPrinter(0, processes=of.processes).pending(of.rows, 50 * S, {})
    lines = capsys.readouterr().out.splitlines()
    assert [" web[7] worker " in line for line in lines] == [True, False, False] * 2
    assert [" db[7] worker " in line for line in lines] == [False, True, False] * 2


def test_the_process_table() -> None:
    shown = list(text.process_lines(trace()))
    assert shown[1].startswith("    812 sshd            ")
    assert shown[2].startswith("   4001 web[7] python   ")
    assert shown[3].startswith("   4002 db[7] python    ")
    assert max(map(columns, shown)) <= 80
    wide = list(text.process_lines(trace(a="x" * 99, b="db")))
    assert max(map(columns, wide)) <= 100
    assert len({line.index(" 1 ") for line in wide[1:4]}) == 1


def test_show_attempts() -> None:
    assert list(show.attempt_lines(tables.attempts(trace()), 40 * S)) == [
        "   START     PID THREAD        DESTINATION  OUTCOME       HELD WHERE     TOOK",
        "   0.000    4001 web[7] worker 192.0.2.2:80 established  1.00s gate      14ms",
        "   1.000    4002 db[7] worker  192.0.2.2:80 established  1.00s gate      14ms",
        "   2.000     812 worker        192.0.2.2:80 established  1.00s gate      14ms",
    ]


@pytest.mark.parametrize("wanted", ["web", "0a" * 6, "0a" * 32])
def test_show_attempts_of_one(wanted: str) -> None:
    table = show.chosen(tables.attempts(trace()), show.Filter(containers=[wanted]))
    assert table["pid"].tolist() == [WEB]


def test_the_columns() -> None:
    table = frames.attempts_table(trace())[["pid", "container", "container_name", "ns_pid"]]
    assert table.astype(object).where(table.notna(), None).to_numpy().tolist() == [
        [WEB, "0a" * 6, "web", 7],
        [DB, "0b" * 6, "db", 7],
        [HOST, "", "ssh.service", None],
    ]
    assert b",0a0a0a0a0a0a,web,7," in b"".join(csv(tables.attempts(trace())))


def test_concurrency() -> None:
    table = tables.concurrency(trace(), "process")
    assert {"python (pid 4001, web[7])", "python (pid 4002, db[7])"} <= set(table["name"])


# -- JSON, the page, Perfetto


def test_json_of_attempts(capsys: pytest.CaptureFixture[str]) -> None:
    of = trace()
    JsonPrinter(of.processes).attempts(of.rows)
    live = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert live == [json.loads(line) for line in b"".join(ndjson(of)).splitlines()]
    assert [[each[key] for key in ("container", "container_name", "ns_pid")] for each in live] == [
        ["0a" * 6, "web", 7],
        ["0b" * 6, "db", 7],
        ["", "ssh.service", None],
    ]


def test_json_of_findings() -> None:
    of = trace()
    told = report(of, [finding(of)])
    victim, blocker = told["findings"][0]["victims"][0], told["findings"][0]["blockers"][0]
    assert (victim["container_name"], victim["ns_pid"]) == ("web", 7)
    assert (blocker["container_name"], blocker["ns_pid"]) == ("db", 7)
    # what the contract says, and no more
    assert told["processes"][1].keys() == {
        "pid", "comm", "attempts", "max_in_flight", "max_demand",
    }  # fmt: skip


def test_findings_for_the_eye() -> None:
    of = trace()
    shown = " ".join(text.finding_text(finding(of)).split())
    assert "Process python (pid 4001, web[7]) waits." in shown
    assert "thread worker (pid 4001, web[7], tid 41), established" in shown
    assert "thread worker (pid 4002, db[7], tid 42), established" in shown


def page(of: Trace) -> dict[str, Any]:
    whole = html_report(of, [finding(of)])
    data = whole.split('id="data">')[1].split("</script>")[0]
    found: dict[str, Any] = json.loads(data)
    return found


def test_the_page() -> None:
    rows = {row["pid"]: row for row in page(trace())["processes"]}
    assert [rows[pid]["inside"] for pid in (WEB, DB, HOST)] == ["web[7]", "db[7]", ""]
    assert rows[WEB]["container"] == "0a" * 6


def test_perfetto() -> None:
    whole = b"".join(perfetto(trace()))
    assert b"web[7] python" in whole and b"db[7] python" in whole


# -- hostile names


def outputs(of: Trace) -> Iterator[str]:
    yield text.ending(of, [finding(of)])
    yield "\n".join(show.attempt_lines(tables.attempts(of), 0))
    yield "\n".join(show.concurrency_lines(tables.concurrency(of, "process"), 0))
    yield b"".join(csv(tables.attempts(of), on_terminal=True)).decode()


def test_no_name_reaches_a_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    of = trace(a=HOSTILE, b=HOSTILE)
    printer = TextPrinter(0, processes=of.processes)
    printer.attempts(of.rows)
    printer.pending(of.rows, 50 * S, {})
    for shown in (*outputs(of), capsys.readouterr().out):
        assert all(c.isprintable() or c in "\r\n" for c in shown)
        assert "\\u202e</script>\\x" in shown
    whole = html_report(of, [finding(of)])
    assert whole.count("</script>") == html_report(trace(), []).count("</script>")
    assert "\\u001b" not in whole


# -- what is found


@pytest.mark.parametrize(
    ("to", "containers", "findings"),
    [
        ("127.0.0.1:9", {WEB: "web", DB: "db"}, 1),
        ("[::1]:9", {WEB: "web", DB: "db"}, 1),
        ("127.8.8.8:9", {WEB: "web", DB: "web"}, 0),
        ("127.0.0.1:9", {}, 0),
        ("192.0.2.2:9", {WEB: "web", DB: "db"}, 0),
    ],
)
def test_a_loopback_is_that_of_its_container(
    to: str, containers: dict[int, str], findings: int
) -> None:
    # GIVEN one that refuses, then one that answers at the same address
    story = events()
    for at in range(1, 6):
        story.connect(pid=WEB, to=to, at=at * S).syn_sent().refused()
    story.connect(pid=DB, to=to, at=9 * S).syn_sent().established()
    rows, still = step(story.array(), Open(), NEVER)
    known = {pid: Process(pid, comm="x", container=name) for pid, name in containers.items()}
    of = assemble(Trace(no_attempts(), S, 20 * S, processes=known), [rows], still)
    found = dead_destination(of, ())
    assert len(found) == findings
    assert all(each.subject["pids"] == [WEB] for each in found)
