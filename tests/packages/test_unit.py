"""The unit: what systemd says of it, and a trace with the rights and calls that it leaves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent
UNIT = CHECKOUT / "packages" / "porttrace.service"
CONNECT = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 9)))"


def test_its_exposure_is_as_documented() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT],
        capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    score = re.search(r"exposure level for porttrace\.service: (\d\.\d)", done.stdout)
    assert score
    assert f"gives it {score[1]} " in (CHECKOUT / "docs" / "packages.md").read_text()


def in_sandbox(unit: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    sandbox = Path(__file__).parent / "sandbox.py"
    own_mounts = ("unshare", "--mount", "--propagation", "private")
    return subprocess.run(
        [*own_mounts, "/usr/bin/python3", sandbox, unit, *words],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.kernel
def test_it_can_trace_with_what_the_unit_leaves() -> None:
    porttrace = str(Path(sys.executable).with_name("porttrace"))
    done = in_sandbox(UNIT, porttrace, "-d", "20s", "--", "/usr/bin/python3", "-c", CONNECT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"127\.0\.0\.1:9 +refused", done.stdout), done.stdout + done.stderr
    assert "none lost" in done.stdout


@pytest.mark.kernel
def test_the_sandbox_denies_what_the_unit_does_not_allow(tmp_path: Path) -> None:
    # GIVEN the unit without the call that loads programs
    less = tmp_path / "less.service"
    less.write_text(UNIT.read_text().replace("@system-service bpf", "@system-service"))
    porttrace = str(Path(sys.executable).with_name("porttrace"))
    # THEN nothing can be traced, and nothing can be written in either
    done = in_sandbox(less, porttrace, "-d", "1s")
    assert done.returncode in (1, 3, 4), done.stdout + done.stderr
    done = in_sandbox(UNIT, "touch", str(CHECKOUT / "build" / "touched"))
    assert "Read-only file system" in done.stderr
