"""The unit: what systemd says of it, and a trace with the rights and calls that it leaves."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pages import parse

CHECKOUT = Path(__file__).parent.parent.parent
UNIT = CHECKOUT / "packages" / "porttrace.service"
CONNECT = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 9)))"


def test_its_exposure_is_as_documented() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT],
        capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    score = re.search(r"exposure level for porttrace\.service: (\d\.\d)", done.stdout)
    assert score and float(score[1]) < 4
    page = " ".join((CHECKOUT / "docs" / "packages.md").read_text().split())
    assert f"`systemd-analyze security --offline=true` gives it {score[1]} " in page


def commands() -> list[list[str]]:
    """Return the command of the unit, and those of drop-ins in its page."""
    pages = (UNIT, CHECKOUT / "docs" / "packages.md")
    lines = [line.strip() for page in pages for line in page.read_text().splitlines()]
    found = [shlex.split(line.partition("=")[2]) for line in lines if line.startswith("ExecStart=")]
    return [words for words in found if words]  # an empty one takes back those before


@pytest.mark.parametrize("command", commands(), ids=shlex.join)
def test_porttrace_has_the_words_of_its_command(command: list[str]) -> None:
    assert command[:2] == ["/usr/bin/porttrace", "serve"]
    parse(tuple(command[1:]))


def test_a_folder_of_its_own_is_there_for_the_textfile() -> None:
    texts = [words[words.index("--textfile") + 1] for words in commands() if "--textfile" in words]
    assert texts and "RuntimeDirectory=porttrace" in UNIT.read_text()
    assert set(texts) == {"/run/porttrace"}


def verified(unit: str, folder: Path) -> str:
    """Return what systemd has to say against a unit whose command is that of this checkout."""
    here = str(Path(sys.executable).with_name("porttrace"))
    file = folder / UNIT.name
    file.write_text(unit.replace("/usr/bin/porttrace", here))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file],
        capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    return done.stdout + done.stderr


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    assert verified(UNIT.read_text(), tmp_path) == ""
    bad = UNIT.read_text().replace("ProtectClock=yes", "ProtectClok=yes")
    assert "ProtectClok" in verified(bad, tmp_path)


def in_sandbox(unit: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    sandbox = Path(__file__).parent / "sandbox.py"
    own = ("unshare", "--mount", "--net", "--propagation", "private")
    return subprocess.run(
        [*own, "/usr/bin/python3", sandbox, unit, *words],
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


# Asks as Prometheus does until there is an answer, then ends the service as systemd does.
ASK = """
import subprocess, sys, time, urllib.request
service = subprocess.Popen(sys.argv[2:])
for _ in range(300):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
        break
    except OSError:
        assert service.poll() is None, "it ended"
        time.sleep(0.1)
service.terminate()
sys.exit(service.wait())
"""


@pytest.mark.kernel
@pytest.mark.parametrize("command", commands(), ids=shlex.join)
def test_the_service_answers(command: list[str]) -> None:
    porttrace = str(Path(sys.executable).with_name("porttrace"))
    words = [porttrace, *command[1:]]
    where = "http://127.0.0.1:9747/metrics"
    if "--textfile" in command:
        where = f"file://{command[command.index('--textfile') + 1]}/porttrace.prom"
    done = in_sandbox(UNIT, "/usr/bin/python3", "-c", ASK, where, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^porttrace_in_flight \d", done.stdout, re.M), done.stdout + done.stderr
