"""Traces for the HTML report: a queue, all outcomes, hostile names, and a great many attempts."""

import errno
from dataclasses import replace

import numpy as np

from binding import RANGE, call, in_use, listener, trace_of_binds
from builders import MS, NEVER, Attempt, S, Story, events, packed
from porttrace.analysis.assemble import assemble
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.concurrency import at_start
from porttrace.analysis.findings import diagnose
from porttrace.analysis.model import (
    ATTEMPT,
    Attempts,
    BindOption,
    Binds,
    Finding,
    Holder,
    Host,
    Hypothesis,
    Looked,
    Loss,
    Outcome,
    Party,
    Process,
    Suspect,
    Trace,
    no_attempts,
    start_ns,
)

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[2J\u202eevil\u2028&\udcff"
"""A name that would end the script, load an image, turn a line around and act on a terminal."""

Told = tuple[Trace, tuple[Finding, ...]]
_HOST = Host("web1", "6.1.0", sysctls={"tcp_syn_retries": 6})


def trace_of(story: Story, end_ns: int = 0) -> Trace:
    """Return the trace of a story that begins at 0."""
    array = story.array()
    rows, still = step(array, Open(), NEVER)
    last = int(array["time_ns"].max(initial=S))
    about = Trace(no_attempts(), 0, end_ns or last + 50 * MS, events=len(array), host=_HOST)
    return assemble(about, [rows], still)


def queue() -> Told:
    """Logins that are held at the gate while an agent tries a dead monitor, three times over."""
    story = events()
    for round_ in range(3):
        began = S + round_ * 6 * S
        agent = {"pid": 7, "tid": 8, "comm": b"agent", "to": "192.0.2.66:9100"}
        story.connect(at=began, **agent).syn_sent().cancelled(4 * S)  # type: ignore[arg-type]
        for page in range(3):
            asked = began + (page + 1) * 700 * MS
            let_go = began + 4 * S + (page + 1) * 2 * MS
            _page(story, 20 + 3 * round_ + page, asked, let_go)
    trace = trace_of(story)
    known = {7: Process(7, comm="website", user="www")}
    trace = replace(trace, processes=known, wall_offset_ns=1_700_000_000 * S)
    return trace, diagnose(trace)


def _page(story: Story, tid: int, asked: int, let_go: int) -> Attempt:
    how = {"pid": 7, "tid": tid, "comm": b"page-%d" % tid, "to": "192.0.2.2:389"}
    held = story.connect(at=let_go, held_ns=let_go - asked, **how)  # type: ignore[arg-type]
    return held.syn_sent().established(200_000)


def every_outcome() -> Told:
    """One attempt of each outcome, of two processes."""
    story = events()
    at = iter(range(S, 100 * S, 100 * MS))
    story.connect(at=next(at), pid=1).syn_sent().established()
    story.connect(at=next(at), pid=1).syn_sent().refused()
    story.connect(at=next(at), pid=1).syn_sent().timed_out(3 * S)
    story.connect(at=next(at), pid=1).syn_sent().failed(113, 2 * S)
    story.connect(at=next(at), pid=2, to="[2001:db8::7]:443").fails_early(13)
    story.connect(at=next(at), pid=2).fails_early(99)
    story.connect(at=next(at), pid=2).syn_sent().failed(104)
    story.connect(at=next(at), pid=2).syn_sent().cancelled(S)
    story.connect(at=next(at), pid=2).syn_sent().failed(5)
    story.connect(at=next(at), pid=2).syn_sent().in_progress()
    trace = trace_of(story, 6 * S)
    rows = trace.rows.copy()
    rows["outcome"][-2] = Outcome.unknown
    losses = (Loss(2 * S, 2 * S + 300 * MS, 0, 12),)
    return replace(trace, attempts=rows, losses=losses, notes=("A note.",)), ()


def nothing() -> Told:
    """No attempt at all."""
    return Trace(no_attempts(), 0, 5 * S, filter="pid 4", host=_HOST), ()


def one() -> Told:
    """A single attempt that was answered at once."""
    story = events()
    story.connect(at=S).syn_sent().established()
    return trace_of(story), ()


def refused() -> Told:
    """One attempt that was answered, and one that was refused."""
    story = events()
    story.connect(at=S).syn_sent().established()
    story.connect(at=2 * S, to="192.0.2.2:81").syn_sent().refused()
    return trace_of(story), ()


def waiting() -> Told:
    """Attempts that were not over when the trace ended."""
    story = events()
    for tid in range(5):
        story.connect(at=S + tid * 100 * MS, tid=70 + tid).syn_sent().in_progress()
    return trace_of(story, 9 * S), ()


def ports() -> Told:
    """A server whose port a client has, one with a low port, a restarted one; some that worked."""
    client = Holder("client", address="192.0.2.1", port=43611, remote="192.0.2.9:5432", pid=77,
                    comm="java", uid=1000, user="app", age_s=90.0)  # fmt: skip
    addr, in_use_ = BindOption.reuseaddr, errno.EADDRINUSE
    calls = [
        call(to="0.0.0.0:43611", at=S, error=in_use_, on=addr, comm=b"licenced", uid=0),
        call(to="[::]:443", at=2 * S, error=errno.EACCES, pid=8, uid=33, comm=b"web"),
        call(to="0.0.0.0:80", at=3 * S, error=in_use_, pid=9, comm=b"old-web"),
        call(to="192.0.2.77:53", at=4 * S, error=errno.EADDRNOTAVAIL, protocol="udp", pid=10),
        call("listen", "127.0.0.1:8080", at=5 * S, pid=11, comm=b"api", backlog=128, on=addr),
        call(to="127.0.0.1:0", got=40123, at=6 * S, pid=11, comm=b"api"),
    ]
    looks = [
        Looked(((S, 7),), (client,), RANGE, 0.002),
        Looked(((3 * S, 9),), (), RANGE, 0.002),
    ]
    trace = replace(trace_of_binds(*calls, looked=looks), host=_HOST)
    return trace, diagnose(trace)


def many_binds(number: int, worked: int = 30) -> Told:
    """A server that tries again and again, and some clients."""
    one = call(error=errno.EADDRINUSE)
    tries = np.repeat(one, number)
    tries["time_ns"] = S + np.arange(number) * MS
    clients = [call(to="0.0.0.0:0", got=40000 + n, at=S + n * MS, pid=50) for n in range(worked)]
    trace = trace_of_binds(tries, *clients)
    return trace, diagnose(trace)


def hostile_binds() -> Binds:
    """Return a bind of a process with a hostile name."""
    return in_use(comm=b"</script>\x1b\xff&", at=S).binds


def hostile() -> Told:
    """Every name that someone else could have chosen is hostile."""
    story = events()
    story.connect(at=S, comm=b"</script>\x1b\xff&").syn_sent().established()
    trace = trace_of(story)
    party = Party(1, 7, 7, HOSTILE, HOSTILE, "established", 1.0, S)
    finding = Finding(
        rule="serialized-connects",
        severity="critical",
        confidence=0.9,
        subject={"pid": 7, HOSTILE: HOSTILE},
        summary=HOSTILE,
        place="gate",
        evidence={"held": 3, "settle": HOSTILE},
        hypotheses=(Hypothesis(HOSTILE, "refuted", HOSTILE),),
        victims=(party,),
        blockers=(party,),
        suspects=(Suspect("ptrace", "gate", HOSTILE, HOSTILE),),
        advice=(HOSTILE,),
    )
    process = Process(7, comm=HOSTILE, exe=HOSTILE, cmdline=HOSTILE, user=HOSTILE,
                      container=HOSTILE, container_name=HOSTILE)  # fmt: skip
    return replace(
        trace,
        binds=hostile_binds(),
        looked={(S, 7): Looked(((S, 7),), (listener(comm=HOSTILE, user=HOSTILE),), {}, 0.1)},
        processes={7: process},
        host=Host(HOSTILE, HOSTILE),
        filter=HOSTILE,
        notes=(HOSTILE,),
        stacks={-1: (HOSTILE,)},
    ), (finding,)


def crowd(number: int, processes: int = 6) -> Trace:
    """Return `number` attempts of a few processes, some held, with all kinds of ends."""
    rng = np.random.default_rng(1)
    rows: Attempts = np.zeros(number, ATTEMPT)
    begin = S + np.sort(rng.integers(0, number * 200_000, number))
    rows["attempt_id"] = np.arange(1, number + 1)
    rows["pid"] = 100 + np.minimum(rng.geometric(0.5, number) - 1, processes - 1)
    rows["tid"] = rows["pid"] * 100 + rng.integers(0, 16, number)
    rows["comm"], rows["family"] = b"worker", 2
    rows["daddr"], rows["dport"] = np.void(packed("192.0.2.2")), rng.choice([80, 443], number)
    rows["blocking"], rows["complete"] = 1, True
    rows["gate_stack"] = rows["connect_stack"] = -1
    held = np.where(rng.random(number) < 0.2, rng.exponential(30 * MS, number), 0).astype(np.int64)
    rows["gate_ns"] = np.where(held > 0, begin, 0)
    rows["call_ns"] = begin + held
    rows["syn_ns"] = rows["call_ns"] + 9_000
    rows["end_ns"] = rows["syn_ns"] + (10 ** rng.normal(7, 0.8, number)).astype(np.int64)
    rows["return_ns"] = rows["end_ns"] + 20_000
    rows["outcome"] = rng.choice([1, 1, 1, 1, 1, 1, 2, 3, 8, 4], number)
    return Trace(at_start(rows), S, int(rows["end_ns"].max()), events=3 * number, host=_HOST)


def throttled_crowd(number: int) -> Told:
    """Return `crowd` with a finding that names 200 attempts of its busiest process."""
    trace = crowd(number)
    mine = np.flatnonzero((trace.attempts["pid"] == 100) & (trace.attempts["gate_ns"] > 0))
    middle = len(mine) // 2
    finding = Finding(
        rule="serialized-connects",
        severity="critical",
        confidence=0.9,
        subject={"pid": 100, "pids": [100]},
        summary="Process worker (pid 100) can only have 1 TCP connect attempt open at a time.",
        scope="process",
        slots=1,
        place="gate",
        mechanism="queue",
        victims=tuple(_party(trace, row) for row in mine[middle : middle + 100]),
        blockers=tuple(_party(trace, row) for row in mine[:100]),
    )
    return trace, (finding,)


def _party(trace: Trace, row: int) -> Party:
    attempt = trace.attempts[row]
    held_s = (int(attempt["call_ns"]) - int(attempt["gate_ns"])) / 1e9
    began = int(start_ns(trace.attempts[row : row + 1])[0])
    number, pid, tid = (int(attempt[name]) for name in ("attempt_id", "pid", "tid"))
    return Party(number, pid, tid, "worker", "192.0.2.2:80", "established", held_s, began)
