"""Every supported kernel boots, and porttrace works there in each hook mode."""

import os
import platform
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from vm.guest import results_directory
from vm.kernels import SUITES

pytestmark = pytest.mark.vm
VM = Path(__file__).parent.parent.parent / "scripts" / "vm"
# Emulated, on two cores that others use as well.
LIMIT_S = 600

each_kernel = pytest.mark.parametrize("version", SUITES)


def run_vm(*words: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/vm and return what it printed."""
    return subprocess.run(
        [VM, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module", autouse=True)
def _kernels_at_hand() -> None:
    # Fetches them, which also finds out whether a machine can be started at all.
    done = run_vm("--fetch")
    obstacle = done.stderr if done.returncode else ""
    if platform.machine() != "x86_64":
        obstacle = "the kernels are for x86_64"
    if obstacle and os.environ.get("CI") != "true":
        pytest.skip(obstacle)
    assert not obstacle


@each_kernel
@pytest.mark.timeout(LIMIT_S + 60)
def test_every_mode_works(version: str) -> None:
    report = results_directory(version) / "short.xml"
    report.unlink(missing_ok=True)
    done = run_vm("--timeout", str(LIMIT_S), version)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"vm: Linux {version}." in done.stderr
    cases = list(ET.parse(report).getroot().iter("testcase"))
    assert cases
    assert not [each.get("name") for each in cases if len(each)], "all of them passed"
