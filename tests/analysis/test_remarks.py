"""Long waits that no rule explains are told, and told as what they are."""

import dataclasses

from builders import MS, S, Story, events
from porttrace.analysis.assemble import assemble
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.findings import diagnose
from porttrace.analysis.model import Finding, Trace, no_attempts
from porttrace.analysis.remarks import remarks
from porttrace.analysis.render.closing import closing


def trace_of(story: Story, end_ns: int = 60 * S, filtered: str = "") -> Trace:
    rows, rest = step(story.array(), Open(), 1 << 62)
    about = Trace(no_attempts(), 0, end_ns, filter=filtered, stacks={5: ("schedule", "seccomp_x")})
    return assemble(about, [rows], rest)


def held(count: int = 3) -> Story:
    story = events()
    for index in range(count):
        story.connect(tid=8 + index, at=(5 + index) * S, held_ns=4 * S).syn_sent().established()
    return story


def test_quick_attempts_are_not_remarkable() -> None:
    story = events()
    story.connect().syn_sent().established()
    trace = trace_of(story)
    assert remarks(trace, ()) == ()
    assert "Nothing wrong found in 1 attempt" in closing(trace, ())
    assert remarks(trace_of(events()), ()) == ()


def test_holds_without_a_verdict_are_never_nothing() -> None:
    trace = trace_of(held(), filtered="remote port 45871")
    (remark,) = remarks(trace, ())
    assert "3 connects were held before the kernel started them (gate), up to 4.0 s" in remark
    assert "in seccomp_x" in remark
    assert "The filter (remote port 45871) may hide it" in remark
    text = closing(trace, ())
    assert "Nothing wrong" not in text and "Not explained:" in text


def test_holds_of_a_throttled_process_are_explained() -> None:
    finding = Finding("serialized-connects", "critical", 0.9, {"pids": [7]}, "it is throttled")
    assert remarks(trace_of(held()), [finding]) == ()
    other = dataclasses.replace(finding, subject={"pids": [9]})
    assert len(remarks(trace_of(held()), [other])) == 1


def test_slow_answers_are_told_with_their_retransmissions() -> None:
    story = events()
    story.connect().syn_sent().established(after_ns=20 * MS)
    story.connect(tid=9).syn_sent().retransmit().retransmit(2 * S).established(after_ns=7 * S)
    (remark,) = remarks(trace_of(story), ())
    assert "1 of 2 established connects took over 1 s to be answered, up to 10.0 s" in remark
    assert "sent again 2 times" in remark and "ss -ltn" in remark


def test_attempts_without_an_answer_at_the_end_are_told_once() -> None:
    story = events()
    story.connect(to="192.0.2.66:9100", at=S).syn_sent()
    trace = trace_of(story, end_ns=2 * S)
    (remark,) = remarks(trace, ())
    assert "1 attempt had no answer yet when the trace ended (192.0.2.66:9100)" in remark
    dead = Finding("dead-destination", "warning", 0.6, {"destination": "192.0.2.66:9100"}, "dead")
    assert remarks(trace, [dead]) == ()


def test_the_closing_carries_what_to_do() -> None:
    trace = trace_of(held())
    finding = Finding(
        "serialized-connects",
        "critical",
        0.9,
        {"pids": [7]},
        "One at a time.",
        advice=("Stop it.",),
    )
    text = closing(trace, [finding])
    assert text.startswith("IN SHORT\n  serialized-connects (firm):\n    One at a time.")
    assert "    Do now: Stop it." in text
    assert diagnose(trace) == ()
