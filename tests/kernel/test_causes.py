"""Rules of nftables that deny or drop, a dead family, a storm: each is found by its own rule."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from porttrace.lab.site import DEAD, Site, open_site
from tracing import Traced, trace

pytestmark = pytest.mark.kernel
WORKLOAD = Path(__file__).with_name("causes_workload.py")
CAUSES = {"serialized-connects", "limited-connects", "paced-connects", "syn-lost", "connect-storm",
          "broken-family"}  # fmt: skip
SYN = "tcp flags syn / syn,ack"


@pytest.fixture
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


def ruled(site: Site, rule: str, mode: str, amount: str) -> Traced:
    """Trace a workload on the client host, under a rule for what it sends."""
    if rule:
        text = (
            "add table inet t\nadd chain inet t o { type filter hook output priority 0; }\n"
            f"add rule inet t o {SYN} {rule}\n"
        )
        nft = site.hosts.in_client(["nft", "-f", "-"])
        subprocess.run(nft, input=text.encode(), check=True)
    argv = site.hosts.in_client([sys.executable, str(WORKLOAD), mode, amount])
    traced = trace(argv, timeout_s=100)
    assert traced.code == 0, traced.notes
    return traced


def causes(traced: Traced) -> set[str]:
    return {finding["rule"] for finding in traced.report["findings"]} & CAUSES


def test_a_limit_that_denies(site: Site) -> None:
    # Connection tracking keeps a dead attempt until its SYN comes again, which is refused, too.
    traced = ruled(site, "ct state new ct count over 1 reject with tcp reset", "logins", "25")
    assert causes(traced) == {"limited-connects"}
    (finding,) = traced.findings("limited-connects")
    assert (finding["slots"], finding["scope"], finding["mechanism"]) == (1, "process", "deny")
    assert finding["evidence"]["error"] == "ECONNREFUSED"
    assert finding["blockers"][0]["destination"] == DEAD


def test_a_rate_that_drops(site: Site) -> None:
    traced = ruled(site, "limit rate over 3/second burst 4 packets drop", "bursts", "30")
    assert causes(traced) == {"paced-connects"}
    (finding,) = traced.findings("paced-connects")
    assert finding["mechanism"] == "drop" and finding["scope"] == "process"
    assert finding["evidence"]["rate_per_s"] == pytest.approx(3, rel=0.1)
    assert abs(finding["evidence"]["burst"] - 4) <= 2


def test_a_dead_family(site: Site) -> None:
    traced = ruled(site, "", "families", "10")
    assert causes(traced) == {"broken-family"}
    (finding,) = traced.findings("broken-family")
    assert finding["evidence"]["rescued"] == 10
    assert finding["evidence"]["lost_median_s"] == pytest.approx(0.3, abs=0.05)


def test_a_storm(site: Site) -> None:
    traced = ruled(site, "", "storm", "13")
    assert causes(traced) == {"connect-storm"}
    (finding,) = traced.findings("connect-storm")
    assert 60 < finding["evidence"]["rate_per_s"] < 170
    assert finding["evidence"]["descriptors"] == 1


@pytest.mark.parametrize(("mode", "amount"), [("logins", "8"), ("bursts", "8"), ("storm", "5")])
def test_without_a_rule_there_is_no_cause(site: Site, mode: str, amount: str) -> None:
    assert causes(ruled(site, "", mode, amount)) == set()
