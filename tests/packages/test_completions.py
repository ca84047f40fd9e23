"""Tab in real shells, at a real terminal: bash, zsh, fish with the scripts that packages carry."""

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from packages import completions

START = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
    "fish": ("fish", "--no-config", "-i"),
}
# What makes the shell look where the package has put the script, and be quiet otherwise.
PREPARE = {
    "bash": "source {folder}/porttrace; bind 'set bell-style none'",
    "zsh": "PS1='> '; bindkey -e; fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D",
    "fish": "set -U fish_features no-query-term; source {folder}/porttrace.fish",
}
LIMIT_S = 90.0
EXPECTED = {
    "porttrace whati": "porttrace whatif",
    "porttrace --contai": "porttrace --container",
    "porttrace live --mode tracep": "porttrace live --mode tracepoint",
    "porttrace lab scena": "porttrace lab scenario",
    "porttrace report log": "porttrace report login.ptrace",
    "porttrace record -o log": "porttrace record -o login.ptrace",
    "porttrace show login.ptrace concur": "porttrace show login.ptrace concurrency",
}


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, shell: str, home: Path) -> None:
        self._said = ""
        self._pid, self._handle = pty.fork()
        if self._pid == 0:
            os.chdir(home)
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            os.execvpe(START[shell][0], START[shell], {
                "PATH": path, "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8", "PS1": "> ",
                "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home),
            })  # fmt: skip

    def type(self, text: str) -> None:
        os.write(self._handle, text.encode())

    def until(self, pattern: str) -> str:
        """Return what matches in all that was said since the last match."""
        end = time.monotonic() + LIMIT_S
        while not (found := re.search(pattern, self._said)):
            ready, _, _ = select.select([self._handle], [], [], max(0, end - time.monotonic()))
            assert ready, f"{pattern} did not come: {self._said!r}"
            self._said += os.read(self._handle, 4096).decode(errors="replace")
        self._said = self._said[found.end() :]
        return found[0]

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._handle)


def completed(shell: str, wanted: dict[str, str], folder: Path, home: Path) -> list[str]:
    """Return what Tab makes of each line that is typed, as the shell itself then says it."""
    terminal = Terminal(shell, home)
    answers = []
    try:
        terminal.type(PREPARE[shell].format(folder=folder) + "; echo rea''dy\r")
        terminal.until("ready\r?\n")
        for line, expected in wanted.items():
            terminal.type(f"{line}\t")
            terminal.until(re.escape(expected.removeprefix(line)))  # zsh minds who types on
            # a word at the head of the line, and back to its end
            terminal.type("\x01echo 'GOT''='\x05\r")
            terminal.until("\nGOT=")
            answers.append(terminal.until("[^\r\n]*").strip())
    finally:
        terminal.close()
    return answers


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shell", START)
def test_tab(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        assert os.environ.get("CI") != "true", f"needs {shell}: scripts/setup packages"
        pytest.skip(f"needs {shell}: scripts/setup packages")
    home = tmp_path / "home"
    home.mkdir()
    (home / "login.ptrace").write_text("")
    completions.write(tmp_path / "scripts")
    assert completed(shell, EXPECTED, tmp_path / "scripts", home) == list(EXPECTED.values())
