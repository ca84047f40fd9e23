"""Where nothing was found, the sentence says no more than that."""

import pytest

from builders import MS, S, Story, events
from porttrace.analysis.model import Trace, no_attempts
from porttrace.analysis.render.peace import nothing_found
from traces import trace_of


def told(story: Story) -> str:
    return nothing_found(trace_of(story.array()))


def test_all_is_well() -> None:
    story = events()
    story.connect(at=S).syn_sent().established()
    assert told(story) == (
        "Nothing wrong found in 1 attempt: no connect was held up by another, and none waited for"
        " long."
    )


def test_a_refused_one_is_named() -> None:
    story = events()
    story.connect(at=S).syn_sent().established()
    story.connect(at=2 * S, to="[2001:db8::9]:81").syn_sent().refused()
    assert told(story) == (
        "No throttle found in 2 attempts; 1 attempt was refused: [2001:db8::9]:81. No connect was"
        " held up by another, and none waited for long."
    )


def test_the_most_frequent_first_and_few_by_name() -> None:
    story = events()
    for number in range(5):
        story.connect(at=(number + 1) * S, to=f"192.0.2.{number}:9").syn_sent().refused()
    story.connect(at=7 * S, to="192.0.2.4:9").syn_sent().refused()
    story.connect(at=8 * S, to="192.0.2.66:1").syn_sent().timed_out(after_ns=3 * S)
    assert told(story) == (
        "No throttle found in 7 attempts; 6 attempts were refused: 192.0.2.4:9, 192.0.2.0:9,"
        " 192.0.2.1:9, 2 more; 1 attempt timed out: 192.0.2.66:1. No connect was held up by"
        " another; the longest took 3.0 s."
    )


@pytest.mark.parametrize("wanted", ["", "pid 4"])
def test_nothing_was_seen(wanted: str) -> None:
    filtered = " that matches the filter (pid 4)" if wanted else ""
    said = nothing_found(Trace(no_attempts(), 0, 5 * MS, filter=wanted))
    assert said == f"No connection attempt{filtered} was seen. Nothing can be said."
