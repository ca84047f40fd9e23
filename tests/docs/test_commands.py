"""Every command of the documentation can be typed as it stands there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pages import PAGES, ROOT, Command, block_lines, commands, joined, parse, split
from porttrace.cli import COMMANDS

ALL = [command for page in PAGES for command in commands(page)]
OURS = [command for command in ALL if command.words[0] == "porttrace"]
SCRIPTS = [command for command in ALL if command.words[0] != "porttrace"]

# They read a recording, and write to where we are at most.
READS = ("report", "show", "export", "whatif")
RUN = [
    command
    for command in OURS
    if command.words[1:2]
    and command.words[1] in READS
    and "--endpoint" not in command.words  # wants a collector: tests/cli/test_otlp.py has one
]
GOLDEN = ROOT / "tests" / "data" / "v1-two-threads.ptrace"

NOT_RUN = {
    "scripts/demo": "the story of README, run by tests/lab; it ends with a verdict",
    "scripts/test": "runs the tests, this one too",
    "scripts/setup": "installs; run before any test",
    "scripts/package": "builds for a minute; tests/packages",
    "scripts/vm": "boots kernels for minutes; tests/vm",
    "scripts/vm-provision": "as scripts/vm",
    "scripts/box": "wants a disk image of Debian, which no test downloads; tests/test_vagrant.py",
    "scripts/bench": "measures for up to 45 minutes; tests/bench runs short forms",
}
"""Scripts that no test of this file runs, and why."""

FOREIGN = {
    "ss": "lists what this host's sockets do at the moment: nothing to compare with",
    "systemctl": "names a service that a test's host does not have",
}
"""Programs in blocks marked as `sh` that are none of porttrace's, and why no test runs them."""


def test_there_are_some() -> None:
    assert len(ALL) > 40 and len(RUN) >= 4


@pytest.mark.parametrize("command", OURS, ids=str)
def test_its_options_exist(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recordings").mkdir()  # of an example in docs/lab.md
    monkeypatch.chdir(tmp_path)
    parse(command.words[1:])


def test_what_does_not_exist_is_found() -> None:
    for words in (("report", "x.ptrace", "--moon"), ("moon",), ("lab", "scenario", "moon")):
        with pytest.raises(click.UsageError):
            parse(words)


@pytest.mark.parametrize("command", RUN, ids=str)
def test_what_reads_a_recording_runs(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    for word in command.words[2:]:
        if word.endswith(".ptrace") and "/" not in word:
            shutil.copy(GOLDEN, tmp_path / word)
    done = subprocess.run(
        [sys.executable, "-m", "porttrace.cli", *command.words[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LANG": "C.UTF-8"},
    )
    met = 5 if "--fail-on" in command.words else 0
    assert done.returncode in (0, met), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", SCRIPTS, ids=str)
def test_the_script_is_there(command: Command) -> None:
    script, *words = command.words
    assert os.access(ROOT / script, os.X_OK) and script in NOT_RUN
    if script == "scripts/bench" and words:
        assert f"#   {words[0]} " in (ROOT / script).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_programs_are_known(page: Path) -> None:
    lines = [line for line in joined(block_lines(page)) if line.language == "sh"]
    words = [words for line in lines for words in split(line.text.removeprefix("$ "))]
    programs = {each[0] for each in words if each} - {"porttrace", "cd"}
    assert {each for each in programs if not each.startswith("scripts/")} <= set(FOREIGN)


def test_every_command_stands_in_a_page() -> None:
    named = {command.words[1] for command in OURS if len(command.words) > 1}
    text = "".join(page.read_text() for page in PAGES)
    assert not [name for name in COMMANDS if name not in named and f"porttrace {name}" not in text]
