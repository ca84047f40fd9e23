"""The screen fits its window, says what matters, and nothing on it can act on a terminal."""

import json

import pytest

from porttrace.analysis.model import Finding, Process
from porttrace.analysis.render.escape import columns
from porttrace.analysis.render.top import Line, now_json, plain, screen
from porttrace.analysis.top import SORTS, Now, ProcessNow

ABOUT = ("pid 7; fentry mode", "Holds at user and gate do not show.")
SUMMARY = "Process website (pid 7) can only have 1 TCP connect attempt open at a time. " * 4


def process(pid: int, comm: str = "website", **numbers: object) -> ProcessNow:
    told = {"in_flight": 1, "demand": 3, "held": 2, "worst_ns": 5_009_000_000, "worst_at": "gate",
            "connects_per_s": 12.5, "failures_per_s": 0.5, **numbers}  # fmt: skip
    return ProcessNow(Process(pid, comm=comm), **told)  # type: ignore[arg-type]


def finding(confidence: float = 0.9, rule: str = "serialized-connects") -> Finding:
    return Finding(rule, "critical", confidence, {"pids": [7]}, SUMMARY)


def texts(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def shown(now: Now, width: int = 80, height: int = 24, sort: str = "worst") -> list[str]:
    return texts(screen(now, ABOUT, sort, width, height))


def now(*rows: ProcessNow, findings: tuple[Finding, ...] = (), lost: int = 0) -> Now:
    return Now(12_000_000_000, 2.0, rows, findings, lost)


def test_a_line_of_a_process() -> None:
    lines = shown(now(process(7, findings=(finding(),)), findings=(finding(),)))
    head, row = lines[4], lines[5]
    assert head.split() == [
        "PID", "PROCESS", "FLIGHT", "DEMAND", "HELD", "WORST", "AT", "CONN/S", "FAIL/S", "VERDICT"
    ]  # fmt: skip
    assert row.split() == ["7", "website", "1", "3", "2", "5.01s", "gate", "12", "0.5",
                           "serialized"]  # fmt: skip
    assert [head.index(word) + len(word) for word in ("FLIGHT", "WORST", "FAIL/S")] == [
        row.index(" 1 ") + 2, row.index("5.01s") + 5, row.index("0.5") + 3
    ]  # fmt: skip
    assert lines[7] == "[CRITICAL] serialized-connects (firm)"
    assert lines[8].startswith("  Process website (pid 7) can only have 1 TCP")
    assert lines[1].startswith("1 process: 1 in flight, 3 wanted, 2 held; 12 over/s, 0.5 failed/s")
    assert lines[2] == ABOUT[1]


@pytest.mark.parametrize("width", [20, 40, 80, 99, 100, 132, 300])
@pytest.mark.parametrize("height", [1, 3, 5, 8, 24, 60])
@pytest.mark.parametrize("rows", [0, 1, 5, 200])
def test_it_fits_every_window(width: int, height: int, rows: int) -> None:
    processes = [
        process(pid, "長い名前のプロセス", findings=(finding(0.6),)) for pid in range(rows)
    ]
    lines = shown(now(*processes, findings=(finding(), finding(0.6))), width, height)
    assert len(lines) == height
    assert max(map(columns, lines)) <= width
    # the keys stay, whatever there is no room for
    assert lines[-1].startswith("pid name in-flight"[: width - 1])


def test_in_80_columns_all_keys_show() -> None:
    last = shown(now())[-1]
    assert last.split() == [*SORTS, "reverse", "quit"]


def test_what_there_is_no_room_for_is_told() -> None:
    lines = shown(now(*map(process, range(100)), findings=(finding(), finding(0.6))), height=14)
    assert any("98 more processes" in line for line in lines)
    assert [line.split()[0] for line in lines if " gate " in line[:60]][1:] == ["0", "1"]
    assert any("more in a larger window" in line for line in lines)
    assert plain(now(*map(process, range(100))), ABOUT, 80).count("website") == 100


def test_a_likely_verdict_has_a_question_mark_and_others_are_counted() -> None:
    row = process(7, findings=(finding(0.6), finding(), finding()))
    assert shown(now(row))[5].endswith(" serialized?")
    wide = shown(now(row), width=120)[5]
    assert wide.endswith("serialized-connects? +2")


def test_losses_cannot_be_missed() -> None:
    lines = screen(now(process(7), lost=3), ABOUT, "worst", 80, 24)
    assert lines[1][0] == ("3 events LOST; ", "red")


def test_that_nothing_was_lost_is_told_where_there_is_room() -> None:
    assert shown(now(process(7)))[1].endswith("failed/s; none lost")
    assert shown(now(process(7)), width=60)[1].endswith("~")
    tight = len("1 process: 1 in flight, 3 wanted, 2 held; 12 over/s, 0.5 failed/s")
    assert "none" not in shown(now(process(7)), width=tight + 5)[1]


def test_the_order_is_marked() -> None:
    (last,) = screen(now(), ABOUT, "held", 80, 24)[-1:]
    assert [text for text, style in last if "reverse" in style] == ["h", "eld"]
    keys = [text for text, style in last if "key" in style]
    assert keys == [name[0] for name in (*SORTS, "reverse", "quit")]


HOSTILE = "\x1b[2J\r\n\x9b31m[red]\u202eevil\udcff"


def test_names_cannot_act() -> None:
    said = Finding("serialized-connects", "critical", 0.9, {"pids": [7]}, f"{HOSTILE} waits")
    row = ProcessNow(
        Process(7, comm=HOSTILE, container="c", container_name=HOSTILE, ns_pid=3),
        1, 1, 0, 1, "sent", 0.0, 0.0, (said,),
    )  # fmt: skip
    for width in (80, 200):
        for line in shown(now(row, findings=(said,)), width):
            assert line.isprintable() or not line
    whole = plain(now(row, findings=(said,)), (HOSTILE,), 100)
    assert whole.replace("\n", "").isprintable()
    assert "\\x1b" in whole


@pytest.mark.parametrize(
    ("per_s", "told"),
    [(0, "0"), (0.04, "0.0"), (9.94, "9.9"), (9.96, "10"), (9999, "9999"), (80_000, "80k")],
)
def test_rates_take_few_columns(per_s: float, told: str) -> None:
    row = plain(now(process(7, connects_per_s=per_s)), ABOUT, 80).splitlines()[-1]
    assert row.split()[7] == told


def test_nobody_yet() -> None:
    assert "nobody has connected yet" in plain(now(), ABOUT, 80)


def test_json() -> None:
    row = process(7, findings=(finding(),), comm="w\udcff")
    moment = now(row, findings=(finding(),), lost=2)
    value = json.loads(json.dumps(now_json(moment, ("pid 7; fentry", "no gate"), 10**18)))
    assert (value["traced"], value["notes"]) == ("pid 7; fentry", ["no gate"])
    assert (value["type"], value["lost_events"], value["interval_s"]) == ("top", 2, 2.0)
    assert value["time"] == pytest.approx(10**9 + 12)
    assert value["processes"] == [
        {
            "pid": 7, "comm": "w\\xff", "container": "", "container_name": "", "ns_pid": None,
            "in_flight": 1, "demand": 3, "held": 2, "worst_s": 5.009, "worst_at": "gate",
            "connects_per_s": 12.5, "failures_per_s": 0.5,
            "verdicts": [
                {"rule": "serialized-connects", "severity": "critical", "confidence": 0.9},
            ],
        }
    ]  # fmt: skip
    assert value["findings"][0]["rule"] == "serialized-connects"
