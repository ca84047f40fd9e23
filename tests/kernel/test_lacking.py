"""What a kernel lacks is hidden from a real run: it does what is possible, or says why not."""

import subprocess
from pathlib import Path

import pytest

from kernel_lacks import NOTHING, run_with

pytestmark = pytest.mark.kernel


def refused(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    for word in (*words, "'porttrace report FILE'"):
        assert word in done.stderr
    assert done.stdout == ""


@pytest.fixture
def locked_down(tmp_path: Path) -> str:
    # securityfs may not be mounted here: then it is only this file.
    (tmp_path / "lockdown").write_text("none integrity [confidentiality]\n")
    return f"mount --bind {tmp_path} /sys/kernel/security"


def test_lockdown_forbids_tracing(locked_down: str) -> None:
    refused(run_with(locked_down, "--", "true"), "confidentiality", "boot without lockdown")


def test_without_system_call_tracepoints_there_is_no_tracing() -> None:
    hidden = NOTHING + "/sys/kernel/tracing/events/syscalls"
    refused(run_with(hidden, "--", "true"), "system calls", "CONFIG_FTRACE_SYSCALLS")


def test_doctor_names_what_is_missing(locked_down: str) -> None:
    hidden = f"{locked_down}; {NOTHING}/sys/kernel/tracing/events/syscalls"
    done = run_with(hidden, "doctor")
    assert done.returncode == 4
    missing = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("missing")]
    assert {"lockdown", "connect", "socket"} <= set(missing)
    assert "Live tracing cannot work here until that is mended." in done.stdout


def test_without_btf_tracing_goes_on_in_another_mode() -> None:
    program = "import socket; socket.socket().connect_ex(('127.0.0.1', 1))"
    done = run_with(NOTHING + "/sys/kernel/btf", "--", "/usr/bin/python3", "-c", program)
    assert done.returncode == 0, done.stderr
    assert "refused" in done.stdout
    assert "fentry mode" not in done.stdout
