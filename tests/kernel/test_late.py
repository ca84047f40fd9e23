"""A trace that begins in the middle of the hang tells what holds whom, and invents nothing."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from porttrace.lab.site import DEAD, LIVE, Site, open_site
from porttrace.lab.throttle import Throttle
from porttrace.tracer.processes import all_pids, read_process
from porttrace.tracer.waiting import at_gate
from tracing import Traced, running, wait_until

pytestmark = pytest.mark.kernel
DEAD_TIME = "7"


@contextmanager
def begun(
    site: Site, workload: str, throttle: Throttle | None
) -> Iterator[subprocess.Popen[bytes]]:
    words = ("--dead", DEAD, "--live", LIVE, "--dead-time", DEAD_TIME, "--truth", "/dev/null")
    process = subprocess.Popen(site.argv(workload, *words, throttle=throttle))
    try:
        yield process
        process.wait(30)
    finally:
        process.kill()
        process.wait()


def late_trace() -> Traced:
    with open_site() as site, begun(site, "two_threads", Throttle("gate", 1, "process")):
        found: list[int] = []

        def stands() -> bool:
            found[:] = [each.pid for each in at_gate(ours())]
            return bool(found)

        wait_until(stands)
        with running("--pid", str(found[0])) as tracer:
            wait_until(lambda: not list(at_gate(found)), 20)
            return tracer.finish()


def ours() -> list[int]:
    return [pid for pid in all_pids() if read_process(pid).comm == "two-threads"]


def test_who_waited_before_the_trace_is_told_with_what_it_waits_behind() -> None:
    traced = late_trace()
    # GIVEN an attempt to the dead port, and one that it keeps at the gate, both older
    (blocker,) = [row for row in traced.attempts if row["dport"] == 9100]
    (victim,) = [row for row in traced.attempts if row["dport"] == 80]
    # THEN it was held at the gate as long as the trace saw it, and nothing at another place
    assert blocker["origin"] == "seeded" and victim["outcome"] == "established"
    held_s = (victim["call_ns"] - victim["gate_ns"]) / 1e9
    assert 2 < held_s < 7
    assert any(row["stack"] and "seccomp" in row["stack"][0] for row in traced.of("pending")
               if row["dport"] == 80)  # fmt: skip
    (finding,) = traced.findings("serialized-connects")
    assert finding["place"] == "gate" and finding["slots"] == 1
    assert [party["destination"] for party in finding["victims"]] == [LIVE]
    assert [party["destination"] for party in finding["blockers"]] == [DEAD]
    # AND of whose timer ended a wait that had begun before, nobody says anything
    assert not traced.findings("timeout-source")


def test_an_old_attempt_alone_is_held_by_nobody() -> None:
    with open_site() as site, begun(site, "two_threads", None) as process:
        wait_until(lambda: bool(ours()))
        with running("--pid", str(ours()[0])) as tracer:
            wait_until(lambda: process.poll() is not None, 20)
            traced = tracer.finish()
    (old,) = [row for row in traced.attempts if row["dport"] == 9100]
    assert old["origin"] == "seeded"
    found = traced.report["findings"]
    assert not [each for each in found if each["severity"] == "critical" or each["place"]]
