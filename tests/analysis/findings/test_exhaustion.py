"""Local ports that run out: foretold, explained, and told from what only looks like it."""

from dataclasses import replace

import pytest

from porttrace.analysis.findings.exhaustion import ephemeral_exhaustion
from porttrace.analysis.model import Finding, Outcome, Trace
from porttrace.tracer.facts import PortUse, Usage

from .shortages import ELSEWHERE, SETTINGS, TO, counted, of_namespace, use
from .written import Step

GOOD, LACKING = Outcome.established, Outcome.no_port


def connects(number: int, to: str = TO, outcome: Outcome = GOOD, at_ms: float = 500) -> list[Step]:
    return [(to, at_ms + 100 * i, at_ms + 100 * i + 1, outcome) for i in range(number)]


def only(trace: Trace) -> Finding:
    (finding,) = ephemeral_exhaustion(trace, ())
    return finding


FILLING = counted((1, use(8)), (2, use(14)), (3, use(17)), (4, use(18)))


def test_a_shortage_is_foretold() -> None:
    finding = only(of_namespace(*connects(20), samples=FILLING))
    assert (finding.rule, finding.severity) == ("ephemeral-exhaustion", "warning")
    assert finding.confidence >= 0.8
    assert finding.subject["destination"] == TO and finding.pids() == [7]
    assert "No connect has failed yet" in finding.summary
    assert "18 of the 20 local ports towards 192.0.2.2:80 (90 %)" in finding.summary
    # 4 ports in 2 s, since there were half of them: the last two in a second
    assert "gone in about 1.0 s" in finding.summary
    assert finding.evidence["foretold_s"] == pytest.approx(3.0)


def test_a_shortage_is_explained() -> None:
    steps = connects(20) + connects(3, outcome=LACKING, at_ms=3900)
    steps += connects(2, ELSEWHERE, at_ms=4500)
    trace = of_namespace(*steps, samples=[*FILLING, *counted((5, use(20)))])
    finding = only(trace)
    assert finding.severity == "critical" and finding.confidence >= 0.9
    assert "web (pid 7) got no local port for 3 connects from 192.0.2.1" in finding.summary
    assert "90 %" in finding.summary  # the count next to the first failure
    assert "Other destinations still worked: 192.0.2.3:80." in finding.summary
    assert finding.evidence["works"] == [ELSEWHERE] and finding.evidence["works_not"] == []
    assert finding.evidence["frees_in_s"] == 12.0
    verdicts = {each.name: each.verdict for each in finding.hypotheses}
    assert verdicts["source address is not there"] == "refuted"
    advice = "\n".join(finding.advice)
    assert '-t 7 -n sysctl -w net.ipv4.ip_local_port_range="10240 65535"' in advice
    assert "net.ipv4.tcp_tw_reuse=1 (now 2)" in advice and "IP_BIND_ADDRESS_NO_PORT" in advice
    assert advice.count("Price:") == len(finding.advice)
    assert "1 port instead of 18" in advice


def test_open_connections_are_told_from_time_wait() -> None:
    held = counted((3, use(18, 2)), (4, use(20, 0)))
    finding = only(of_namespace(*connects(2, outcome=LACKING, at_ms=4000), samples=held))
    assert "20 open connections" in finding.summary
    assert "None of them is in TIME_WAIT" in finding.summary
    assert "ss -tnp dst 192.0.2.2:80" in finding.advice[0]
    assert not any("tcp_tw_reuse" in line for line in finding.advice)


def test_what_the_server_does_not_close_is_told_from_open_connections() -> None:
    left = use(20, 0, fin_wait2=19, fin_wait2_ends_in_s=58.0)
    held = counted((3, replace(left, used=18)), (4, left), tcp_fin_timeout="60")
    finding = only(of_namespace(*connects(2, outcome=LACKING, at_ms=4000), samples=held))
    assert "19 in FIN_WAIT2 and 1 open connection." in finding.summary
    assert (
        "was closed here, and the server has not closed it: each goes after "
        "net.ipv4.tcp_fin_timeout (60 s), the first in 58.0 s, or 60 s after the server has closed "
        "it (TIME_WAIT)" in finding.summary
    )
    verdicts = {each.name: each.verdict for each in finding.hypotheses}
    assert verdicts["connections are never closed"] == "refuted"
    assert verdicts["the server does not close"] == "supported"
    assert finding.advice[0].startswith("Let the server 192.0.2.2:80 close its connections")
    assert "sysctl -w net.ipv4.tcp_fin_timeout=10 (now 60)" in finding.advice[1]
    assert (finding.evidence["fin_wait2"], finding.evidence["open"]) == (19, 1)


def test_what_does_not_grow_any_more_has_no_end_in_sight() -> None:
    stands = [*FILLING, *counted(*[(5 + i, use(18)) for i in range(6)])]
    finding = only(of_namespace(*connects(20), samples=stands))
    assert finding.summary.endswith("No connect has failed yet; it has not grown for 6.0 s.")
    assert finding.evidence["grows_per_s"] == 0
    # it grows again
    again = only(of_namespace(*connects(20), samples=[*stands, *counted((11, use(19)))]))
    assert "gone in about" in again.summary


def test_reserved_and_listening_ports_are_not_there() -> None:
    samples = counted((3, use(13)), (4, use(13)), ip_local_reserved_ports="40000-40003,40019")
    kept = [replace(each, usage=replace(each.usage or Usage(), listening=1)) for each in samples]
    finding = only(of_namespace(*connects(4), samples=kept))
    assert "13 of the 14 local ports" in finding.summary
    assert "5 more are reserved; 1 are kept" in finding.summary


def test_a_wide_range_is_not_widened() -> None:
    wide = counted((3, use(55_000)), (4, use(55_500)), ip_local_port_range="1024 65535")
    finding = only(of_namespace(*connects(4), samples=wide))
    assert not any("ip_local_port_range" in line for line in finding.advice)


def test_without_a_count_it_is_likely() -> None:
    finding = only(of_namespace(*connects(2, outcome=LACKING)))
    assert 0.5 <= finding.confidence < 0.8 and finding.severity == "critical"
    assert "not counted" in finding.summary


def test_what_was_not_counted_is_told() -> None:
    many = [
        replace(each, usage=replace(each.usage, left_out=900)) for each in FILLING if each.usage
    ]
    finding = only(of_namespace(*connects(4), samples=many))
    assert "At least 18 of the 20" in finding.summary and finding.evidence["left_out"] == 900


# -- what is none ------------------------------------------------------------------------


def none(trace: Trace) -> bool:
    return ephemeral_exhaustion(trace, ()) == []


def test_a_source_address_that_is_not_there_is_none() -> None:
    trace = of_namespace(*connects(3, outcome=LACKING), samples=FILLING[:2])
    trace.rows["syn_ns"] = 0  # it never was in SYN_SENT
    assert none(trace)


def test_a_burst_that_is_over_at_the_next_count_is_none() -> None:
    burst = counted((1, use(4)), (2, use(17)), (3, use(9)))
    assert none(of_namespace(*connects(20), samples=burst))


def test_time_wait_that_is_reused_takes_no_port() -> None:
    reused = counted((2, use(19, reusable=18)), (3, use(20, reusable=19)), tcp_tw_reuse="1")
    assert none(of_namespace(*connects(20), samples=reused))


def test_a_busy_destination_with_ports_left_is_none() -> None:
    assert none(of_namespace(*connects(20), samples=counted((1, use(14)), (2, use(15)))))


def test_ports_of_others_are_none_of_ours() -> None:
    # nobody that is traced connects there
    full = counted((1, use(20, to=ELSEWHERE)), (2, use(20, to=ELSEWHERE)))
    assert none(of_namespace(*connects(20), samples=full))
    # from another source of the same namespace
    away = [
        replace(each, usage=Usage(each.time_ns, 20, groups=(PortUse("192.0.2.9", TO, 20, 20),)))
        for each in full
    ]
    assert none(of_namespace(*connects(20), samples=away))


def test_a_failure_with_ports_left_is_no_sure_shortage() -> None:
    trace = of_namespace(
        *connects(2, outcome=LACKING, at_ms=1500), samples=counted((1, use(11)), (2, use(12)))
    )
    finding = only(trace)
    assert finding.confidence < 0.8
    assert {each.name: each.verdict for each in finding.hypotheses}["range of the socket"] == "open"


def test_ports_that_others_bound_are_taken_from_everyone() -> None:
    others = counted((1, use(20, 0, to=ELSEWHERE)), (2, use(20, 0, to=ELSEWHERE)))
    finding = only(of_namespace(*connects(2, outcome=LACKING, at_ms=1500), samples=others))
    assert finding.subject["destination"] == TO and 0.5 <= finding.confidence < 0.8
    assert "only 0 of the 20 local ports" in finding.summary
    assert "20 sockets to other destinations have one" in finding.summary
    assert "IP_BIND_ADDRESS_NO_PORT" in finding.advice[0]
    verdicts = {each.name: each.verdict for each in finding.hypotheses}
    assert verdicts["ports that bind(2) chose"] == "supported"


def test_without_samples_and_failures_nothing_is_said() -> None:
    assert none(of_namespace(*connects(20)))
    strange = {**SETTINGS, "ip_local_port_range": ""}
    assert none(
        of_namespace(*connects(5), samples=[replace(each, settings=strange) for each in FILLING])
    )
