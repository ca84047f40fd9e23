"""Debian's kernels for the virtual machines: fetched with apt once, and kept unpacked.

The packages come through a configuration of apt that is its own, signatures checked
with the keys of debian-archive-keyring; nothing of the system's apt is touched.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vm.errors import VmError

# Which release of Debian brings which kernel.
SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}
# Tools such as depmod live where only root looks.
PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FETCH_TIMEOUT_S = 900


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel.

    version: as the user names it, "6.1"; release: what uname -r says; root: the folder
    with boot/ and lib/modules/.
    """

    version: str
    release: str
    root: Path

    @property
    def image(self) -> Path:
        """Return the file that boots."""
        return self.root / "boot" / f"vmlinuz-{self.release}"


def cache_directory() -> Path:
    """Return the folder that keeps kernels: PORTTRACE_VM_CACHE, or one in the user's cache."""
    if named := os.environ.get("PORTTRACE_VM_CACHE"):
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "porttrace", "vm").absolute()


def obtain(version: str) -> Kernel:
    """Return a kernel of the cache, fetched first where it is missing; `version` is of SUITES.

    Raises:
        VmError: it cannot be fetched or unpacked.
    """
    root = cache_directory() / version
    if not root.is_dir():
        print(f"vm: fetching Debian's kernel {version}", file=sys.stderr)
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{version}-", dir=root.parent) as scratch:
            _fetch(version, Path(scratch))
            _keep(Path(scratch, "root"), root)
    images = sorted(root.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        raise VmError(f"{root} holds no kernel, or more than one", f"remove {root} and try again")
    return Kernel(version, images[0].name.removeprefix("vmlinuz-"), root)


def _keep(unpacked: Path, root: Path) -> None:
    try:
        unpacked.rename(root)
    except OSError:
        if not root.is_dir():  # else somebody else has fetched the same meanwhile
            raise


def _fetch(version: str, scratch: Path) -> None:
    # Leaves the unpacked kernel in scratch/root, with the index that modprobe reads.
    options = _apt_options(SUITES[version], scratch)
    _run(["apt-get", *options, "-qq", "update"])
    described = _run(["apt-cache", *options, "show", "linux-image-amd64"])
    match = re.search(r"^Depends: (linux-image-(\S+))", described, re.M)
    if match is None:
        raise VmError(
            f"Debian's {SUITES[version]} says nothing of its kernel", f"it said: {described[:200]}"
        )
    _run(["apt-get", *options, "-qq", "download", match[1]], scratch)
    root = scratch / "root"
    _run(["dpkg", "-x", *map(str, scratch.glob("linux-image-*.deb")), str(root)])
    if not (root / "lib").exists():  # from Debian 13 on
        (root / "lib").symlink_to("usr/lib")
    _run(["depmod", "-b", str(root), match[2]])
    shutil.rmtree(root / "usr" / "share", ignore_errors=True)


def _apt_options(suite: str, scratch: Path) -> list[str]:
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    mirror = os.environ.get("PORTTRACE_VM_MIRROR", MIRROR)
    sources = scratch / "sources.list"
    sources.write_text(f"deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n")
    (scratch / "status").touch()
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",  # its own user cannot reach into the cache of another
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _run(command: list[str], folder: Path | None = None) -> str:
    environment = os.environ | {"PATH": PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise VmError(f"there is no {command[0]} here", "run scripts/setup vm") from None
    except subprocess.TimeoutExpired:
        raise VmError(f"{command[0]} took over {FETCH_TIMEOUT_S} s", "try again") from None
    if done.returncode != 0:
        raise VmError(
            f"{command[0]} failed: {done.stderr.strip()[-500:]}",
            "is the mirror reachable? PORTTRACE_VM_MIRROR names another",
        )
    return done.stdout
