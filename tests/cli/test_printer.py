"""Lines for people, or one JSON object a line; notes never mix with data."""

import json
import time
from typing import Any

import pytest

from binding import call, listener, trace_of_binds
from builders import NEVER, S, events
from porttrace.analysis.assemble import assemble
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.model import Finding, Looked, Trace, no_attempts
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


def without_end() -> Trace:
    # As where a map of the kernel was full: only the call itself is known.
    story = events()
    story.connect(at=38 * S).syn_sent(untracked=True).in_progress()
    rows, still = step(story.array(), Open(), NEVER)
    assert not rows["end_ns"].any() and not len(still.events)
    return assemble(Trace(no_attempts(), S, 60 * S, events=2), [rows], still)


def test_an_attempt_without_an_end_is_told_at_its_last_mark(
    capsys: pytest.CaptureFixture[str],
) -> None:
    TextPrinter(S).attempts(without_end().rows)
    words = capsys.readouterr().out.split()
    assert words[0] == "37.000"
    assert words[-2:] == ["unknown", "9us"]  # held in connect; how long it took is not known


def test_an_attempt_without_an_end_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    whole, printer = without_end(), JsonPrinter()
    printer.attempts(whole.rows)
    printer.end(whole, [])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["type"] for each in told] == ["attempt", "report"]
    assert told[0]["outcome"] == "unknown"


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


def bound() -> Trace:
    """Return a trace with a bind that failed, one of a client, and a server's listen."""
    bad = call(at=2 * S, error=98, comm=b"we\x1bb")
    client, server = call(to="0.0.0.0:0", at=3 * S, got=40_000), call("listen", at=4 * S)
    looked = Looked(((2 * S, 7),), (listener(comm="\x1b[2J"),), {}, 0.001)
    return trace_of_binds(bad, client, server, looked=[looked])


def test_binds_that_matter_are_told_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    whole = bound()
    TextPrinter(S).binds(whole.binds, whole.looked)
    first, second, *_, third = capsys.readouterr().out.splitlines()
    assert first.split(maxsplit=3)[:3] == ["1.000", "7", "we\\x1bb"]
    assert first.endswith("bind tcp 0.0.0.0:80: EADDRINUSE: address already in use")
    assert "held by: \\x1b[2J (pid 12, user root) listens on 0.0.0.0:80" in second
    assert third.endswith("listen tcp 0.0.0.0:80: ok")


def test_who_shares_a_port_is_not_told_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    good = call("listen", at=2 * S)
    both = (listener(pid=7, comm="web"), listener(pid=13, comm="other"))
    whole = trace_of_binds(good, looked=[Looked(((2 * S, 7),), both, {}, 0.001)])
    TextPrinter(S).binds(whole.binds, whole.looked)
    told = capsys.readouterr().out
    assert "other (pid 13" in told and "pid 7" not in told


def test_every_bind_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    whole = bound()
    JsonPrinter(whole.processes).binds(whole.binds, whole.looked)
    bad, client, server = map(json.loads, capsys.readouterr().out.splitlines())
    assert {bad["type"], client["type"], server["type"]} == {"bind"}
    assert (bad["error"], bad["port_got"], bad["holders"][0]["pid"]) == ("EADDRINUSE", None, 12)
    assert (client["port_asked"], client["port_got"], client["error"]) == (0, 40_000, None)
    assert (server["call"], server["netns"], server["options"]["reuseaddr"]) == ("listen", 1, False)
