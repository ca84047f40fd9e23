"""Lines for people, or one JSON object a line; notes never mix with data."""

import json
import time
from typing import Any

import pytest

from builders import NEVER, S, events
from porttrace.analysis.assemble import assemble
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.model import Finding, Trace, no_attempts
from porttrace.cli.printer import JsonPrinter, Printer, TextPrinter

FINDING = Finding("serialized-connects", "critical", 0.9, {"pid": 7}, "web waits \x1b[2J")


def trace() -> Trace:
    story = events()
    story.connect(at=2 * S, comm=b"we\x1bb").syn_sent().established()
    story.connect(at=3 * S, tid=9).syn_sent()
    rows, still = step(story.array(), Open(), NEVER)
    return assemble(Trace(no_attempts(), S, 9 * S, events=4), [rows], still)


def tell(printer: Printer) -> None:
    whole = trace()
    printer.begin("Tracing comm \x1b[2J.")
    printer.attempts(whole.attempts[:1])
    printer.pending(whole.attempts[1:], 5 * S, {})
    printer.finding(FINDING)
    printer.withdrawn(FINDING)
    printer.end(whole, [FINDING])


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    tell(TextPrinter(S))
    out, err = capsys.readouterr()
    assert err == "Tracing comm \\x1b[2J.\n"
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["TIME", "PID"]
    assert lines[1].split()[:4] == ["1.020", "7", "we\\x1bb", "192.0.2.2:80"]
    assert lines[2].split()[:2] == ["4.000", "7"]
    assert "in SYN_SENT" in lines[2]
    assert out.count("[CRITICAL] serialized-connects: firm") == 2
    assert "[TAKEN BACK] serialized-connects no longer holds" in out
    assert "Traced: from " in out and " for 8.0 s; " in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("after_s", "shown"),
    [(0, "0.000"), (9999.9994, "9999.999"), (12345.678, "12345.67"), (1_234_567.8, "1234567")],
)
def test_times_since_the_start_fit_their_column(
    capsys: pytest.CaptureFixture[str], after_s: float, shown: str
) -> None:
    TextPrinter(S).pending(trace().attempts[1:], S + int(after_s * S), {})
    assert capsys.readouterr().out.split()[0] == shown


def test_times_of_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    TextPrinter(0, wall_clock=True).pending(trace().attempts[1:], time.monotonic_ns(), {})
    shown = capsys.readouterr().out.split()[0]
    around = (time.strftime("%H:%M:%S", time.localtime(time.time() - ago)) for ago in (0, 1, 2))
    assert shown in around


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    tell(JsonPrinter())
    out, err = capsys.readouterr()
    assert err == "Tracing comm \\x1b[2J.\n"
    objects: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert [each["type"] for each in objects] == [
        "attempt",
        "pending",
        "finding",
        "withdrawn",
        "attempt",
        "report",
    ]
    attempt, pending, finding, withdrawn, last, report = objects
    assert (attempt["outcome"], attempt["comm"]) == ("established", "we\x1bb")
    assert (pending["outcome"], pending["now_ns"]) == ("pending", 5 * S)
    assert finding["rule"] == "serialized-connects"
    assert withdrawn == {**finding, "type": "withdrawn"}
    assert (last["outcome"], last["attempt_id"]) == ("pending", 2)
    assert report["attempts"]["total"] == 2
    assert report["findings"] == [{k: v for k, v in finding.items() if k != "type"}]


def test_every_attempt_is_told_once_as_over_or_open(capsys: pytest.CaptureFixture[str]) -> None:
    whole = trace()
    printer = JsonPrinter()
    printer.attempts(whole.attempts[whole.attempts["end_ns"] > 0])
    printer.end(whole, [])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ids = [each["attempt_id"] for each in told if each["type"] == "attempt"]
    assert sorted(ids) == whole.attempts["attempt_id"].tolist()
