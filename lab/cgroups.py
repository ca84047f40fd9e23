"""Control groups of the lab: made below the caller's own, removed again, also after a crash.

They limit no resource: they are there to be told apart, by throttles that count by cgroup and by
hooks of BPF programs. Their names carry the process that made them, as those of the hosts do.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from porttrace.lab.errors import LabError
from porttrace.lab.hosts import Owner

_NAME = re.compile(r"porttrace-(\d+)-(\d+)-\w+")
_PROCS = "cgroup.procs"


@contextmanager
def cgroups(*names: str) -> Iterator[list[Path]]:
    """Make a cgroup per name below the caller's own and yield their folders; remove them after.

    Processes that are still inside when it ends are moved up, into the caller's.
    """
    with _own_folder() as parent:
        _clean_leftovers(parent)
        owner = Owner.this_process()
        made = [parent / f"porttrace-{owner.pid}-{owner.start_ticks}-{name}" for name in names]
        try:
            for folder in made:
                _make(folder)
            yield made
        finally:
            for folder in made:
                _remove(folder)


def enter(folder: Path) -> None:
    """Move the calling process into a cgroup; also fit to run in a child just before exec."""
    (folder / _PROCS).write_text("0")


def own() -> str:
    """Return the path of the caller's cgroup (version 2), "" where there is none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return ""


# `ip netns exec` mounts a fresh /sys over that of the host, in which there are no cgroups.
@contextmanager
def _own_folder() -> Iterator[Path]:
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (root / own().lstrip("/") / _PROCS).exists():
            yield root / own().lstrip("/")
            return
    with tempfile.TemporaryDirectory(prefix="porttrace-cgroup-") as root_name:
        _system("mount", "-t", "cgroup2", "none", root_name)
        try:
            yield Path(root_name) / own().lstrip("/")
        finally:
            _system("umount", "--lazy", root_name)


def _make(folder: Path) -> None:
    try:
        folder.mkdir()
    except OSError as error:
        raise LabError(
            f"cannot make the cgroup {folder}: {error.strerror}",
            "the lab needs root and a writable cgroup2 hierarchy",
        ) from error


def _remove(folder: Path) -> None:
    for path, _folders, _files in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            for pid in (Path(path) / _PROCS).read_text().split():
                with contextlib.suppress(OSError):
                    (folder.parent / _PROCS).write_text(pid)
            os.rmdir(path)


def _clean_leftovers(parent: Path) -> None:
    for folder in parent.iterdir():
        match = _NAME.fullmatch(folder.name)
        if match and not Owner(int(match[1]), int(match[2])).alive():
            _remove(folder)


def _system(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(
            f"{' '.join(words)} failed: {done.stderr.strip()}",
            "the lab needs root and a kernel with cgroup2",
        )
