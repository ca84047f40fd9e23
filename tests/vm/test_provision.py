"""scripts/provision in fresh systems: twice, then a live trace with that system's own bcc."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm
VM = Path(__file__).parent.parent.parent / "scripts" / "vm"
# Without anything at hand: the base system, some 130 packages of Debian, and Python's.
LIMIT_S = 600


def seconds(what: str, said: str) -> float:
    """Return how long scripts/vm-provision says that a step took."""
    match = re.search(rf"^vm-provision: \w+: {what} took (\d+\.\d) s$", said, re.M)
    assert match, said
    return float(match[1])


@pytest.fixture(autouse=True)
def _at_hand() -> None:
    obstacle = ""
    if os.geteuid() != 0:
        obstacle = "needs root: scripts/test runs it through sudo"
    elif not shutil.which("debootstrap", path=os.environ["PATH"] + ":/usr/sbin"):
        obstacle = "needs debootstrap: scripts/setup vm"
    if obstacle and os.environ.get("CI") != "true":
        pytest.skip(obstacle)
    assert not obstacle


def machines() -> list[str]:
    """Return the distributions that this machine is not: its own is what all other tests run on."""
    here = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    suites = {"debian12": "bookworm", "debian13": "trixie"}
    return [machine for machine, suite in suites.items() if suite != here]


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("machine", machines())
def test_a_fresh_system_is_made_ready_and_tells_the_story(machine: str) -> None:
    done = subprocess.run(
        [VM, "--provision", machine],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=LIMIT_S,
    )  # fmt: skip
    said = done.stdout + done.stderr
    # It ends with an error where the second provision is not idle, the command on the PATH
    # changes an exit code, or the verdict is not firm.
    assert done.returncode == 0, said
    assert "setup: installing" in said, "the first provision had nothing to do"
    assert "Live tracing can work here." in said
    assert seconds("the second provision", said) < min(30.0, seconds("the first provision", said))
    assert "serialized-connects (firm):" in said
    assert f"vm-provision: {machine}: the story took" in said
