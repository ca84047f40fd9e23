"""Of more attempts than anybody reads, the telling ones get a line, and the others are counted."""

import numpy as np
import pytest

from porttrace.analysis.model import ATTEMPT, Attempts, Outcome, Trace, no_attempts
from porttrace.cli.lines import Lines
from porttrace.cli.printer import TextPrinter

S = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def rows(count: int, outcome: Outcome = Outcome.established, first: int = 1) -> Attempts:
    made = np.zeros(count, ATTEMPT)
    made["attempt_id"] = np.arange(first, first + count)
    made["outcome"], made["complete"] = outcome, True
    made["call_ns"] = made["syn_ns"] = S
    made["end_ns"] = S + 1000
    return made


def test_as_many_as_can_be_read_all_get_one() -> None:
    clock = Clock()
    lines = Lines(clock)
    for _ in range(20):
        clock.now_s += 0.05
        assert len(lines.chosen(rows(25))) == 25
    assert lines.left_out(last=True) == {}


def test_of_more_the_rest_is_counted_and_nothing_twice() -> None:
    clock = Clock()
    lines = Lines(clock)
    shown = told = 0
    for turn in range(100):  # 5 s, 20,000 a second
        clock.now_s += 0.05
        shown += len(lines.chosen(rows(1000, first=1 + 1000 * turn)))
        told += sum(lines.left_out().values())
    told += sum(lines.left_out(last=True).values())
    assert shown + told == 100_000
    assert 3_000 <= shown <= 1000 + 5 * 500 + 1
    assert lines.left_out(last=True) == {}


def test_what_failed_or_was_held_goes_first_and_the_order_stays() -> None:
    lines = Lines(Clock())
    many = rows(3000)
    many["outcome"][[5, 2999]] = Outcome.refused
    many["gate_ns"][1700] = S - 50_000_000  # held for 50 ms
    numbers = lines.chosen(many)["attempt_id"].tolist()
    assert len(numbers) == 1000 and numbers == sorted(numbers)
    assert {6, 1701, 3000} <= set(numbers)
    assert lines.left_out(last=True) == {"established": 2000}


def test_it_is_told_once_a_second() -> None:
    clock = Clock()
    lines = Lines(clock)
    lines.chosen(rows(1500))
    assert lines.left_out() == {}
    clock.now_s += 1
    assert lines.left_out() == {"established": 500}
    assert lines.left_out() == {}


def test_the_line_says_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    printer = TextPrinter(S)
    printer.attempts(rows(4000))
    assert len(capsys.readouterr().out.splitlines()) == 1000
    printer.end(Trace(no_attempts(), S, 9 * S), [])
    out = capsys.readouterr().out
    assert "... and 3,000 more, too many for a line each: 3,000 established" in out
