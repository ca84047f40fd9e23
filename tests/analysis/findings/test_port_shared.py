"""Workers of one program are told from a takeover."""

from dataclasses import replace
from typing import Any

import pytest

from binding import call, listener, trace_of_binds
from builders import S
from porttrace.analysis.findings.port_shared import port_shared
from porttrace.analysis.model import BindOption, Finding, Looked, Trace
from porttrace.tracer.event import Events

PORT, ADDR = BindOption.reuseport, BindOption.reuseaddr


def listening(pid: int, at: int = S, **how: object) -> Events:
    values = {"on": PORT, "to": "0.0.0.0:80", **how}
    return call("listen", pid=pid, at=at, **values)  # type: ignore[arg-type]


def only(trace: Trace) -> Finding:
    (finding,) = port_shared(trace, ())
    return finding


def trace(*calls: Events, **about: Any) -> Trace:
    return trace_of_binds(*calls, **about)


def test_workers() -> None:
    finding = only(trace(listening(7), listening(8), listening(8, 2 * S, fd=4)))
    assert (finding.severity, finding.evidence["kind"]) == ("info", "workers")
    assert "3 sockets of one program (web, user 33)" in finding.summary
    assert not finding.advice


@pytest.mark.parametrize("other", [{"comm": b"shell"}, {"uid": 0}])
def test_another_program_or_user(other: dict[str, object]) -> None:
    finding = only(trace(listening(7), listening(9, 2 * S, **other)))
    assert (finding.severity, finding.evidence["kind"]) == ("warning", "takeover")
    assert "kill 9" in finding.advice[0]


def test_one_that_was_there_before_the_trace() -> None:
    looked = Looked(((S, 7),), (listener(), listener(pid=7)), {}, 0.001)
    finding = only(trace(listening(7), looked=[looked]))
    assert finding.evidence["pids"] == [7, 12] and finding.severity == "warning"


@pytest.mark.parametrize(
    "calls",
    [
        (listening(7),),
        (listening(7), listening(8, to="0.0.0.0:81")),
        (listening(7, to="127.0.0.1:80"), listening(8, to="192.0.2.1:80")),
        (listening(7, on=ADDR), listening(8, on=ADDR)),  # TCP: one of them cannot listen
        (listening(7), listening(8, error=98)),
    ],
)
def test_nothing_is_shared(calls: tuple[Events, ...]) -> None:
    assert port_shared(trace(*calls), ()) == []


def test_who_ended_before_shares_nothing() -> None:
    told = trace(listening(7), listening(8, 3 * S))
    assert port_shared(replace(told, exits={7: 2 * S}), ()) == []
    assert port_shared(replace(told, exits={7: 4 * S}), ()) != []


def test_udp_is_shared_by_reuseaddr() -> None:
    calls = [
        call("bind", "0.0.0.0:5140", protocol="udp", on=ADDR, pid=pid, uid=pid, at=pid * S)
        for pid in (7, 8)
    ]
    finding = only(trace(*calls))
    assert finding.severity == "warning" and "bound last gets everything" in finding.summary


def test_multicast_is_heard_by_all() -> None:
    calls = [
        call("bind", "0.0.0.0:5353", protocol="udp", on=ADDR, pid=pid, uid=pid, at=pid * S)
        for pid in (7, 8)
    ]
    finding = only(trace(*calls))
    assert (finding.severity, finding.evidence["kind"]) == ("info", "multicast")


def test_other_namespaces_do_not_meet() -> None:
    assert port_shared(trace(listening(7), listening(8, netns=2)), ()) == []
    # the control: in one they do
    assert only(trace(listening(7, netns=2), listening(8, netns=2))).evidence["netns"] == 2


def test_one_process_in_two_namespaces_shares_nothing_with_itself() -> None:
    told = trace(listening(7), listening(7, fd=4, netns=2))
    known = {7: replace(told.processes[7], netns=1)}  # what /proc said of it once
    assert port_shared(replace(told, processes=known), ()) == []


def test_each_namespace_has_its_own_finding() -> None:
    told = trace(*(listening(pid, netns=pid // 10) for pid in (10, 11, 20, 21)))
    found = {each.evidence["netns"]: each.evidence["pids"] for each in port_shared(told, ())}
    assert found == {1: [10, 11], 2: [20, 21]}


def test_nothing_is_said_of_a_namespace_that_nobody_knows() -> None:
    told = trace(listening(7, netns=0), listening(8, netns=0))
    known = {pid: replace(each, netns=1) for pid, each in told.processes.items()}
    assert port_shared(replace(told, processes=known), ()) == []
    # without BTF the look says it, which was made then
    looks = [Looked(((S, pid),), (), {"netns": 5}, 0.001) for pid in (7, 8)]
    told = trace(listening(7, netns=0), listening(8, netns=0), looked=looks)
    assert only(told).evidence["netns"] == 5


def test_udp_with_a_narrower_address_wins_whoever_came_last() -> None:
    calls = [
        call("bind", f"{host}:5140", protocol="udp", on=ADDR, pid=pid, uid=pid, at=pid * S)
        for pid, host in ((7, "127.0.0.1"), (8, "0.0.0.0"))
    ]
    finding = only(trace(*calls))
    assert "bound last gets everything" not in finding.summary
    assert "goes to the socket that is bound to it" in finding.summary
    assert "user of its own" not in " ".join(finding.advice)


def test_a_user_of_its_own_helps_where_there_is_one_user() -> None:
    one = only(trace(listening(7), listening(9, 2 * S, comm=b"shell")))
    two = only(trace(listening(7), listening(9, 2 * S, uid=0)))
    assert "user of its own" in one.advice[-1] and "user of its own" not in two.advice[-1]


def test_workers_that_changed_their_user_after_the_fork() -> None:
    told = trace(listening(7), listening(8))
    known = {pid: replace(each, uid=0, user="root") for pid, each in told.processes.items()}
    summary = only(replace(told, processes=known)).summary
    assert "user 33" in summary and "root" not in summary
