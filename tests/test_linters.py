"""Each step of scripts/check is a test, so that one run of pytest tells everything."""

import os
import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
CHECK = CHECKOUT / "scripts" / "check"


def steps() -> list[str]:
    match = re.search(r'^steps="(.+)"$', CHECK.read_text(), re.M)
    assert match, "scripts/check names no steps"
    return match[1].split()


@pytest.mark.timeout(300)  # mypy reads numpy and pandas anew when its cache is gone
@pytest.mark.parametrize("step", steps())
def test_check(step: str) -> None:
    # Under sudo the caches in build/ stay those of the user who owns it.
    owner = (CHECKOUT / "build").stat()
    drop = os.geteuid() == 0 and owner.st_uid != 0
    done = subprocess.run(
        [CHECK, step],
        capture_output=True,
        text=True,
        check=False,
        user=owner.st_uid if drop else None,
        group=owner.st_gid if drop else None,
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
