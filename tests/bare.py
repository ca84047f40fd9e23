"""Bare systems of Debian: chroots in memory, made by scripts/vm-provision, gone with the test."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
PROVISION = CHECKOUT / "scripts" / "vm-provision"
_ENVIRONMENT = (
    "LANG=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
# What changes by itself, or is not the system's own.
_NOT_ITS_FILES = ("dev", "home", "proc", "root", "run", "sys", "tmp", "var/cache", "var/lib/apt",
                  "var/lib/dpkg", "var/lib/rpm", "var/log")  # fmt: skip


@dataclass(frozen=True)
class Bare:
    """A running system; pid: of a process in it, as this machine counts."""

    pid: int

    def run(
        self, *words: str | Path, user: str = "root", code: int = 0, timeout_s: float = 300
    ) -> str:
        """Return all that a command says there, which must end with `code`."""
        home = "/root" if user == "root" else f"/home/{user}"
        done = subprocess.run(
            [
                *("nsenter", f"--target={self.pid}", "--mount", "--root"),
                *("/usr/bin/env", "-i", "-C", home, f"HOME={home}", *_ENVIRONMENT),
                *(() if user == "root" else ("runuser", "-u", user, "--")),
                *words,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        assert done.returncode == code, f"{words} ends with {done.returncode}: {done.stdout}"
        return done.stdout

    def outside(self, *words: str | Path) -> str:
        """Return what a program of this machine says that is shown the system in `root`."""
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", "--mount", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{words} ends with {done.returncode}: {done.stdout}"
        return done.stdout

    @property
    def root(self) -> Path:
        """The folder of the system; links in it that begin at / lead out of it."""
        return Path(f"/proc/{self.pid}/root")

    def files(self) -> set[str]:
        """Return every file and folder of the system that stays by itself as it is."""
        pruned = [word for path in _NOT_ITS_FILES for word in ("-path", f"/{path}", "-o")]
        return set(
            self.run("find", "/", "-xdev", "(", *pruned[:-1], ")", "-prune", "-o", "-print")
            .splitlines()
        )  # fmt: skip


@contextlib.contextmanager
def system(machine: str) -> Iterator[Bare]:
    """Make a system of `debian12` or `debian13`, as debootstrap leaves it, with sudo."""
    # It lives until its standard input ends: with this process at the latest.
    holder = subprocess.Popen(
        [PROVISION, "--bare", machine, "--", "sh", "-c", "echo system $$; exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr.fileno(), text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert holder.stdin and holder.stdout
    try:
        said = holder.stdout.readline().split()
        assert said[:1] == ["system"], f"{PROVISION} made no {machine}; what it says is above"
        yield Bare(int(said[1]))
    finally:
        holder.stdin.close()
        holder.wait(timeout=60)
        holder.stdout.close()
