"""The active probe against real throttles, in the lab's network namespaces."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from porttrace.lab.site import DEAD, LIVE, Site, open_site
from porttrace.lab.throttle import Throttle
from tracing import PORTTRACE, run

SERVER, BLACKHOLE = LIVE.rpartition(":")[0], DEAD.rpartition(":")[0]
pytestmark = pytest.mark.kernel

UID = 12_345
SLEEPER = """
import os, time
os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)
print('up', flush=True)
time.sleep(100)
"""
COUNTED = """table inet guard {{
    chain out {{
        type filter hook output priority 0
        {match} tcp flags & (syn|ack) == syn ct count over {slots} {verdict}
    }}
}}"""


@pytest.fixture
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.fixture
def target(site: Site) -> Iterator[int]:
    """A process of another user on the client host."""
    words = site.hosts.in_client([sys.executable, "-c", SLEEPER])
    child = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    yield child.pid
    child.kill()
    child.wait()
    child.stdout.close()


def arguments(target: int) -> list[str]:
    return ["probe", "--json", "--yes", "--pid", str(target), "--dead", DEAD, "--live", LIVE]


def probe(target: int, *more: str) -> dict[str, Any]:
    done = run(*arguments(target), *more)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def throttle(site: Site, rules: str) -> None:
    words = site.hosts.in_client(["nft", "-f", "-"])
    done = subprocess.run(words, input=rules, text=True, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nft cannot do that here: {done.stderr.strip()[:200]}")


def test_no_throttle(target: int) -> None:
    started = time.monotonic()
    found = probe(target, "--slots", "16")
    assert time.monotonic() - started < 10
    assert (found["slots"], found["place"]) == (0, "")
    assert [step["open"] for step in found["steps"]] == list(range(17))
    assert {step["live"] for step in found["steps"]} == {"connected"}


@pytest.mark.parametrize("slots", [1, 3])
def test_a_firewall_that_counts_the_host(site: Site, target: int, slots: int) -> None:
    rules = COUNTED.format(match="", slots=slots, verdict="drop")
    throttle(site, rules)
    found = probe(target)
    assert (found["slots"], found["place"], found["scope"]) == (slots, "after the SYN", "netns")
    assert found["mechanism"] == "queue"


def test_a_firewall_that_counts_and_refuses_a_user(site: Site, target: int) -> None:
    refused = "reject with tcp reset"
    rules = COUNTED.format(match=f"meta skuid {UID}", slots=2, verdict=refused)
    throttle(site, rules)
    found = probe(target)
    assert (found["slots"], found["scope"], found["mechanism"]) == (2, "user", "deny")


@pytest.mark.parametrize("slots", [1, 2])
def test_a_throttle_before_the_syn(site: Site, target: int, slots: int) -> None:
    """The lab's gate around the probe itself: it counts each process."""
    command = Throttle("gate", slots, "process").argv([*PORTTRACE, *arguments(target)])
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["slots"], found["place"], found["scope"]) == (slots, "before the SYN", "process")


def test_in_the_lab_it_keeps_the_user() -> None:
    child = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"up\n"
        done = run("probe", "--json", "--yes", "--lab", "--pid", str(child.pid), "--slots", "3")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert done.returncode == 0, done.stderr
    assert f"user {UID}" in done.stderr and "From a host of the lab" in done.stderr
    found = json.loads(done.stdout)
    assert (found["slots"], len(found["steps"])) == (0, 4)


def test_addresses_that_will_not_do(target: int) -> None:
    dead_answers = run(
        "probe", "--yes", "--pid", str(target), "--dead", LIVE, "--live", f"{SERVER}:389"
    )
    assert dead_answers.returncode == 1
    assert "is no address that never answers: it answers" in dead_answers.stderr
    live_is_dead = run(
        "probe", "--yes", "--pid", str(target), "--dead", DEAD, "--live", f"{BLACKHOLE}:9101"
    )
    assert live_is_dead.returncode == 1
    assert "cannot be connected to from there: no answer" in live_is_dead.stderr
    same = run("probe", "--yes", "--pid", str(target), "--dead", DEAD, "--live", DEAD)
    assert same.returncode == 2 and "are the same" in same.stderr


def test_nothing_of_it_stays(target: int) -> None:
    probe(target)
    own = [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_trial(pid)]
    assert own == []


def _is_trial(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"trialchild" in file.read()
    except OSError:
        return False
