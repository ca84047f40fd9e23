"""Rule fixed-port-at-risk: who is at risk, who is not, and the command that ends it."""

from porttrace.analysis.findings.fixed_port import Serving, fixed_port_at_risk, listening
from porttrace.analysis.port_ranges import merged, reserve_command
from porttrace.tracer.facts import Holder

RANGE = (32768, 60999)
APP = Serving("tcp", 43611, "0.0.0.0", 7, "app", asked=True)


def test_a_fixed_port_in_the_range() -> None:
    (found,) = fixed_port_at_risk([APP], RANGE, [(50000, 50010)])
    assert (found.rule, found.severity, found.confidence) == ("fixed-port-at-risk", "warning", 0.95)
    assert found.subject == {"pid": 7, "pids": [7], "ports": [43611], "container": ""}
    assert found.summary.startswith("app (pid 7) listens on 43611/tcp, which lies in the ephemeral")
    assert "ip_local_reserved_ports=43611,50000-50010," in found.advice[0]


def test_both_ends_of_the_range_belong_to_it() -> None:
    ports = [Serving("tcp", port, pid=port) for port in (32767, 32768, 60999, 61000)]
    found = fixed_port_at_risk(ports, RANGE, [])
    assert [each.subject["ports"] for each in found] == [[32768], [60999]]


def test_reserved_or_chosen_by_the_kernel_is_no_risk() -> None:
    assert fixed_port_at_risk([APP], RANGE, [(43000, 44000)]) == []
    assert fixed_port_at_risk([Serving("tcp", 43611, asked=False)], RANGE, []) == []


def test_who_may_have_asked_for_any_port_is_likely_only() -> None:
    (found,) = fixed_port_at_risk([Serving("tcp", 43611)], RANGE, [])
    assert 0.5 < found.confidence < 0.8
    assert "any port (0)" in found.advice[-1]


def test_one_finding_a_process_and_one_command_for_all() -> None:
    others = [Serving("udp", 43612, pid=7, comm="app", asked=True), Serving("tcp", 40000, pid=8)]
    first, second = fixed_port_at_risk([APP, *others], RANGE, [])
    assert first.subject["ports"] == [43611, 43612]
    assert first.advice[0] == second.advice[0]
    assert "ip_local_reserved_ports=40000,43611-43612," in first.advice[0]


def test_of_sockets_only_listeners_count() -> None:
    sockets = [Holder("listener", port=1, pid=2), Holder("udp", "udp", port=3), Holder("bound")]
    assert [(each.port, each.pid) for each in listening(sockets)] == [(1, 2)]


def test_ranges() -> None:
    assert merged([(5, 9), (1, 4), (20, 20), (7, 8)]) == [(1, 9), (20, 20)]
    command = "sysctl -w net.ipv4.ip_local_reserved_ports=8080-8081"
    assert reserve_command([8081], [(8080, 8080)]) == command
