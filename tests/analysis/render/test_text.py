"""Terminal lines keep their width and let no name through raw."""

from dataclasses import replace

import numpy as np
import pytest

from builders import MS, NEVER, S, Story, events
from porttrace.analysis.assemble import assemble, held_rows
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.model import (
    Answer,
    Attempts,
    Finding,
    Host,
    Hypothesis,
    Loss,
    Outcome,
    Party,
    Process,
    Suspect,
    Trace,
    no_attempts,
)
from porttrace.analysis.render import closing, text
from porttrace.analysis.render.escape import columns
from porttrace.tracer.facts import Held

HOSTILE = "\x1b[2J\x9b\n\u202e\udcff"
WIDEST_V4 = "255.255.255.255:65535"
WIDEST_V6 = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535"


def rows_of(story: Story) -> Attempts:
    return step(story.array(), Open(), NEVER)[0]


def trace_of(story: Story, **more: object) -> Trace:
    rows, still = step(story.array(), Open(), NEVER)
    about = Trace(no_attempts(), 0, 200 * S, events=len(story.array()))
    return replace(assemble(about, [rows], still), **more)  # type: ignore[arg-type]


def holds(row: np.void, now_ns: int = 0) -> text.Hold:
    """Return what a printer says of one row."""
    (told,) = text.holds_of(np.array([row]), now_ns)
    return told


def raw_characters(shown: str) -> set[str]:
    """Characters that a terminal would act upon; line ends are ours."""
    return {c for c in shown if (not c.isprintable() and c != "\n") or "\ud800" <= c <= "\udfff"}


def lines(shown: str) -> list[int]:
    return [columns(line) for line in shown.splitlines()]


FINDING = Finding(
    rule="serialized-connects",
    severity="critical",
    confidence=0.93,
    subject={"pid": 7},
    summary="attempts of web (pid 7) wait for one another",
    scope="process",
    slots=1,
    place="gate",
    mechanism="queue",
    hypotheses=(Hypothesis("sequential code", "refuted", "two threads had called"),),
    victims=tuple(
        Party(i, 7, 70 + i, "login", "192.0.2.2:389", "established", 5.25, S) for i in range(10)
    ),
    blockers=(Party(99, 7, 8, "agent", "192.0.2.66:9100", "timed_out", 21.0, S),),
    suspects=(Suspect("seccomp-notify", "gate", "guard (pid 5) answers", "/proc/5/fd", 5),),
    advice=("ask guard's vendor",),
)


# -- live lines


def test_a_line_of_an_attempt() -> None:
    story = events()
    story.connect(pid=4321, comm=b"curl", at=S, held_ns=250 * MS).syn_sent().established(14 * MS)
    (row,) = rows_of(story)
    assert text.live_header() == (
        "    TIME     PID THREAD        DESTINATION     OUTCOME       HELD WHERE     TOOK"
    )
    assert text.attempt_line(row, "1.014", holds(row)) == (
        "   1.014    4321 curl          192.0.2.2:80    established  250ms gate      14ms"
    )


def test_a_line_tells_holds_behind_the_syn() -> None:
    # GIVEN a SYN held on its way out for 3 s, and an answer held on its way in for 2 s
    story, long = events(), "192.168.111.222:65535"
    story.connect(tid=1, at=S).syn_sent(0).established(3 * S + 2 * MS)
    story.connect(tid=2, at=S, to=long, comm=b"fifteen-letters").syn_sent(0).established(2 * S)
    rows = rows_of(story)[np.argsort(rows_of(story)["tid"])]
    rows["watched"], rows["answer"] = True, Answer.syn_ack
    rows["wire_ns"] = 4 * S, S + MS
    rows["answer_ns"] = 4 * S + MS, S + 2 * MS
    lines = [text.attempt_line(row, "9.0", holds(row)) for row in rows]
    assert lines == [
        "     9.0       7 client        192.0.2.2:80    established  3.00s egress   3.00s",
        "     9.0       7 fiftee~ 192.168.111.222:65535 established  2.00s ingress  2.00s",
    ]


@pytest.mark.parametrize(
    ("to", "most"), [(WIDEST_V4, 80), ("[2001:db8::1]:80", 80), (WIDEST_V6, 106)]
)
def test_the_widest_lines(to: str, most: int) -> None:
    story = events()
    how = {"pid": 4_194_304, "comm": b"fifteen-letters", "to": to}
    story.connect(tid=1, at=10_000 * S, held_ns=9_000 * S, **how).syn_sent().timed_out(  # type: ignore[arg-type]
        999_999 * MS
    )
    story.connect(tid=2, at=S, **how).syn_sent().failed(101)  # type: ignore[arg-type]
    for row in rows_of(story):
        assert columns(text.attempt_line(row, "23:59:59", holds(row))) <= most
        now_ns = int(row["syn_ns"]) + 600 * S
        assert columns(text.pending_line(row, now_ns, "23:59:59", holds(row, now_ns))) <= most
    assert columns(text.live_header()) <= 80


def test_a_line_of_a_pending_attempt() -> None:
    story = events()
    story.connect(comm=b"agent", at=S).syn_sent(after_ns=0).in_progress()
    (row,) = trace_of(story).rows
    assert text.pending_line(row, 4 * S, "4.000", holds(row, 4 * S)).split() == (
        ["4.000", "7", "agent", "192.0.2.2:80", "in", "SYN_SENT", "3.00s+"]
    )


@pytest.mark.parametrize("place", ["gate", "connect"])
def test_a_line_of_a_held_attempt(place: str) -> None:
    held = Held(7, 8, place, S, HOSTILE, bytes(16), 0, ())
    (row,) = held_rows([held])
    shown = text.pending_line(row, 13 * S, "13.0", holds(row, 13 * S))
    assert f" at {place} " in shown
    assert shown.endswith(f" 12.0s+ {place}")
    assert not raw_characters(shown)


def test_a_hostile_thread_name_is_written_out() -> None:
    story = events()
    story.connect(comm=b"\x1b[2J\n\xff\xe2\x80\xae").syn_sent().established()
    (row,) = rows_of(story)
    hold = holds(row, S)
    for shown in (text.attempt_line(row, "1", hold), text.pending_line(row, S, "1", hold)):
        assert shown.count("\n") == 0
        assert not raw_characters(shown)
        assert r"\x1b[2J" in shown


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, ""),
        (-5, ""),
        (float("nan"), ""),
        (80_000, "80us"),
        (999_499, "999us"),
        (999_999, "1.0ms"),
        (1_400_000, "1.4ms"),
        (9_960_000, "10ms"),
        (14_200_000, "14ms"),
        (999_999_999, "1.00s"),
        (5_204_000_000, "5.20s"),
        (21_040_000_000, "21.0s"),
        (127_000_000_000, "127s"),
        (86_399 * S, "86399s"),
    ],
)
def test_lengths_of_time(ns: float, shown: str) -> None:
    assert text.short(ns) == shown


def test_lengths_of_time_are_short() -> None:
    assert max(len(text.short(ns)) for ns in np.geomspace(1, 9_999e9, 5_000)) == 5


# -- the end


def busy() -> Story:
    story = events()
    for tid in range(1, 30):
        attempt = story.connect(pid=100 + tid % 25, tid=tid, at=tid * S, comm=b"web").syn_sent()
        attempt.established(tid * MS) if tid % 3 else attempt.timed_out()
    return story


def test_the_process_table() -> None:
    shown = list(text.process_lines(trace_of(busy())))
    assert shown[0] == (
        "    PID PROCESS         TOTAL    OK FAILED FLIGHT DEMAND WORST   P50   P95   P99"
    )
    assert shown[1].split()[:5] == ["101", "web", "2", "2", "0"]
    assert "        ... and 5 more processes" in shown
    assert "Outcomes: 20 established, 9 timed_out" in shown
    assert max(map(columns, shown)) <= 80


def test_failed_are_those_without_a_connection_that_is_known_of() -> None:
    story = events()
    story.connect(pid=7, tid=1, at=S).syn_sent().established()
    story.connect(pid=7, tid=2, at=2 * S).syn_sent().refused()
    story.connect(pid=7, tid=3, at=3 * S).syn_sent().cancelled()
    story.connect(pid=7, tid=4, at=4 * S).syn_sent().timed_out()
    story.connect(pid=7, tid=5, at=5 * S).syn_sent().in_progress()
    trace = trace_of(story)
    rows = np.array(trace.attempts)
    rows["outcome"][rows["outcome"] == Outcome.timed_out] = Outcome.unknown
    shown = list(text.process_lines(replace(trace, attempts=rows)))
    assert shown[1].split()[2:5] == ["5", "1", "2"]


def test_counts_stay_in_their_columns() -> None:
    trace = trace_of(busy())
    many = np.repeat(trace.attempts[:1], 123_456)
    many["comm"], many["pid"] = "日本語日本".encode(), 4_194_304
    shown = list(text.process_lines(replace(trace, attempts=many)))
    assert "123k" in shown[1]
    assert max(map(columns, shown)) <= 80


def test_hostile_process_names_stay_in_their_cell() -> None:
    story = events()
    story.connect(pid=7, comm=b"\x1b[2J").syn_sent().established()
    story.connect(pid=8, comm=b"\xff\n\xc2\x9b").syn_sent().established()
    trace = trace_of(story, processes={7: Process(7, comm=HOSTILE)})
    shown = "\n".join(text.process_lines(trace))
    assert len(shown.splitlines()) == len(list(text.process_lines(trace)))
    assert not raw_characters(shown)


def test_an_ending_without_attempts() -> None:
    nothing = Trace(no_attempts(), 0, 2 * S)
    assert "No connection attempt was seen" in text.ending(nothing, ())
    shown = text.ending(replace(nothing, filter=f"comm {HOSTILE}"), ())
    assert "matches the filter (comm \\x1b[2J" in shown
    assert not raw_characters(shown)


def test_a_finding_without_any_attempt_ends_in_short() -> None:
    conflict = Finding("bind-conflict", "critical", 0.95, {"pid": 7}, "web could not bind")
    shown = text.ending(Trace(no_attempts(), 0, 2 * S), [conflict])
    assert shown.endswith("IN SHORT\n  bind-conflict (firm):\n    web could not bind")


def test_an_ending_in_peace() -> None:
    trace = trace_of(busy(), host=Host(mode="fentry", wire=True))
    shown = text.ending(trace, ())
    assert "No throttle found in 29 attempts; 9 attempts timed out: 192.0.2.2:80." in shown
    assert "none lost; fentry mode, wire probe on" in " ".join(shown.split())


def test_a_report_begins_with_what_it_is_of() -> None:
    host = Host(name="web1", kernel="6.1.0-18-amd64", mode="kprobe")
    trace = trace_of(busy(), host=host, filter="pid 7", wall_offset_ns=1_700_000_000 * S)
    assert text.ending(trace, ()).splitlines()[:2] == [
        "Host: web1, Linux 6.1.0-18-amd64; kprobe mode",
        "Traced: from 2023-11-14 22:13:20 UTC for 200.0 s; filter: pid 7",
    ]
    long = replace(trace, filter=f"comm {HOSTILE * 20}", host=replace(host, name=HOSTILE * 20))
    assert not raw_characters("\n".join(text.heading(long)))
    assert max(lines("\n".join(text.heading(long)))) == 80
    bare = text.heading(replace(trace, wall_offset_ns=0, filter="", host=Host()))
    assert bare == [
        "Host: a host without a name; tracepoint mode",
        "Traced: from a time that is not known for 200.0 s; no filter",
    ]


def test_an_ending_with_losses_says_so() -> None:
    trace = trace_of(busy(), losses=(Loss(0, 300 * S, 0, 12),), notes=(f"a note {HOSTILE}",))
    shown = text.ending(trace, [FINDING])
    assert "12 LOST" in shown
    assert "  - a note \\x1b" in shown
    assert "Nothing wrong" not in shown
    assert not raw_characters(shown)


# -- findings


def test_a_finding_in_full() -> None:
    shown = text.finding_text(FINDING)
    for part in (
        "[CRITICAL] serialized-connects: firm (confidence 0.93)",
        "  place gate, scope process, slots 1, mechanism queue",
        "  Waited:\n    - 5.250 s: 192.0.2.2:389, thread login (pid 7, tid 70), established",
        "    ... and 2 more",
        "  In front of them, and for how long:\n    - 21.000 s: 192.0.2.66:9100",
        "    - guard (pid 5) answers [/proc/5/fd]",
        "    - sequential code: refuted. two threads had called",
        "  What to do:\n    - ask guard's vendor",
    ):
        assert part in shown
    assert max(lines(shown)) <= 80


def test_suspects_at_another_place_say_so_and_many_are_counted() -> None:
    facts = tuple(Suspect("lsm", "connect", f"fact {n}", "/x") for n in range(12))
    found = replace(
        FINDING,
        suspects=(*FINDING.suspects, *facts),
        evidence={**FINDING.evidence, "not_looked": ["kernel modules: no file", "BPF: refused"]},
    )
    shown = text.finding_text(found)
    assert "- guard (pid 5) answers [/proc/5/fd]" in shown
    assert "- fact 0 (at another place: connect) [/x]" in shown
    assert "    ... and 5 more" in shown
    assert "  Not looked at on this host:\n    - kernel modules: no file\n" in shown
    assert "    - BPF: refused\n" in shown


def test_only_what_can_hold_at_the_place_could_have_done_it() -> None:
    trace = trace_of(busy())
    for suspect, said in (
        (FINDING.suspects[0], True),
        (Suspect("lsm", "gate", "a profile confines it", "/x"), False),
        (Suspect("module", "connect", "a module is loaded", "/x"), False),
        (Suspect("bpf-probe", "gate", "a program is on it", "/x"), False),
    ):
        shown = closing.closing(trace, [replace(FINDING, suspects=(suspect,))])
        assert ("It could be done by" in shown) is said


def test_a_finding_with_nothing_but_a_verdict() -> None:
    bare = Finding("connect-storm", "info", 0.6, {}, "many connects")
    assert (
        text.finding_text(bare) == "[INFO] connect-storm: likely (confidence 0.60)\n  many connects"
    )
    assert closing.level(replace(bare, confidence=0.8)) == "firm"


def test_no_name_in_a_finding_comes_out_raw() -> None:
    party = replace(FINDING.victims[0], comm=HOSTILE, destination=HOSTILE)
    hostile = replace(
        FINDING,
        summary=f"web {HOSTILE} waits",
        victims=(party,),
        blockers=(party,),
        suspects=(Suspect("preload", "user", f"{HOSTILE}.so", f"/proc/{HOSTILE}"),),
        hypotheses=(Hypothesis(HOSTILE, "open", HOSTILE),),
        advice=(HOSTILE,),
    )
    for shown in (text.finding_text(hostile), text.finding_headline(hostile)):
        assert not raw_characters(shown)
        assert "\\x1b[2J\\x9b" in shown
        assert "\\udcff" not in shown
        assert "\\xff" in shown


def test_long_texts_are_wrapped() -> None:
    long = replace(FINDING, summary="word " * 200, advice=("advice " * 100,))
    assert max(lines(text.finding_text(long))) <= 80
