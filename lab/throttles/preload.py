"""The throttle `preload`: an LD_PRELOAD shim whose connect() waits for a slot in user space.

The shim's C source is compiled once into a private cache folder, named by the hash of its text, so
that nobody else can put a library where this one is looked for.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
from pathlib import Path

from porttrace.lab.errors import LabError
from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles import child

_SOURCE = Path(__file__).parent / "preload.c"
_FLAGS = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-fexceptions", "-pthread"]


def run(throttle: Throttle, command: list[str]) -> int:
    """Run `command` with the shim loaded into it and into its children; return its exit status."""
    if throttle.slots == 0:
        raise LabError(
            "the throttle preload needs at least one slot",
            "give --slots 1 or more, or run the command without a throttle",
        )
    process = child.start(command, environment(throttle))
    with child.signals_to(process):
        return child.exit_status(process.wait())


def environment(throttle: Throttle) -> dict[str, str]:
    """Return this process's environment with the shim in front of what is preloaded already."""
    others = os.environ.get("LD_PRELOAD", "")
    return {
        **os.environ,
        "LD_PRELOAD": f"{library()} {others}".strip(),
        "PORTTRACE_LAB_SLOTS": str(throttle.slots),
        "PORTTRACE_LAB_SCOPE": throttle.scope,
    }


def library() -> Path:
    """Return the compiled shim, built now if its source has not been built before."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    path = cache_folder() / f"preload-{digest}.so"
    if not path.exists():
        _build(path)
    return path


def cache_folder() -> Path:
    """Make sure of the private folder for compiled shims and return it."""
    folder = _cache_root() / "porttrace-lab"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or mode & 0o077:
        raise LabError(
            f"{folder} is not a private folder of this user, so no library is loaded from it",
            f"look at who made it, then remove it: rm -r {folder}",
        )
    return folder


def _cache_root() -> Path:
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"])
    return Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"


# Compiles beside the target and renames: another run never loads half a library.
def _build(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        fresh = Path(folder) / path.name
        command = ["gcc", *_FLAGS, "-o", os.fspath(fresh), os.fspath(_SOURCE), "-ldl"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise LabError(
                "the throttle preload needs the C compiler gcc, which is not installed",
                "apt-get install gcc libc6-dev",
            ) from error
        if done.returncode != 0:
            raise LabError(
                f"gcc could not build the shim {_SOURCE.name}: {done.stderr.strip()[-400:]}",
                "apt-get install libc6-dev, then run again",
            )
        fresh.rename(path)
