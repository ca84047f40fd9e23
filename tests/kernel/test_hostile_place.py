"""Started by root in a folder of somebody else: nothing of his is run, compiled or read."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

COMMAND = str(Path(sys.executable).parent / "porttrace")
SHADOWS = ("bcc", "numpy", "click", "json", "pyroute2", "porttrace", "sitecustomize", "linux")


@pytest.fixture
def his(tmp_path: Path) -> Path:
    for name in SHADOWS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(99)\n")
        (tmp_path / name / "types.h").write_text("#error planted\n")
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)\n")
    return tmp_path


def test_nothing_in_the_current_folder_is_opened(his: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("there is no strace")
    log = his / "log"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=open,openat,execve", "-o", str(log), "--",
         COMMAND, "-P", "9", "-d", "1"],
        capture_output=True, text=True, check=False, cwd=his, timeout=120,
        env={**os.environ, "BCC_KERNEL_SOURCE": str(his), "BCC_KERNEL_MODULES_SUFFIX": str(his)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    opened = re.findall(r'(?:open|openat|execve)\([^"]*"([^"]*)"', log.read_text())
    assert len(opened) > 100 and any(path.endswith("porttrace.bpf.c") for path in opened)
    # bcc unpacks kernel headers to a folder that anyone could make first (CVE-2024-2314), unless it
    # is given a tree: ours, whatever the environment says.
    wrong = [path for path in opened if str(his) in path or "kheaders" in path]
    relative = [path for path in opened if not path.startswith("/") and path not in ("", ".")]
    assert not [path for path in wrong if path != str(log)]
    assert not [path for path in relative if (his / path).exists()]


def test_files_of_a_run_are_nobody_elses(his: Path) -> None:
    # What is made in the shared folder for temporary files has a name that nobody can foretell.
    log = his / "log"
    flags = "trace=openat,mkdir,mkdirat,symlink,rename"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", flags, "-o", str(log), "--", COMMAND, "-P", "9", "-d", "1"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shared = re.compile(r'"(?:/tmp|/var/tmp|/dev/shm)/([^"]*)"[^\n]*O_CREAT[^\n]*= \d')
    made = [name for name in shared.findall(log.read_text()) if name]
    assert all("O_EXCL" in line for line in log.read_text().split("\n") if shared.search(line)), (
        made
    )
