"""A known workload gives exactly its own attempts: counts, outcomes, owners, ports.

Checked against the workload's own word, against strace, and against samples of
SYN_SENT that sock_diag gives meanwhile.
"""

import collections
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from porttrace.lab.site import Site, open_site
from porttrace.tracer import sockets
from tracing import Traced, trace

pytestmark = pytest.mark.kernel
STRACE_CALL = re.compile(r"^(\d+) +connect\(.*sin6?_port=htons\((\d+)\)", re.M)
WORKLOAD = Path(__file__).with_name("outcomes_workload.py")

Row = dict[str, Any]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.fixture(scope="module")
def truth_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outcomes") / "truth.jsonl"


def command(site: Site, truth_path: Path) -> list[str]:
    return site.hosts.in_client([sys.executable, str(WORKLOAD), str(truth_path)])


@pytest.fixture(scope="module")
def samples() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def traced(site: Site, truth_path: Path, samples: list[tuple[int, int]]) -> Traced:
    with _sampling(site, samples):
        return trace(command(site, truth_path))


class _sampling:
    # Asks sock_diag every 20 ms which sockets of the client host are in SYN_SENT.
    def __init__(self, site: Site, samples: list[tuple[int, int]]) -> None:
        self._anchor = subprocess.Popen(site.hosts.in_client(["sleep", "60"]))
        self._samples, self._over = samples, threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> None:
        time.sleep(0.3)  # until the anchor stands in the client's namespace
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._anchor.kill()
        self._anchor.wait()

    def _sample(self) -> None:
        while not self._over.wait(0.02):
            for each in sockets.connecting(self._anchor.pid):
                self._samples.append((each.sport, each.dport))


def truth(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def key(row: Row) -> tuple[Any, ...]:
    address = row["daddr"].replace("::ffff:", "")
    return (row["outcome"], row["pid"], row["tid"], row["comm"], address, row["dport"],
            row["blocking"])  # fmt: skip


def test_exactly_the_attempts_that_were_made(traced: Traced, truth_path: Path) -> None:
    seen = collections.Counter(map(key, traced.attempts))
    made = collections.Counter(map(key, truth(truth_path)))
    assert seen - made == collections.Counter(), "attempts that nobody made"
    assert made - seen == collections.Counter(), "attempts that were not seen"


def test_the_numbers_of_the_workload(traced: Traced) -> None:
    assert traced.report["attempts"]["by_outcome"] == {
        "established": 23,
        "refused": 23,
        "cancelled": 10,
        "timed_out": 7,
    }
    assert traced.code == 0


def test_every_port_is_known(traced: Traced, truth_path: Path) -> None:
    assert all(row["sport"] and row["dport"] for row in traced.attempts)
    told = {(row["tid"], row["sport"]) for row in truth(truth_path) if row["sport"]}
    assert told <= {(row["tid"], row["sport"]) for row in traced.attempts}


def test_every_error_number_is_the_kernels(traced: Traced) -> None:
    numbers = {(row["outcome"], row["errno"]) for row in traced.attempts}
    assert numbers == {("established", 0), ("refused", 111), ("timed_out", 110), ("cancelled", 0)}


def test_marks_stand_in_order(traced: Traced) -> None:
    for row in traced.attempts:
        assert row["call_ns"] <= row["syn_ns"] <= row["end_ns"], row
        assert row["return_ns"] >= row["syn_ns"], row


def test_mapped_addresses_count_as_ipv4(traced: Traced) -> None:
    families = {(row["family"], ":" in row["daddr"]) for row in traced.attempts}
    assert families == {(4, False), (6, True)}


def test_nothing_is_left_open_or_lost(traced: Traced) -> None:
    assert traced.is_trusted(), traced.report["trust"]
    assert traced.findings("serialized-connects") == []


def test_every_sampled_socket_was_an_attempt(
    traced: Traced, samples: list[tuple[int, int]]
) -> None:
    seen = {(row["sport"], row["dport"]) for row in traced.attempts}
    assert len(samples) > 20, "sock_diag saw nothing: the samples prove nothing"
    assert set(samples) <= seen


def test_strace_saw_the_same_calls(site: Site, tmp_path: Path) -> None:
    # GIVEN the workload traced by porttrace, which runs strace, which runs the workload
    log, told = tmp_path / "strace", tmp_path / "truth"
    strace = ["strace", "-f", "-e", "trace=connect", "-e", "signal=none", "-o", str(log)]
    inner = [sys.executable, str(WORKLOAD), str(told)]
    traced = trace(site.hosts.in_client([*strace, *inner]))
    # WHEN both count calls by thread and port
    calls = collections.Counter(
        (int(tid), int(port)) for tid, port in STRACE_CALL.findall(log.read_text())
    )
    seen = collections.Counter((row["tid"], row["dport"]) for row in traced.attempts)
    # THEN they agree, and so do the refusals that the calls themselves returned
    assert seen == calls
    refused = [r for r in traced.attempts if r["outcome"] == "refused" and r["blocking"]]
    assert log.read_text().count("ECONNREFUSED") == len(refused)
