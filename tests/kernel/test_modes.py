"""Every hook mode that this kernel has tells the same of the same workload."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernel.modes_workload import ways_here
from kernel.random_workload import Step, plan
from porttrace.tracer.hooks import MODES
from porttrace.tracer.modes import why_not
from tracing import read, run, trace, trace_whole

pytestmark = pytest.mark.kernel
HERE = Path(__file__).parent
LIVE, CLOSED = 7001, 7002

Row = dict[str, Any]


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Build the programs that connect by other ways than connect(2)."""
    folder = tmp_path_factory.mktemp("ways")
    built = [folder / "ways", folder / "ways32"]
    gcc = ["gcc", "-O1", "-Wall", "-Werror", "-o"]
    subprocess.run([*gcc, built[0], HERE / "ways.c", "-luring"], check=True)
    bare = ["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie"]
    ports = [f"-DLIVE_PORT={LIVE}", f"-DCLOSED_PORT={CLOSED}", "-fno-stack-protector"]
    subprocess.run([*gcc, built[1], *bare, *ports, HERE / "ways32.c"], check=True)
    return [str(path) for path in built]


def test_the_modes_are_those_that_are_expected_here() -> None:
    expected = os.environ.get("PORTTRACE_EXPECTED_MODES")
    have = [mode for mode in MODES if not why_not(mode)]
    assert "tracepoint" in have
    if expected:
        assert have == expected.split(",")


@pytest.mark.parametrize("mode", MODES)
def test_every_way_gives_the_same_table(mode: str, ways: list[str]) -> None:
    # GIVEN a kernel that has the mode
    obstacle = why_not(mode)
    if obstacle:
        assert_refused(mode, obstacle)
        return
    # WHEN a known workload is traced in it
    command = ["unshare", "--net", sys.executable, str(HERE / "modes_workload.py"), *ways]
    traced = trace_whole(command, "--mode", mode, timeout_s=240)
    # THEN the table is the one that every mode of every kernel gives
    assert traced.code == 0, traced.notes
    assert traced.report["trace"]["mode"] == mode
    assert traced.is_trusted(), traced.report["trust"]
    assert [told(row) for row in ordered(traced.attempts)] == attempts_of(mode)
    assert traced.findings("serialized-connects") == []


@pytest.mark.parametrize("mode", MODES)
def test_a_random_workload_gives_the_same_table(mode: str) -> None:
    if why_not(mode):
        return  # shown above to be refused
    # GIVEN threads that connect at random, by a seed that is the same everywhere
    module = ["env", f"PYTHONPATH={HERE.parent}", sys.executable, "-m", "kernel.random_workload"]
    traced = trace_whole(["unshare", "--net", *module], "--mode", mode, timeout_s=240)
    # THEN each thread has made the attempts that the seed says, in their order
    assert traced.code == 0, traced.notes
    seen: dict[str, list[tuple[Any, ...]]] = {name: [] for name in plan()}
    for row in ordered(traced.attempts):
        seen[row["comm"]].append((row["daddr"], row["dport"], row["outcome"], row["errno"]))
    assert seen == {name: [told_plan(each) for each in steps] for name, steps in plan().items()}
    assert traced.is_trusted(), traced.report["trust"]


@pytest.mark.parametrize("mode", MODES)
def test_the_story_of_the_gate_has_the_same_verdict(mode: str) -> None:
    if why_not(mode):
        return
    # GIVEN the web site under a real throttle at the gate
    story = ["lab", "scenario", "serialized-logins", "--dead-time", "3s", "--pages", "6"]
    traced = read(run(*story, "--mode", mode, "--json", timeout_s=240))
    # THEN every mode says the same: who, where, how many
    assert traced.code == 0, traced.notes
    (finding,) = traced.findings("serialized-connects")
    said = {name: finding[name] for name in ("place", "scope", "slots", "mechanism")}
    assert said == {"place": "gate", "scope": "process", "slots": 1, "mechanism": "queue"}
    assert finding["blockers"][0]["destination"] == "192.0.2.66:9100"
    held = {each["destination"] for each in finding["victims"] if each["wait_s"] > 0.5}
    assert held == {"192.0.2.2:389"}
    assert traced.report["trace"]["mode"] == mode


def told_plan(step: Step) -> tuple[Any, ...]:
    there = step.there.removeprefix("::ffff:")
    names = {0: "established", 111: "refused", 101: "unreachable", 115: "cancelled"}
    return (there, step.port, names[step.expected], step.expected if step.expected != 115 else 0)


def assert_refused(mode: str, obstacle: str) -> None:
    """A mode that the kernel has not is refused in plain words, and nothing is traced."""
    traced = trace(["true"], "--mode", mode)
    assert traced.code == 4
    assert f"the hook mode {mode} does not work here: {obstacle}" in traced.notes
    assert traced.objects == []


def attempts_of(mode: str) -> list[tuple[Any, ...]]:
    """What modes_workload.py does, in its order."""
    rows: list[tuple[Any, ...]] = []
    for here, nobody, nowhere in (
        ("127.0.0.1", "192.0.2.66", "203.0.113.1"),
        ("::1", "2001:db8::66", "2001:db8:1::1"),
        ("127.0.0.1", "192.0.2.66", "203.0.113.1"),  # mapped
    ):
        for blocking in (True, False):
            rows.append(("connect", here, CLOSED, blocking, "refused", 111))
            rows.append(("connect", here, LIVE, blocking, "established", 0))
        rows.append(("connect", nobody, LIVE, True, "timed_out", 110))
        rows.append(("connect", nobody, LIVE, False, "cancelled", 0))
        rows.append(("connect", nowhere, LIVE, None, "unreachable", 101))
    rows.append(("connect", "127.0.0.1", LIVE, True, "established", 0))
    rows.append(("connect", "127.0.0.1", LIVE, True, "no_port", 99))
    by: dict[str, tuple[str, bool | None]] = {
        "io_uring": ("io_uring", None),
        "io_uring_async": ("io_uring", None),
        "fastopen": ("fastopen", None),
        "mptcp": ("connect", True),  # its first subflow, once
        "32-bit": ("connect", None),
    }
    for way in (*ways_here(), "32-bit"):
        origin, blocks = by[way]
        rows.append((origin, "127.0.0.1", LIVE, blocks, "established", 0))
        rows.append((origin, "127.0.0.1", CLOSED, blocks, "refused", 111))
        # before the SYN, and not by the connect(2) that tracepoints see: needs the better modes
        if mode != "tracepoint" or blocks:
            rows.append((origin, "203.0.113.1", 80, None, "unreachable", 101))
    return rows


def ordered(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["call_ns"] or row["syn_ns"])


def told(row: Row) -> tuple[Any, ...]:
    return (row["origin"], row["daddr"], row["dport"], row["blocking"], row["outcome"],
            row["errno"])  # fmt: skip
